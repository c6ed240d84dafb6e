import fs from "node:fs";
import path from "node:path";
import type { ExamineRequest, StoreFinding } from "../store/store-care.ts";
import { CairnError, throwIfAborted, toCairnError } from "../../errors.ts";
import { durableMkdir } from "../../fs/durable.ts";
import { describeOwner, livenessOf } from "../../fs/lock-owner.ts";
import { breakLock, type Lock, lockHolder } from "../../fs/lock.ts";
import { filesystemKind } from "../../fs/linux/mounts.ts";
import { printablePath } from "../../fs/safe-path.ts";
import { loadStatCache } from "../../archive/cache/stat-cache.ts";
import { deadWorkDirectories, removeDeadWorkDirectories } from "../../fs/work-directory.ts";
import { FOLDER_KINDS } from "../../repository/storage/storage.ts";
import { controlWarnings } from "../place/adopt.ts";
import { isFolderThere, listLeases, listWorkspaces, recordFolder } from "../place/control-directory.ts";
import { originalsBeside } from "../place/convert.ts";
import { type ControlPaths, statCachePath, workspacePaths } from "../place/control-layout.ts";
import { journalFindings } from "./doctor-journal.ts";
import { descriptorFindings, heldFindings, recordFindings, stateFindings } from "./doctor-points.ts";
import { isOtherFolder, workspaceAt } from "../place/find-workspace.ts";
import { waysBack } from "../restore/missing-folder.ts";
import { listPartials } from "../new-folder/new-folder.ts";
import { allPoints } from "../points/points.ts";
import { needsRecovery, recoverWorkspace } from "./recovery.ts";
import { finishRelease, leftReleases, lockRegistry, registerWorkspace } from "../place/registry.ts";
import { whyLeft } from "../points/held-trees.ts";
import { isUnfreed } from "./cleanup.ts";
import { verifyHeld } from "./verify.ts";
import type { Workspace, WorkspaceCall } from "../workspace.ts";

export interface DoctorInput extends WorkspaceCall {
  /** Do what the findings say; without it nothing is changed. */
  repair?: boolean | undefined;
  /** Take over another host's lock whose holder cannot be judged. */
  breakLocks?: boolean | undefined;
}

export interface Finding {
  kind: string;
  severity: "info" | "warning" | "damage";
  detail: string;
  /** Repair that a repairing run does. */
  repair?: string;
  /** Set by a repairing run. */
  repaired?: boolean;
}

export interface Doctored {
  /** No damage is left. */
  healthy: boolean;
  findings: Finding[];
}

/** Kinds of findings with which the store cannot be looked into. */
const CLOSED = ["store", "key", "config"];

/** The key of the finding about damage that only a full read can name; after one it is named. */
const RECORDED = "recorded";

/**
 * Looks at everything that belongs to a control directory, but does not read the packs' content, which `verify` does.
 * With `repair` each finding is mended as soon as its part was looked at, so that later parts see it.
 */
export async function examineWorkspace(workspace: Workspace, input: DoctorInput): Promise<Doctored> {
  throwIfAborted(input.signal);
  return new Doctor(workspace, input).run();
}

class Doctor {
  readonly #workspace: Workspace;
  readonly #input: DoctorInput;
  readonly #findings = new Map<string, Finding>();

  constructor(workspace: Workspace, input: DoctorInput) {
    this.#workspace = workspace;
    this.#input = input;
  }

  async run(): Promise<Doctored> {
    const workspace = this.#workspace;
    await this.#take(lockFindings(workspace, this.#input.breakLocks === true));
    let lock: Lock | null = null;
    if (this.#input.repair === true) lock = await workspace.lock("doctor", this.#input);
    try {
      await this.#take(missingFolderFindings(workspace));
      if (this.#has("missing")) return this.#result();
      await this.#take(controlFindings(workspace));
      await this.#take(await workspace.engine.examineAccess());
      const opens = !this.#unmended().some(({ kind, severity }) => CLOSED.includes(kind) && severity === "damage");
      await this.#take(stateFindings(workspace));
      await this.#take(journalFindings(workspace));
      // What says how to finish it cannot be read.
      if (opens && !this.#has("journal")) await this.#take(this.#interrupted());
      await this.#take(recordFindings(workspace));
      await this.#take(heldFindings(workspace));
      await this.#take(await descriptorFindings(workspace, { opens, signal: this.#input.signal }));
      if (opens) await this.#store();
    } finally {
      lock?.release();
    }
    return this.#result();
  }

  #result(): Doctored {
    const healthy = !this.#unmended().some(({ severity }) => severity === "damage");
    return { healthy, findings: [...this.#findings.values()] };
  }

  #unmended(): Finding[] {
    return [...this.#findings.values()].filter(({ repaired }) => repaired !== true);
  }

  #has(wanted: string): boolean {
    return this.#unmended().some(({ kind }) => kind === wanted);
  }

  /** Lists findings and, in a repairing run, mends them one after the other. */
  async #take(found: Iterable<StoreFinding>): Promise<void> {
    // All of a part is looked at before any of it is mended.
    const all = Array.from(found);
    for (const each of all) {
      const { kind, severity, detail, repair, mend } = each;
      throwIfAborted(this.#input.signal);
      const finding: Finding = { kind, severity, detail, ...(repair === undefined ? {} : { repair }) };
      this.#findings.set(keyOf(each), finding);
      if (this.#input.repair !== true || mend === undefined) continue;
      this.#input.onProgress?.({ phase: "repairing", done: this.#findings.size, current: kind });
      try {
        await mend();
        finding.repaired = true;
      } catch (error) {
        const problem = toCairnError(error);
        if (problem.code === "interrupted") throw problem;
        finding.repaired = false;
        finding.detail = `${detail}; this could not be mended: ${problem.message}`;
      }
    }
  }

  #interrupted(): StoreFinding[] {
    // A process that is at work needs no recovery.
    const isAtWork = this.#input.repair !== true && lockHolder(this.#workspace.found.paths.lock) !== null;
    if (isAtWork || !needsRecovery(this.#workspace)) return [];
    return [
      {
        kind: "interrupted",
        severity: "info",
        detail: "an earlier command was interrupted; the next one that changes something finishes it",
        repair: "it is finished or taken back",
        mend: () => recoverWorkspace(this.#workspace, this.#input),
      },
    ];
  }

  async #store(): Promise<void> {
    const { engine, found } = this.#workspace;
    const first = await engine.examine(this.#request());
    await this.#take(first);
    if (!first.some((each) => this.#findings.get(keyOf(each))?.repaired === true)) return;
    // Points whose last verification found damage are verified again.
    const damaged = allPoints(found.control).flatMap(({ paths, points }) =>
      points
        .list()
        .points.flatMap((point) => (point.sealed && point.verification?.ok === false ? { point, paths } : [])),
    );
    if (damaged.length > 0) await verifyHeld(this.#workspace, damaged, { ...this.#input, lockHeld: true });
    // What is left was there before and stays, or came to light.
    const left = new Map((await engine.examine(this.#request())).map((each) => [keyOf(each), each]));
    left.delete(RECORDED);
    for (const each of first) {
      const key = keyOf(each);
      const finding = this.#findings.get(key)!;
      if (!left.has(key)) finding.repaired = true;
      else if (finding.repaired === true) finding.repaired = false;
      left.delete(key);
    }
    for (const [key, { kind, severity, detail }] of left) this.#findings.set(key, { kind, severity, detail });
  }

  #request(): ExamineRequest {
    const { control } = this.#workspace.found;
    const lists = allPoints(control).map(({ points }) => points.list());
    const sealed = lists.flatMap(({ points }) => points.filter((point) => point.sealed));
    return {
      points: sealed.map(({ descriptor }) => ({
        id: descriptor.save_point_id,
        createdAt: descriptor.created_at,
        content: descriptor.content as unknown as ExamineRequest["points"][number]["content"],
      })),
      known: knownIds(control),
      nameless: lists.flatMap(({ damaged }) => damaged).filter(({ id }) => id === null).length,
      recordedDamage: sealed.filter(({ verification }) => verification?.ok === false).length,
      signal: this.#input.signal,
      onProgress: (progress) =>
        this.#input.onProgress?.({ phase: this.#input.repair === true ? "repairing" : "verifying", ...progress }),
    };
  }
}

function keyOf({ key, kind, detail }: StoreFinding): string {
  return key ?? `${kind} ${detail}`;
}

/** True for the id of a point, also a damaged one, or of a save that is not finished; looked up when first asked. */
function knownIds(control: ControlPaths): (id: string) => boolean {
  let ids: Set<string | null> | undefined;
  return (id) => {
    ids ??= new Set(
      allPoints(control).flatMap(({ points }) => {
        const { points: healthy, damaged } = points.list();
        const known = healthy.map(({ descriptor }) => descriptor.save_point_id);
        return [...known, ...[...damaged, ...points.unfinished()].map((each) => each.id)];
      }),
    );
    return ids.has(id);
  };
}

/** The holder of the workspace's lock, where that cannot be judged; with `breakLocks` the lock is taken away. */
function* lockFindings({ found }: Workspace, breakLocks: boolean): Iterable<StoreFinding> {
  const { lock } = found.paths;
  const holder = lockHolder(lock);
  const { place } = filesystemKind(found.control.root);
  if (holder === null || livenessOf(holder, place === "local" || place === "memory") !== "unknown") return;
  const kind = "lock";
  const severity = "warning";
  const detail = `the workspace is locked by ${describeOwner(holder)}, of which nothing can be known from here`;
  if (breakLocks) yield { kind, severity, detail, repair: "the lock is taken away", mend: () => breakLock(lock) };
  else yield { kind, severity, detail: `${detail}; once it is known to be dead: doctor --repair --break-locks` };
}

/**
 * Folders that are made with a control directory and are not there, as after a copy that left out empty ones. Without them
 * nothing else can be looked at; what was in them is found missing afterwards.
 */
function* missingFolderFindings({ found: { control } }: Workspace): Iterable<StoreFinding> {
  const journals = listWorkspaces(control).flatMap(({ name, workspace }) =>
    workspace === null ? [] : [workspacePaths(control, name).journal],
  );
  // A store that is missing as a whole is another finding, and nothing to be made anew.
  const store = fs.existsSync(control.store) ? FOLDER_KINDS.map((each) => path.join(control.store, each)) : [];
  for (const folder of [...journals, ...store]) {
    if (fs.lstatSync(folder, { throwIfNoEntry: false }) !== undefined) continue;
    const detail = `the folder ${folder} is not there`;
    yield { kind: "missing", severity: "damage", detail, repair: "it is made", mend: () => durableMkdir(folder) };
  }
}

/** The control directory's place and modes, what was left in it, the workspace's folder and how it is found. */
function* controlFindings(workspace: Workspace): Iterable<StoreFinding> {
  yield* placeFindings(workspace);
  yield* leftoverFindings(workspace);
  yield* unreadableFindings(workspace);
  yield* folderFindings(workspace);
  yield* registryFindings(workspace);
}

function* placeFindings({ found }: Workspace): Iterable<StoreFinding> {
  const { root } = found.control;
  const warnings = controlWarnings(root);
  const why = whyNotWritable(root);
  if (why !== null) warnings.push(`nothing can be saved, nor restored in place: ${root} cannot be written (${why})`);
  for (const detail of warnings) yield { kind: "control-place", severity: "warning", detail };
  const mode = fs.statSync(root).mode & 0o777;
  if ((mode & 0o077) === 0) return;
  yield {
    kind: "permissions",
    severity: "warning",
    detail: `others may look into ${root} (mode ${mode.toString(8)})`,
    repair: "only its owner may from then on",
    mend: () => fs.chmodSync(root, 0o700),
  };
}

/** Says why nothing can be written into a control directory now; null where it can. */
export function whyNotWritable(root: string): string | null {
  try {
    fs.accessSync(root, fs.constants.W_OK);
    return null;
  } catch (error) {
    return toCairnError(error).message;
  }
}

function* leftoverFindings({ found: { control, workspace } }: Workspace): Iterable<StoreFinding> {
  const { temporary } = control;
  const dead = deadWorkDirectories(temporary);
  if (dead.length > 0)
    yield {
      kind: "leftovers",
      severity: "info",
      detail: `${dead.length} unfinished ${dead.length === 1 ? "folder" : "folders"} of processes that are gone in ${temporary}`,
      repair: "they are removed",
      mend: () => {
        const stay = removeDeadWorkDirectories(temporary);
        const reasons = stay.map(({ directory, reason }) => whyLeft(directory, toCairnError(reason)));
        if (stay.length > 0) throw new CairnError("permission", reasons.join("; "));
      },
    };
  if (isUnfreed(control))
    yield {
      kind: "leftovers",
      severity: "info",
      detail: "content of points that were removed is still in the store; what takes it out: cairn cleanup",
    };
  const statCache = statCachePath(control, workspace.id);
  if (fs.existsSync(statCache) && loadStatCache(statCache) === null)
    yield {
      kind: "cache",
      severity: "info",
      detail: "the cache of the folder's entries cannot be used; the next save reads everything",
      repair: "it is removed and made again",
      mend: () => fs.rmSync(statCache, { force: true }),
    };
  // Of any folder of this user: what was to be deleted lies where no other command may ever look.
  for (const note of leftReleases())
    yield {
      kind: "leftovers",
      severity: "warning",
      detail: `${note.place}: the points of ${printablePath(note.folder)}, whose deletion by \`cairn release\` was interrupted`,
      repair: "they are removed",
      mend: async () => {
        // Not waited for: who releases holds it, and waits for the workspace's.
        using _registry = await lockRegistry({ purpose: "doctor", timeoutMs: 0 });
        finishRelease(note);
      },
    };
}

/** Views, unfinished folders and workspaces of which nobody knows what they are about: nothing removes them. */
function* unreadableFindings({ found: { control } }: Workspace): Iterable<StoreFinding> {
  const { problems } = listPartials(control);
  try {
    listLeases(control);
  } catch (error) {
    problems.push(toCairnError(error));
  }
  for (const { message, hint } of problems) {
    const detail = hint === undefined ? message : `${message}; ${hint}`;
    yield { kind: "unreadable", severity: "warning", detail };
  }
  for (const { name, problem } of listWorkspaces(control)) {
    if (problem === undefined) continue;
    yield {
      kind: "workspace",
      severity: "damage",
      detail: `the workspace ${name} cannot be opened: ${problem.message}`,
    };
  }
}

function* folderFindings(workspace: Workspace): Iterable<StoreFinding> {
  const { found } = workspace;
  const shown = printablePath(found.folder);
  if (!isFolderThere(found.folder))
    yield { kind: "folder", severity: "damage", detail: `the folder ${shown} is not there; ${waysBack(found)}` };
  else if (isOtherFolder(found))
    yield {
      kind: "folder",
      severity: "info",
      detail: `${shown} is another folder than the one that was adopted; the path decides, so it is kept as the same workspace`,
      repair: "it is recorded as the one",
      mend: () => recordFolder(found),
    };
  for (const place of originalsBeside(workspace)) {
    const detail = `${printablePath(place)} is a folder as it was before its conversion to a subvolume; remove it when it is not needed`;
    yield { kind: "original", severity: "info", detail };
  }
}

function* registryFindings({ found }: Workspace): Iterable<StoreFinding> {
  const { folder, control, controlFile, workspace } = found;
  const kind = "registry";
  const severity = "warning";
  const leadsElsewhere = `the folder ${printablePath(folder)} does not lead here`;
  let problem = "it is in no registry";
  try {
    const hit = workspaceAt(folder);
    if (hit?.control.root === control.root) return;
    // Somebody else's now: to be settled by hand.
    if (hit !== null)
      return yield { kind, severity, detail: `${leadsElsewhere}: it is registered for ${hit.control.root}` };
  } catch (error) {
    problem = toCairnError(error).message;
  }
  yield {
    kind,
    severity,
    detail: `${leadsElsewhere}: ${problem}`,
    repair: "it is registered again",
    mend: () =>
      registerWorkspace({
        folder,
        control: control.root,
        controlId: controlFile.id,
        workspaceId: workspace.id,
        workspaceName: workspace.name,
      }),
  };
}
