import { randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import type { TreeSource } from "../../repository/trees/tree-source.ts";
import { setDirectory } from "../../archive/write/root-metadata.ts";
import { STAGING_PREFIX } from "../../archive/scan/task.ts";
import { HeldFiles } from "../../archive/write/held-files.ts";
import { holesByPath } from "../../archive/write/exact-nodes.ts";
import type { HoleList } from "../../archive/write/data-runs.ts";
import type { NotSet } from "../../archive/write/node-writer.ts";
import { reworded, throwIfAborted, toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import type { Cause, DescriptorContent } from "../../formats/records/descriptor.ts";
import type { Manifest } from "../../formats/records/manifest.ts";
import type { TreeNode } from "../../formats/restic/tree.ts";
import { latin1 } from "../../formats/bytes.ts";
import { recordPath } from "../../formats/records/record.ts";
import type { DirectoryFacts, RestoreFile } from "../../formats/records/restore.ts";
import { flushFileSystem } from "../../fs/linux/flush.ts";
import type { IgnoreRecord } from "../../fs/ignore.ts";
import { makeFolder, makeOneFolder } from "../../fs/make-folder.ts";
import { filesystemKind, onSameMount } from "../../fs/linux/mounts.ts";
import { letOwnerWrite, undoOwnerWrites } from "../../fs/owner-writes.ts";
import { PathSelection } from "../../fs/path-selection.ts";
import { MadeFolder, otherFolder, removeAll } from "../../fs/remove-all.ts";
import { inDirectory, openDirectory } from "../../fs/linux/syscalls.ts";
import type { SavePointId } from "../../ids.ts";
import { writeState } from "../place/control-directory.ts";
import { heldTreeOf } from "../points/held-trees.ts";
import { holdsUnrecorded, placesInside } from "./hidden-below.ts";
import { beforeRestore, type Point } from "../points/point-files.ts";
import { isFolderAnnounced, isFolderThere, keepAnnounced } from "./missing-folder.ts";
import { keepWrittenTo, type SavedNodes } from "./kept-displaced.ts";
import { type AppliedSteps, isNotThere, leftOutAfter, leftOutBefore, StepRunner } from "./apply.ts";
import { RestoreJournal } from "../journals.ts";
import { lackingIn, type LeftOutEntry, savedWithout } from "../points/left-out.ts";
import {
  groupOf,
  linksOf,
  type PlanInput,
  type PlannedEntry,
  planRestore,
  requirePaths,
  type RestoreLinks,
} from "./plan.ts";
import { isSameRoot, rootOfPoint, rootToSet } from "../points/root-changes.ts";
import { type StagedRestore, stageRestore } from "./stage.ts";
import type { Step } from "./steps.ts";
import { type Difference, withoutMovedTimes } from "../points/tree-diff.ts";
import { neverPart, recordPoint, type Saved } from "../save/record-point.ts";
import { RecordFinder } from "../../archive/scan/find-record.ts";
import { presentAndPrevious } from "../../archive/scan/present-source.ts";
import type { ScanResult } from "../../archive/scan/scan.ts";
import type { Workspace, WorkspaceCall } from "../workspace.ts";

export interface RestoreInput extends WorkspaceCall {
  target: Point;
  paths: readonly Uint8Array[] | null;
  keepPresent: boolean;
  /** the paths are known to be in the target or the folder */
  pathsAreThere?: boolean;
  kind: "restore" | "undo";
  cause?: Cause | undefined;
}

export interface Restored {
  undoId: SavePointId;
  changes: Pick<AppliedSteps, "created" | "updated" | "deleted" | "metadata">;
  leftOut: LeftOutEntry[];
  /** put in place, and not linked any more to names that were not asked for and are not what they were */
  unlinked: Uint8Array[];
}

/** The rules by which a point was made, and if what was mounted inside was part of it. */
export interface PointRules extends IgnoreRecord {
  crossMounts: boolean;
}

export function rulesOf(point: Point): PointRules {
  const { exclude, files, cross_mounts: crossMounts } = point.descriptor.rules;
  return { excludes: exclude, files: files ?? [], crossMounts: crossMounts ?? false };
}

/**
 * Makes the folder equal to a point, entry by entry. For the holder of the workspace's lock.
 *
 * Intent: the present is saved, the journal names target, undo point and staging directory. Stage: everything new is
 * written aside. Commit: the steps are durable. Then the steps; what was displaced is looked at again; head moves.
 */
export async function restoreInPlace(workspace: Workspace, input: RestoreInput): Promise<Restored> {
  const mayLackPaths = input.kind === "undo" || input.pathsAreThere === true;
  if (input.paths !== null && !mayLackPaths) await lookForPaths(workspace, input.paths, input);
  // Not while reading: to take what the store has lost out of its index, a save needs the store for itself.
  const present = await savePresent(workspace, input);
  return workspace.engine.reading(async () => restoreReading(workspace, input, present), input);
}

async function lookForPaths(workspace: Workspace, paths: readonly Uint8Array[], input: RestoreInput): Promise<void> {
  await workspace.engine.reading(async () => {
    const target = await workspace.source(input.target);
    requirePaths(paths, { target, ...unknownIn(workspace, await manifestOf(workspace, input.target)) });
  }, input);
}

async function restoreReading(workspace: Workspace, input: RestoreInput, present: Saved): Promise<Restored> {
  const { found } = workspace;
  const target = await workspace.source(input.target);
  input.onProgress?.({ phase: "planning", done: 0 });
  const source = await workspace.source(present.point);
  const manifest = await manifestOf(workspace, input.target);
  const unasked: Difference[] = [];
  const plan = await planRestore({
    ...sidesOf(present.scan!, source, target),
    scan: present.scan!,
    paths: input.paths,
    keepPresent: input.keepPresent,
    fields: { before: (await manifestOf(workspace, present.point))?.lossless ?? [], after: manifest?.lossless ?? [] },
    ...unknownIn(workspace, manifest),
    mayLackPaths: input.kind === "undo" || input.pathsAreThere === true,
    takesBack: input.kind === "undo",
    onUnasked: (each) => void (groupOf(each.after) !== 0n && unasked.push(each)),
    signal: input.signal,
  });
  const links = linksOf({ plan, unasked, target, source, scan: present.scan! });
  const undoId = present.point.descriptor.save_point_id;
  const journal = new RestoreJournal(found.paths.journal);
  const staging = stagingDirectory(workspace);
  const isMade = isFolderAnnounced(found.paths.journal);
  const intent: RestoreFile = {
    target: input.target.descriptor.save_point_id,
    undo_id: undoId,
    kind: input.kind,
    paths: input.paths === null ? null : input.paths.map((each) => recordPath(each)),
    staging,
    // A folder that was made for it has nothing of its own.
    root: input.paths === null || isMade ? rootToSet(workspace.root, input.target) : null,
    at: new Date().toISOString(),
  };
  const changesRoot =
    input.paths === null && !isMade && !isSameRoot(rootOfPoint(input.target), rootOfPoint(present.point));
  begin(workspace, journal, intent);
  using made = new MadeFolder(staging);
  let staged: StagedRestore;
  let leftOut: LeftOutEntry[];
  try {
    makeStaging(workspace, intent);
    made.hold();
    failpoint("restore.staging-made");
    staged = await stage(workspace, input, { plan, target, present, intent, holes: holesByPath(manifest), ...links });
    throwIfAborted(input.signal);
    failpoint("restore.staged");
    leftOut = leftOutBefore(plan, present.scan!, {
      paths: input.paths,
      lacking: lackingIn(manifest, input.paths),
      notSet: staged.notSet,
    });
    workspace.requireLock();
    journal.commit({ steps: staged.steps, leftOut });
  } catch (error) {
    takeBackRestore(workspace, { intent, journal, made }, input);
    throw error;
  }
  failpoint("restore.committed");
  const { steps } = staged;
  const finder = new RecordFinder(present.scan!);
  const hidesIgnored = (where: Uint8Array): boolean => finder.hidesIgnored(where);
  const runner = new StepRunner({ root: workspace.root, staging, resuming: false, hidesIgnored });
  const applied = swap(runner, steps);
  failpoint("restore.swapped");
  const finished = await finishRestore(workspace, input, { intent, steps, journal, made, saved: savedNodesOf(plan) });
  leftOut = leftOutAfter(leftOut, applied, finished.notSet);
  const stays = new PathSelection(leftOut.filter(isNotThere).map(({ path: where }) => where));
  return {
    undoId,
    changes: { ...applied, metadata: applied.metadata + changedDirectories(plan, applied) + (changesRoot ? 1 : 0) },
    leftOut,
    unlinked: links.apart.filter((where) => stays.chosenAt(where) === null),
  };
}

/** Changes the folder. Who hears of a failure has neither the old folder nor the new one, until the next call. */
function swap(runner: StepRunner, steps: readonly Step[]): AppliedSteps {
  try {
    return runner.run(steps);
  } catch (error) {
    const failure = toCairnError(error);
    const { message, hint } = failure;
    const first = hint === undefined ? "" : `${hint}; `;
    throw reworded(failure, {
      message: `the folder is restored in part: ${message}`,
      hint: `${first}the next command finishes the restore, and \`cairn undo\` then takes it back`,
    });
  }
}

/** Compares target and present without reading any tree, where the present was scanned against the target. */
function sidesOf(
  scan: ScanResult,
  present: TreeSource,
  target: TreeSource,
): { present: TreeSource; target: TreeSource } {
  const pair = presentAndPrevious(scan);
  if (pair === null || Buffer.compare(pair.previous.root, target.root) !== 0) return { present, target };
  return { present: pair.present, target: pair.previous };
}

/** A restore under way. `made`: its staging directory, where it was made in this process. */
interface Restoring {
  intent: RestoreFile;
  journal: RestoreJournal;
  made?: MadeFolder;
}

/** The end of a restore. */
interface FinishedRestore {
  /** on the folder itself */
  notSet: NotSet[];
}

/** From the swapped entries to the record: shared with recovery, and safe to do again. */
export async function finishRestore(
  workspace: Workspace,
  call: WorkspaceCall,
  restore: Restoring & { steps: readonly Step[]; saved?: SavedNodes },
): Promise<FinishedRestore> {
  const { intent, steps, journal, saved, made } = restore;
  const { undo_id: undoId, staging } = intent;
  await keepWrittenTo(workspace, call, { undoId, staging, steps, saved });
  failpoint("restore.displaced-checked");
  const atFirst = intent.root === null ? [] : setRoot(workspace, intent.root);
  if (!isOrdered(workspace)) await flushFileSystem(workspace.root);
  failpoint("restore.folder-durable");
  workspace.requireLock();
  const state = workspace.state();
  writeState(workspace.found.paths, {
    ...state,
    head: intent.paths === null ? intent.target : state.head,
    last_restore: { undo_id: undoId, restored_to: intent.target, paths: intent.paths, at: intent.at },
  });
  failpoint("restore.recorded");
  keepAnnounced(workspace);
  const isRootKept = steps.every((step) => Buffer.from(step.path).includes(0x2f));
  const root = intent.root ?? rootBefore(workspace, intent);
  const keepsTimes = intent.root !== null || isRootKept;
  const atLast = removeStaging(workspace, intent, { root, keepsTimes, made, onWarning: call.onWarning });
  const notSet = intent.root === null ? [] : (atLast ?? atFirst);
  failpoint("restore.staging-removed");
  workspace.requireLock();
  journal.end();
  return { notSet };
}

function begin(workspace: Workspace, journal: RestoreJournal, intent: RestoreFile): void {
  workspace.requireLock();
  journal.begin(intent);
  failpoint("restore.intent");
}

/** Forgets a restore that had not begun to change the folder; for who still holds the lock: else the journal is another's. */
export function takeBackRestore(
  workspace: Workspace,
  { intent, journal, made }: Restoring,
  { onWarning }: Pick<WorkspaceCall, "onWarning">,
): void {
  if (!workspace.isStillLocked) return;
  removeStaging(workspace, intent, { root: rootBefore(workspace, intent), keepsTimes: true, made, onWarning });
  journal.end();
}

function isInside(workspace: Workspace, staging: string): boolean {
  return path.dirname(staging) === workspace.root.toString("utf8");
}

function makeStaging(workspace: Workspace, intent: RestoreFile): void {
  const { staging } = intent;
  if (isInside(workspace, staging)) inDirectory(workspace.root, letOwnerWrite);
  makeOneFolder(Buffer.from(staging), 0o700);
}

interface RemoveStaging extends Pick<WorkspaceCall, "onWarning"> {
  root: RestoreFile["root"];
  keepsTimes: boolean;
  made: MadeFolder | undefined;
}

/**
 * Removes the staging directory. One in the folder itself moved the folder's time and may have opened its mode: both
 * are put back, with what else the root should be. Returns what could not be set; null where not all was to be.
 */
function removeStaging(
  workspace: Workspace,
  { staging }: RestoreFile,
  { root, keepsTimes, made, onWarning }: RemoveStaging,
): NotSet[] | null {
  const lay = isInside(workspace, staging) && fs.existsSync(staging);
  if (lay) inDirectory(workspace.root, letOwnerWrite);
  if (made === undefined) removeAll(staging);
  else if (!made.remove()) onWarning?.(`${otherFolder(staging)}: it stays`);
  // Somebody may have taken the folder away since.
  if (root === null || !isFolderThere(workspace.root)) return null;
  if (lay && keepsTimes) return setRoot(workspace, root);
  inDirectory(workspace.root, (fd) => undoOwnerWrites(fd, root.mode));
  return null;
}

function rootBefore(workspace: Workspace, { undo_id: undoId }: RestoreFile): RestoreFile["root"] {
  const undo = workspace.points.byId(undoId);
  return undo === null ? null : rootOf(undo);
}

/** Nodes of the undo point where the plan changes something. */
function savedNodesOf(plan: readonly PlannedEntry[]): SavedNodes {
  const nodes = new Map<string, TreeNode>();
  for (const { path: where, before } of plan) if (before !== null) nodes.set(latin1(where), before);
  return nodes;
}

/** Counts the directories that stay and were given metadata, as the plan lists them. */
function changedDirectories(plan: readonly PlannedEntry[], { kept }: AppliedSteps): number {
  const stayed = new Set(kept.map(({ path: where }) => latin1(where)));
  return withoutMovedTimes(plan).filter(
    ({ action, after, path: where }) => action === "metadata" && after?.type === "dir" && !stayed.has(latin1(where)),
  ).length;
}

/** File systems with one journal: what is synced in the control directory is never durable before what was renamed earlier. */
const ONE_JOURNAL: ReadonlySet<string> = new Set(["ext4", "xfs", "tmpfs"]);

function isOrdered(workspace: Workspace): boolean {
  const { journal } = workspace.found.paths;
  return fs.statSync(workspace.root).dev === fs.statSync(journal).dev && ONE_JOURNAL.has(filesystemKind(journal).name);
}

/** The present as a point: by the target's rules, never by the present ones. */
async function savePresent(workspace: Workspace, input: RestoreInput): Promise<Saved> {
  const rules = rulesOf(input.target);
  const said = beforeRestore(input.kind, input.target.descriptor.save_point_id, input.cause);
  const save = async (more: IgnoreRecord): Promise<Saved> =>
    recordPoint(workspace, { ...input, ...said, crossMounts: rules.crossMounts }, { rules: more, undo: true });
  const saved = await save(rules);
  if (saved.scan!.notes.ignoredCount === 0) return saved;
  const hidden = await workspace.engine.reading(async () => inTheWay(workspace, input, saved), input);
  if (hidden.length === 0) return saved;
  return save({ ...rules, excludes: [...rules.excludes, ...hidden] });
}

/**
 * Patterns that take back in what the rules hide and what stands where the target has something, or lies in a directory in
 * whose place the target has something else: that must be in the undo point too.
 */
async function inTheWay(workspace: Workspace, input: RestoreInput, saved: Saved): Promise<string[]> {
  const plan = await planRestore({
    present: await workspace.source(saved.point),
    scan: saved.scan!,
    target: await workspace.source(input.target),
    paths: input.paths,
    keepPresent: true,
    mayLackPaths: true,
  });
  const finder = new RecordFinder(saved.scan!);
  const patterns: string[] = [];
  for (const { action, path: where, before, after } of plan) {
    const isHidden = action === "create" && finder.find(where) === null && exists(workspace.root, where);
    if (isHidden) patterns.push(unignored(where));
    const isReplaced = isHidden || (before?.type === "dir" && !input.keepPresent);
    if (!isReplaced || after?.type === "dir") continue;
    if (holdsUnrecorded(workspace.root, where, finder)) patterns.push(`${unignored(where)}/**`);
  }
  return patterns;
}

function exists(root: Uint8Array, where: Uint8Array): boolean {
  try {
    fs.lstatSync(Buffer.concat([root, Buffer.from("/"), where]));
    return true;
  } catch {
    return false;
  }
}

/** A gitignore pattern that takes exactly one path back in. */
function unignored(where: Uint8Array): string {
  return `!/${Buffer.from(where)
    .toString("utf8")
    .replaceAll(/[\\*?[\]!# ]/g, "\\$&")}`;
}

async function stage(
  workspace: Workspace,
  input: RestoreInput,
  more: {
    plan: PlannedEntry[];
    target: TreeSource;
    present: Saved;
    intent: RestoreFile;
    holes: ReadonlyMap<string, HoleList>;
    anchors: RestoreLinks["anchors"];
  },
): Promise<StagedRestore> {
  const tree = heldTreeOf(workspace.points, input.target);
  const held = tree === null ? null : new HeldFiles(tree);
  const { intent } = more;
  const staging = { fd: openDirectory(intent.staging), path: Buffer.from(intent.staging) };
  let staged: StagedRestore;
  try {
    staged = await stageRestore({
      plan: more.plan,
      target: more.target,
      held,
      scan: more.present.scan!,
      staging,
      holes: more.holes,
      anchors: more.anchors,
      root: workspace.root,
      signal: input.signal,
      onProgress: (progress) => input.onProgress?.({ phase: "restoring", ...progress }),
    });
  } finally {
    fs.closeSync(staging.fd);
    held?.close();
  }
  if (staged.steps.some((step) => step.op === "put") || !isOrdered(workspace)) await flushFileSystem(intent.staging);
  return staged;
}

/** Lists what no restore of a point with this manifest takes away or puts in place. */
export function unknownIn(
  workspace: Workspace,
  manifest: Manifest | null,
): Pick<PlanInput, "omitted" | "partial" | "leftOutMounts" | "never" | "isThere" | "isInside"> {
  return {
    isThere: (where) => exists(workspace.root, where),
    isInside: placesInside(workspace.root),
    omitted: manifest?.omitted ?? [],
    partial: savedWithout(manifest?.labels ?? []),
    leftOutMounts: manifest?.mounts?.leftOut ?? [],
    never: neverPart(workspace.root, { crossMounts: true }).map((path) => Buffer.from(path, "latin1")),
  };
}

/** Reads what the point's manifest adds to its trees; null for a point without one. */
export async function manifestOf(workspace: Workspace, point: Point): Promise<Manifest | null> {
  return workspace.engine.manifest(point.descriptor.content as unknown as { tree: string });
}

/** On the workspace's own file system: in the control directory where that is the same mount, else in the workspace's root. */
function stagingDirectory(workspace: Workspace): string {
  const name = `${STAGING_PREFIX}${randomBytes(8).toString("hex")}`;
  const { temporary } = workspace.found.control;
  makeFolder(temporary);
  const root = workspace.root.toString("utf8");
  const same =
    Buffer.from(root).equals(workspace.root) &&
    fs.statSync(workspace.root).dev === fs.statSync(temporary).dev &&
    onSameMount(root, temporary);
  return same ? path.join(temporary, name) : path.join(root, name);
}

function rootOf(point: Point): RestoreFile["root"] {
  const { mode, uid, gid, mtime_sec, mtime_ns } = (point.descriptor.content as DescriptorContent).root;
  return { mode, uid, gid, mtime_sec, mtime_ns };
}

function setRoot(workspace: Workspace, root: DirectoryFacts): NotSet[] {
  return inDirectory(workspace.root, (fd) => setDirectory(fd, root));
}
