import { existsSync, lstatSync, readlinkSync, statSync } from "node:fs";
import { join } from "node:path";
import { advice, CairnError, call, either, type Hint, line, option, see, toCairnError, word } from "../errors.ts";
import { NO_POLICY } from "../formats/records/policy.ts";
import {
  type MadeWorkspace,
  makeWorkspace,
  checkPlainName,
  initSelfContained,
  wasKept,
} from "../workspace/place/make-workspace.ts";
import { writePolicy } from "../workspace/place/control-directory.ts";
import { type ControlPaths, MAIN_WORKSPACE } from "../workspace/place/control-layout.ts";
import { isPlainOnBtrfs, requireConvertible } from "../workspace/care/convert.ts";
import {
  findWorkspace,
  type FoundWorkspace,
  type MovedFolder,
  openControlDirectory,
  realPathOf,
  movedHere,
} from "../workspace/place/find-workspace.ts";
import { checkLocation, keptElsewhere, realFolder, useElsewhere } from "../workspace/place/guards.ts";
import { relocate } from "../workspace/care/relocate.ts";
import { isAtOrBelow, printablePath, releaseLine, restoreLine, shellPath } from "../fs/paths/safe-path.ts";
import { createEmbeddedStore } from "../workspace/store/embedded-store.ts";
import type { WorkspaceParts } from "../workspace/open/workspace.ts";
import type { InitOptions, OpenOptions } from "../contract/care.ts";
import type { Client } from "../contract/index.ts";
import type { Conversion, EngineType } from "../contract/words.ts";
import { checkedQuota } from "../keep/cleanup.ts";
import { convertNew, engineOfNew, placeOfPoints, probeEngines, probeReasons, requireEngine } from "../keep/engine.ts";
import { rememberReasons } from "../look/engine-reasons.ts";
import type { LibraryHand } from "../keep/hand.ts";
import { goneFolders, leftReleases, ownPolynomial, releasedRegistration } from "../workspace/place/registry.ts";

/** Makes a folder a workspace. Throws `already_exists`. */
export async function init(hand: LibraryHand, path: string, options: InitOptions): Promise<Client> {
  const made = await madeAt(hand, path, options);
  if (made.created) return opened(hand, made);
  const { engineType } = options;
  const isSameEngine = engineType === undefined || engineType === made.found.controlFile.engine;
  throw new CairnError("already_exists", `${path} is a workspace already`, {
    hint: isSameEngine
      ? see(`-C ${shellPath(path)} status`, "status")
      : advice`its engine is ${made.found.controlFile.engine}; for the other one: ${call(`engine set ${engineType}`, "setEngine", engineType)}`,
  });
}

async function madeAt(hand: LibraryHand, path: string, options: InitOptions): Promise<Made> {
  return options.selfContained === true ? selfContainedAt(path, options) : keptAt(hand, path, options);
}

/** Opens a workspace, a self-contained root or a control directory. */
export async function open(hand: LibraryHand, path: string, options: OpenOptions): Promise<Client> {
  const released = options.released === true ? await openReleased(path, options) : null;
  const found =
    released ??
    (options.controlDirectory === undefined
      ? findWorkspace(path, { exact: true })
      : openControlDirectory(options.controlDirectory, path));
  if (found === null) {
    const isThere = existsSync(path);
    const moved =
      statSync(path, { throwIfNoEntry: false })?.isDirectory() === true ? movedHere(realFolder(path)) : null;
    if (moved !== null && options.controlDirectory === undefined)
      throw new CairnError(
        "not_a_workspace",
        `${path} was the workspace ${printablePath(moved.from)}, and was renamed`,
        {
          hint: advice`save it to connect it with its save points: ${line(`save ${shellPath(realFolder(path))}`, "openOrInit", path)}`,
          details: { moved_from: printablePath(moved.from) },
        },
      );
    const elsewhere = isThere && options.controlDirectory === undefined ? keptElsewhere(realPathOf(path)) : null;
    if (elsewhere !== null)
      throw new CairnError(
        "not_a_workspace",
        `this state directory does not have ${path}: ${printablePath(elsewhere.folder)} is a workspace with its save points in ${elsewhere.control}`,
        { hint: useElsewhere(elsewhere), details: { control_directory: elsewhere.control } },
      );
    if (!isThere && lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink() === true)
      throw new CairnError("not_a_workspace", `${path} is a link to ${readlinkSync(path)}, which does not exist`, {
        hint: "mount the disk, or start the daemon that mounts it, if it is not mounted",
      });
    const released = releasedRegistration(realPathOf(path))?.registered_at;
    const none = released === undefined ? "is not a workspace" : `is not a workspace: it was released ${released}`;
    throw new CairnError(
      "not_a_workspace",
      `${path} ${isThere ? none : "does not exist, and is not a registered workspace"}`,
      {
        hint: advice`${aboutGone(realPathOf(path), isThere)}${
          isThere
            ? advice`save the folder once (${call("save DIR", "openOrInit", word("DIR"))}) to make it a workspace, or go to one; ${call("workspaces", "listWorkspaces")} lists them`
            : advice`name an existing workspace: ${call("workspaces", "listWorkspaces")} lists them; to make a new one, make the folder first`
        }`,
      },
    );
  }
  return hand.opened(found);
}

/** Names the ways back of a workspace whose folder is missing, if it lay in or above `path`, or has its name. */
function aboutGone(path: Buffer, isThere: boolean): Hint {
  const nameOf = (folder: Buffer): Buffer => folder.subarray(folder.lastIndexOf("/") + 1);
  const isNear = (gone: Buffer): boolean => isAtOrBelow(gone, path) || isAtOrBelow(path, gone);
  const isNamesake = (gone: Buffer): boolean => isThere && nameOf(gone).equals(nameOf(path));
  const all = goneFolders();
  const gone = all.find(isNear) ?? all.find(isNamesake);
  if (gone === undefined) return "";
  const [was, now] = [shellPath(gone), isNear(gone) ? "NEW" : shellPath(path)];
  return advice`${printablePath(gone)} is missing: ${either(`\`cairn -C ${was} restore latest\``, restoreLine(gone))} restores it; if you moved it: ${line(`relocate ${was} ${now}`, "relocate", printablePath(gone), word(now))}; otherwise `;
}

/** Makes a released folder a workspace again. Returns null if the folder was not released, or its points are missing. */
async function openReleased(
  path: string,
  { controlDirectory, lockTimeoutMs, signal }: OpenOptions,
): Promise<FoundWorkspace | null> {
  if (findWorkspace(path, { exact: true }) !== null) return null;
  for (const folder of [path, join(path, MAIN_WORKSPACE)]) {
    // A killed release that deletes points is finished when the folder is forgotten.
    const isRemoved = leftReleases().some((left) => left.folder.equals(realPathOf(folder)));
    if (!existsSync(folder) || isRemoved) continue;
    try {
      const made = await makeWorkspace(folder, {
        engine: "copy",
        controlDirectory,
        lockTimeoutMs,
        signal,
        populate: async () => undefined,
        guard(real, chosen) {
          if (chosen === null || !wasKept(real, chosen))
            throw new CairnError("not_a_workspace", "it never was a workspace");
        },
      });
      return made.found;
    } catch (error) {
      if (toCairnError(error).code !== "not_a_workspace") throw error;
    }
  }
  return null;
}

/** Opens a workspace, or makes the folder one. */
export async function openOrInit(hand: LibraryHand, path: string, options: InitOptions): Promise<Client> {
  const found = findWorkspace(path, { exact: true });
  if (found !== null) return hand.opened(inWantedControl(found, path, options.controlDirectory));
  if (options.selfContained === true || options.controlDirectory !== undefined)
    return opened(hand, await madeAt(hand, path, options));
  const moved = movedHere(realFolder(path));
  if (moved !== null) return follow(hand, moved, path, options);
  return opened(hand, await keptAt(hand, path, options, moved));
}

/** Relocates a renamed folder's workspace to its new path. Throws `conflict` if another folder is at the old path. */
async function follow(
  hand: LibraryHand,
  { from, isReplaced }: MovedFolder,
  path: string,
  options: InitOptions,
): Promise<Client> {
  const [was, now] = [shellPath(from), shellPath(realFolder(path))];
  if (isReplaced)
    throw new CairnError("conflict", `the workspace ${now} was at ${was}, where another folder lies now`, {
      hint: advice`to continue with its save points: ${line(`relocate ${was} ${now}`, "relocate", printablePath(from), path)}; to start without them: ${line(`init ${now}`, "openOrInit", path)}`,
    });
  const { signal, lockTimeoutMs, allow } = options;
  await relocate(hand.parts, { from: from.toString("utf8"), to: path, options: { signal, lockTimeoutMs, allow } });
  const found = findWorkspace(path, { exact: true });
  if (found === null) throw new CairnError("conflict", `${now} was moved again while Cairn recorded its move`);
  return hand.opened(found, false, { followedFrom: from.toString("utf8") });
}

function opened(hand: LibraryHand, { found, created, conversion }: Made): Client {
  return hand.opened(found, created, { conversion });
}

async function selfContainedAt(path: string, options: InitOptions): Promise<MadeWorkspace> {
  checkOptions(options);
  const made = await initSelfContained(path, {
    name: options.name,
    engine: await engineOfNew(path, options),
    populate: populateWith(options),
    guard: (root, chosen) => checkLocation(root, { allow: options.allow, control: chosen?.root }),
  });
  if (made.created) await probeReasons(made.found);
  return made;
}

/** Makes an existing folder a workspace. `known`: its earlier place, if the caller has looked that up. */
async function keptAt(
  { parts }: LibraryHand,
  path: string,
  options: InitOptions,
  known?: MovedFolder | null,
): Promise<Made> {
  checkOptions(options);
  const folder = realFolder(path);
  const moved = known === undefined ? movedHere(folder) : known;
  const probed = await probeEngines(folder, options);
  const engine = options.engineType ?? probed.best;
  const toConvert = options.engineType === "btrfs-snapshot" && isPlainOnBtrfs(folder);
  if (toConvert)
    await requireConvertible(folder, {
      place: placeOfPoints(folder, options.controlDirectory),
      allow: options.allow,
      signal: options.signal,
    });
  else if (options.engineType !== undefined) await requireEngine(path, engine, options);
  const made = await makeWorkspace(folder, {
    name: options.name,
    engine: toConvert ? "copy" : engine,
    controlDirectory: options.controlDirectory,
    populate: populateWith(options),
    guard: (real, chosen) =>
      checkLocation(real, { allow: options.allow, control: chosen?.root ?? options.controlDirectory }),
    lockTimeoutMs: options.lockTimeoutMs,
    signal: options.signal,
  });
  if (moved !== null && made.created) {
    const [was, now] = [shellPath(moved.from), shellPath(folder)];
    options.onWarning?.(
      `this folder was the workspace ${was}, and starts here without its save points; to continue with them: cairn release ${now} && cairn relocate ${was} ${now}`,
    );
  }
  if (toConvert && made.created) return converted(parts, made, options);
  if (made.created) rememberReasons(made.found, made.found.controlFile.engine as EngineType, probed.reasons);
  return made;
}

async function converted(parts: WorkspaceParts, made: MadeWorkspace, options: InitOptions): Promise<Made> {
  const { found, conversion } = await convertNew(made.found, parts, options);
  await probeReasons(found);
  return { ...made, found, conversion };
}

/** The new workspace, and the conversion of its folder if one was needed. */
type Made = MadeWorkspace & { conversion?: Conversion };

/** Returns the workspace in the named control directory. Throws `conflict` if that directory does not keep the folder. */
function inWantedControl(found: FoundWorkspace, path: string, wanted: string | undefined): FoundWorkspace {
  const { root } = found.control;
  if (wanted === undefined || realPathOf(wanted).equals(realPathOf(root))) return found;
  try {
    return openControlDirectory(wanted, path);
  } catch (error) {
    if (!(error instanceof CairnError) || error.code !== "not_a_workspace") throw error;
    throw new CairnError("conflict", `${path} has its save points in ${root}, not in ${wanted}`, {
      hint: advice`leave out ${option("controlDirectory")}; or release the folder first: ${releaseLine(path)}`,
      cause: error,
    });
  }
}

function checkOptions({ name, quotaBytes, selfContained, controlDirectory }: InitOptions): void {
  if (selfContained === true && controlDirectory !== undefined)
    throw new CairnError("usage", "a self-contained workspace has its control directory in it", {
      hint: advice`leave out ${option("controlDirectory")}`,
    });
  if (name !== undefined) checkPlainName(name);
  checkedQuota(quotaBytes ?? null);
}

/** Returns a function that fills a new control directory. */
function populateWith(options: InitOptions): (staged: ControlPaths) => Promise<void> {
  return async (staged) => {
    await createEmbeddedStore(staged.root, ownPolynomial());
    if (options.quotaBytes !== undefined) writePolicy(staged, { ...NO_POLICY, quota_bytes: options.quotaBytes });
  };
}
