import { examineWorkspace } from "../workspace/care/doctor.ts";
import { whyNotWritable } from "../workspace/care/doctor-control.ts";
import type {
  DoctorOptions,
  DoctorResult,
  EngineOptions,
  EngineResult,
  Finding,
  InitOptions,
} from "../contract/care.ts";
import type { CallOptions, Conversion, EngineReason, EngineType, GuardName } from "../contract/words.ts";
import { type ProbeAnswer, probeHolder, probeNewSubvolume } from "../clones/probe.ts";
import { advice, adviceOf, CairnError, option, worded } from "../errors.ts";
import { displayPath, isAtOrBelow, listedNames, printablePath } from "../fs/paths/safe-path.ts";
import { newControlId } from "../ids.ts";
import {
  isFolderThere,
  isReleased,
  listWorkspaces,
  readControl,
  readWorkspace,
  writeControl,
} from "../workspace/place/control-directory.ts";
import { chooseControlDirectory } from "../workspace/place/make-workspace.ts";
import { convertFolder, type ConvertTo, isToConvert } from "../workspace/care/convert.ts";
import { findWorkspace, type FoundWorkspace, realPathOf } from "../workspace/place/find-workspace.ts";
import { recoverWorkspace } from "../workspace/open/recovery.ts";
import { existingAncestor } from "../workspace/place/room.ts";
import { Workspace, type WorkspaceParts } from "../workspace/open/workspace.ts";
import { release } from "../workspace/care/release.ts";
import {
  askingFor,
  COPY,
  currentlyRemembered,
  rememberedReasons,
  rememberReasons,
  withChosen,
} from "../look/engine-reasons.ts";
import { isGone } from "../fs/silent-mounts.ts";

/** Clone drivers, fastest first. `copy`, which always works, comes after them. */
const ORDER = ["btrfs-snapshot", "juicefs-clone", "reflink-copy"] as const;
/** Only chosen on request: these engines clone every file, but `copy` only looks at each file and reads changed ones. */
const ON_REQUEST: ReadonlyMap<EngineType, string> = new Map([
  ["juicefs-clone", "works here; each clone is compared with the folder, file by file, and read when it is sealed"],
  ["reflink-copy", "works here; better than copy for few large files that change often"],
]);

/** Place of the points, if given, and the signal that stops the probe. */
interface ProbeOptions {
  controlDirectory?: string | undefined;
  signal?: AbortSignal | undefined;
}

/**
 * Returns the best engine for a path, or a workspace's present engine, and the reasons against better ones. Tries each
 * in a temporary folder beside the place of the points. Never fails for an existing folder.
 */
export async function detectEngine(path: string, options: ProbeOptions): Promise<EngineResult> {
  const folder = existingFolder(path);
  const { best, reasons } = await probeEngines(folder, options);
  const engine = engineInUse(folder) ?? best;
  return { path, engine, engine_reasons: withChosen(reasons, engine) };
}

/** Returns a workspace's engine; null for a folder that is no workspace, or if its records cannot be read. */
function engineInUse(folder: Buffer): EngineType | null {
  try {
    return (findWorkspace(folder, { exact: true })?.controlFile.engine as EngineType | undefined) ?? null;
  } catch {
    return null;
  }
}

interface Probed {
  /** the engine that is used by default */
  best: EngineType;
  works: ReadonlySet<EngineType>;
  /** reasons for all engines; none is chosen */
  reasons: EngineReason[];
}

/** Tries each engine for a folder (its real path), as {@link detectEngine} does. */
export async function probeEngines(folder: Buffer, { controlDirectory, signal }: ProbeOptions): Promise<Probed> {
  const place = placeOrRefusal(folder, controlDirectory);
  const works = new Set<EngineType>(["copy"]);
  const reasons: EngineReason[] = [];
  for (const engine of ORDER) {
    const answer = typeof place === "string" ? await probeHolder(engine, { folder, place, signal }) : place;
    if (answer === null) works.add(engine);
    const itWorks = { reason: ON_REQUEST.get(engine) ?? "works here (tried)", hint: askingFor(engine) };
    const { reason, hint } = answer ?? itWorks;
    reasons.push({ engine, chosen: false, reason, ...(hint === undefined ? {} : { hint: worded(hint) }) });
  }
  const best = ORDER.find((engine) => works.has(engine) && !ON_REQUEST.has(engine)) ?? "copy";
  return { best, works, reasons: [...reasons, COPY] };
}

/**
 * Returns the engine of a new self-contained workspace, whose folder becomes a subvolume if that helps. Throws
 * `unsupported` if the requested engine does not work there, `no_space`.
 */
export async function engineOfNew(
  path: string,
  { engineType: wanted, signal }: Pick<InitOptions, "engineType" | "signal">,
): Promise<EngineType> {
  if (wanted === "copy") return wanted;
  const type = wanted ?? "btrfs-snapshot";
  // Folder and points will lie in the path, which may not exist yet.
  const folder = existingAncestor(realPathOf(path));
  const probe = { folder, place: folder.toString("utf8"), signal };
  const answer = type === "btrfs-snapshot" ? await probeNewSubvolume(probe) : await probeHolder(type, probe);
  if (answer === null) return type;
  if (wanted === undefined) return "copy";
  throw notWorking(type, path, answer);
}

function existingFolder(path: string): Buffer {
  const folder = realPathOf(path);
  if (isGone(folder)) throw new CairnError("not_found", `there is no ${printablePath(folder)}`);
  return folder;
}

/**
 * Returns the lowest existing folder on the path to a folder's points. Throws `refused` if the points would lie inside
 * the folder: its clones would include them.
 */
export function placeOfPoints(folder: Buffer, controlDirectory: string | undefined): string {
  const found = controlDirectory === undefined ? findWorkspace(folder.toString("utf8"), { exact: true }) : null;
  const root = found?.control.root ?? controlDirectory ?? chooseControlDirectory(folder, { id: newControlId() }).root;
  const place = existingAncestor(realPathOf(root));
  if (isAtOrBelow(place, folder))
    throw new CairnError(
      "refused",
      `the save points lie inside the folder, at ${root}: a clone of the folder would include them`,
      {
        hint: advice`name a place outside the folder with ${option("controlDirectory")}`,
      },
    );
  return place.toString("utf8");
}

/**
 * Returns the place of a folder's points. If that is inside the folder (for example of `/`), returns the refusal as the
 * answer of each probe.
 */
function placeOrRefusal(folder: Buffer, controlDirectory: string | undefined): string | NonNullable<ProbeAnswer> {
  try {
    return placeOfPoints(folder, controlDirectory);
  } catch (error) {
    if (!(error instanceof CairnError) || error.code !== "refused") throw error;
    return { reason: error.message, hint: adviceOf(error) };
  }
}

/** Throws `unsupported` with a reason and a hint if the engine does not work at a path; `no_space`, `not_found`. */
export async function requireEngine(path: string, type: EngineType, options: ProbeOptions): Promise<void> {
  if (type === "copy") return;
  const folder = existingFolder(path);
  const place = placeOfPoints(folder, options.controlDirectory);
  const answer = await probeHolder(type, { folder, place, signal: options.signal });
  if (answer === null) return;
  throw notWorking(type, path, answer);
}

function notWorking(type: EngineType, path: string, { reason, hint, isFull }: NonNullable<ProbeAnswer>): CairnError {
  return new CairnError(
    isFull === true ? "no_space" : "unsupported",
    `the engine ${type} does not work at ${path}: ${reason}`,
    {
      hint: hint ?? "name no engine, or copy, which works everywhere",
    },
  );
}

/** Returns the results of the last probe. Probes again if no results are stored for the present file systems. */
export async function currentReasons(found: FoundWorkspace, options: CallOptions): Promise<EngineReason[]> {
  return currentlyRemembered(found) ?? (await probeReasons(found, options.signal)).reasons;
}

/** Probes the engines for the present folder and stores the results. `works`: whether the engine in use works. */
export async function probeReasons(
  found: FoundWorkspace,
  signal?: AbortSignal,
): Promise<{ works: boolean; reasons: EngineReason[] }> {
  const { folder, control, controlFile } = found;
  const engine = controlFile.engine as EngineType;
  const { works, reasons } = await probeEngines(folder, { controlDirectory: control.root, signal });
  rememberReasons(found, engine, reasons);
  return { works: works.has(engine), reasons: withChosen(reasons, engine) };
}

/**
 * Changes how later points of the control directory hold content; existing points keep theirs. For btrfs-snapshot a
 * plain folder becomes a subvolume in place; `plain` reverts that. Throws `unsupported`, and errors of {@link convert}.
 */
export async function setEngine(workspace: Workspace, type: EngineType, options: EngineOptions): Promise<EngineResult> {
  const { found, root } = workspace;
  const path = root.toString("utf8");
  const to = options.plain === true ? "plain" : "subvolume";
  if (to === "plain" && type !== "reflink-copy")
    throw new CairnError("usage", `a plain folder on btrfs can have the engine reflink-copy, not ${type}`);
  const toConvert = (): boolean => (to === "plain" || type === "btrfs-snapshot") && isToConvert(root, to);
  const controlDirectory = found.control.root;
  if (!toConvert()) await requireEngine(path, type, { controlDirectory, signal: options.signal });
  using _lock = await workspace.lock("engine", options);
  await recoverWorkspace(workspace, options);
  const before = (readControl(found.control) ?? found.controlFile).engine;
  // The recovery may have finished a conversion just now.
  const conversion = toConvert() ? await convert(workspace, options, to) : null;
  if (conversion === null)
    writeControl(found.control, { ...(readControl(found.control) ?? found.controlFile), engine: type });
  // The change is done: an abort must not make it a failure.
  const { reasons } = await probeEngines(root, { controlDirectory });
  rememberReasons(found, type, reasons);
  const others = listWorkspaces(found.control).flatMap(({ name, workspace: each }) =>
    name === found.workspace.name || each === null || isReleased(each) ? [] : name,
  );
  if (others.length > 0 && before !== type)
    options.onWarning?.(
      `all workspaces in ${found.control.root} have the same engine, so it changed for these too: ${listedNames(others)}`,
    );
  return {
    path,
    engine: type,
    engine_reasons: withChosen(reasons, type),
    ...(conversion === null ? {} : { conversion }),
  };
}

export interface ConvertOptions extends CallOptions {
  allow?: readonly GuardName[] | undefined;
}

/** Makes the folder a subvolume in place, or a plain one again. The caller holds the workspace's lock. */
export async function convert(
  workspace: Workspace,
  options: ConvertOptions,
  to: ConvertTo = "subvolume",
): Promise<Conversion> {
  const started = performance.now();
  const { original, entries, bytes } = await convertFolder(workspace, options, to);
  const { path, path_b64: raw } = displayPath(original);
  return {
    original: path,
    ...(raw === undefined ? {} : { original_b64: raw }),
    entries,
    bytes,
    duration_ms: Math.round(performance.now() - started),
  };
}

/**
 * Converts a folder that the same call has just made a workspace. If that fails, it is none again; points from an
 * earlier time stay.
 */
export async function convertNew(
  found: FoundWorkspace,
  parts: WorkspaceParts,
  options: ConvertOptions,
): Promise<{ found: FoundWorkspace; conversion: Conversion }> {
  await using workspace = new Workspace(found, parts);
  try {
    const conversion = await convertLocked(workspace, options);
    return {
      conversion,
      found: {
        ...found,
        controlFile: readControl(found.control) ?? found.controlFile,
        workspace: readWorkspace(found.control, found.workspace.name) ?? found.workspace,
      },
    };
  } catch (error) {
    const deletePoints = workspace.points.committed().length === 0;
    await release(workspace, { deletePoints }).catch(() => undefined);
    throw error;
  }
}

async function convertLocked(workspace: Workspace, options: ConvertOptions): Promise<Conversion> {
  using _lock = await workspace.lock("convert", options);
  await recoverWorkspace(workspace, options);
  return await convert(workspace, options);
}

/**
 * Finds problems of everything that belongs to a control directory and, if asked, repairs them. Also reports the engine
 * in use, and the reason.
 */
export async function doctor(workspace: Workspace, options: DoctorOptions): Promise<DoctorResult> {
  const { root, found } = workspace;
  const { healthy, findings } = await examineWorkspace(workspace, options);
  // Without the folder no engine can be probed.
  const { works, reasons } = isFolderThere(root)
    ? await probeReasons(found, options.signal)
    : { works: true, reasons: rememberedReasons(found) };
  const used = reasons.find(({ chosen }) => chosen)!;
  const all = works ? findings : [...findings, engineFinding(used, whyNotWritable(found.control.root) === null)];
  return { healthy, findings: all, engine: used.engine, engine_reasons: reasons };
}

/** Returns the finding about an engine that does not work now. No damage: later points use the store and say so. */
function engineFinding({ engine, reason, hint }: EngineReason, canSave: boolean): Finding {
  const help = hint === undefined ? "" : `; ${hint}`;
  const instead = canSave ? ", so saves go into the store instead" : "";
  const detail = `${engine} does not work here now${instead}: ${reason}${help}`;
  return { kind: "engine", severity: "warning", detail };
}
