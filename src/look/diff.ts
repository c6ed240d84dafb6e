import type { TreeSource } from "../repository/trees/tree-source.ts";
import { presentSource } from "../archive/scan/present-source.ts";
import type { ScanResult } from "../archive/scan/scan.ts";
import { CairnError, throwIfAborted, toCairnError } from "../errors.ts";
import type { LosslessField } from "../formats/records/manifest.ts";
import type { TreeNode } from "../formats/restic/tree.ts";
import { displayPath, isAtOrBelow, listedNames, normalizeTyped, printablePath } from "../fs/paths/safe-path.ts";
import {
  type Difference,
  exactDifferences,
  findNode,
  isHidden,
  withoutMovedTimes,
  type Unread,
  withoutUnread,
} from "../workspace/points/tree-diff.ts";
import { folderSide, HeldComparison, heldSide } from "../workspace/save/compare-held.ts";
import { kindOf } from "../workspace/points/listed-entry.ts";
import { differencesByInodes } from "../workspace/save/differences-by-inodes.ts";
import { lookAtWorkspace, lookRequest } from "../workspace/save/look.ts";
import type { Point } from "../workspace/points/point-files.ts";
import { rootDifference, rootOfFolder, rootOfPoint } from "../workspace/points/root-changes.ts";
import { collectPaced, newPacer } from "../pacer.ts";
import type { Workspace, WorkspaceCall } from "../workspace/open/workspace.ts";
import type { DiffEntry, DiffOptions, DiffResult } from "../contract/looking.ts";

/** Lists changes from one point to another, or to the present folder. */
export async function diff(
  workspace: Workspace,
  a: string,
  b: string | null,
  options: DiffOptions,
): Promise<DiffResult> {
  if (b === null) workspace.engine.prepare();
  return workspace.engine.reading(async () => diffReading(workspace, a, b, options), options);
}

async function diffReading(
  workspace: Workspace,
  a: string,
  b: string | null,
  options: DiffOptions,
): Promise<DiffResult> {
  const from = workspace.resolve(a);
  const to = b === null ? null : workspace.resolve(b);
  const paths = options.paths?.map(normalizeTyped) ?? [];
  const all = await differencesOf(workspace, options, { from, to, paths });
  const ownRoot = rootDifference(rootOfPoint(from), to === null ? rootOfFolder(workspace.root) : rootOfPoint(to));
  const wanted = withoutMovedTimes(ownRoot === null ? all : [ownRoot, ...all])
    .filter(({ path }) => paths.length === 0 || paths.some((each) => isAtOrBelow(path, each) || each.length === 0))
    .toArray();
  return {
    from: from.descriptor.save_point_id,
    to: to?.descriptor.save_point_id ?? null,
    entries: entriesOf(wanted, to === null ? (each) => isHidden(each, workspace.root) : () => false),
  };
}

async function differencesOf(
  workspace: Workspace,
  options: DiffOptions,
  { from, to, paths }: Ends & { paths: readonly Uint8Array[] },
): Promise<readonly Difference[]> {
  const call = { ...options, exactly: true };
  const byInodes = paths.length > 0 ? null : await differencesByInodes(workspace, { from, to }, call);
  if (byInodes !== null) return byInodes;
  const ends = { from, to };
  const { before, after, all } =
    (await compareHeld(workspace, options, ends)) ?? (await compareStored(workspace, options, ends));
  throwIfAborted(options.signal);
  for (const path of paths) mustExist(path, before, after);
  return all;
}

/** Lists the changes from a sealed point to a scanned folder, without the folder's own. */
export async function diffToScan(
  workspace: Workspace,
  from: Point,
  scan: ScanResult,
  call: WorkspaceCall,
): Promise<DiffEntry[]> {
  return workspace.engine.reading(async () => {
    const all = await compareStates(await stateOf(workspace, from), asSaved(scan), call);
    return entriesOf(withoutMovedTimes(all).toArray(), (each) => isHidden(each, workspace.root));
  }, call);
}

async function compareStates(before: State, after: State, call: WorkspaceCall): Promise<readonly Difference[]> {
  const fields = { before: before.fields, after: after.fields };
  const all = await collectPaced(exactDifferences(before.source, after.source, fields), newPacer(call.signal));
  return seen(all, after.unread, call);
}

interface Compared {
  before: TreeSource;
  after: TreeSource;
  all: readonly Difference[];
}

/** `to`: null for the present folder */
interface Ends {
  from: Point;
  to: Point | null;
}

async function compareStored(workspace: Workspace, options: DiffOptions, { from, to }: Ends): Promise<Compared> {
  const before = await stateOf(workspace, from);
  const after =
    to === null
      ? asSaved((await lookAtWorkspace(workspace, options, headOf(workspace))).scan)
      : await stateOf(workspace, to);
  const all = await compareStates(before, after, options);
  return { before: before.source, after: after.source, all };
}

/** Compares the trees that the points hold; null if the points must be sealed. */
async function compareHeld(workspace: Workspace, options: DiffOptions, { from, to }: Ends): Promise<Compared | null> {
  const before = heldSide(workspace, from);
  if (before === null) return null;
  const after = to === null ? folderSide(lookRequest(workspace, headOf(workspace))) : heldSide(workspace, to);
  if (after === null) return null;
  const held = await HeldComparison.of(workspace, before, after, options);
  const all = await held.differences({ exactly: true, signal: options.signal });
  return { before: held.from, after: held.to, all: seen(all, to === null ? held.scan.notes.omitted : [], options) };
}

/** Warns of `unread` entries, which the later state lacks because they could not be read, and leaves them out. */
function seen(
  all: readonly Difference[],
  unread: readonly Unread[],
  { onWarning }: WorkspaceCall,
): readonly Difference[] {
  const names = unread.map(({ path, reason }) => `${printablePath(path)} (${reason})`);
  if (names.length > 0) onWarning?.(`not compared, because it could not be read: ${listedNames(names)}`);
  return withoutUnread(all, unread);
}

function headOf(workspace: Workspace): Point | null {
  return workspace.byId(workspace.state().head);
}

interface State {
  source: TreeSource;
  /** metadata that the nodes cannot hold */
  fields: readonly LosslessField[];
  unread: readonly Unread[];
}

/** Returns the state of a point. If its manifest is damaged, the trees alone are compared. */
async function stateOf(workspace: Workspace, point: Point): Promise<State> {
  const source = await workspace.source(point);
  try {
    const manifest = await workspace.manifest(point);
    return { source, fields: manifest?.lossless ?? [], unread: manifest?.omitted ?? [] };
  } catch (error) {
    if (toCairnError(error).code !== "damaged") throw error;
    return { source, fields: [], unread: [] };
  }
}

function asSaved(scan: ScanResult): State {
  return { source: presentSource(scan), fields: scan.summarise().lossless, unread: scan.notes.omitted };
}

function mustExist(path: Uint8Array, before: TreeSource, after: TreeSource): void {
  if (path.length === 0 || findNode(before, path) !== null || findNode(after, path) !== null) return;
  throw new CairnError("not_found", `${displayPath(path).path} is in neither of the two compared states`);
}

/** Pairs removed with added files: two with the same content and size become one rename. */
function entriesOf(differences: readonly Difference[], isLeftOut: (each: Difference) => boolean): DiffEntry[] {
  const gone = new Map<string, Difference[]>();
  for (const difference of differences) {
    if (difference.after !== null || !isRenamable(difference.before!) || isLeftOut(difference)) continue;
    const key = contentKey(difference.before!);
    gone.set(key, [...(gone.get(key) ?? []), difference]);
  }
  const paired = new Set<Difference>();
  const entries: { path: Uint8Array; entry: DiffEntry }[] = [];
  for (const difference of differences) {
    const { path, before, after } = difference;
    if (before !== null || after === null || !isRenamable(after)) continue;
    const from = gone.get(contentKey(after))?.shift();
    if (from === undefined) continue;
    paired.add(difference).add(from);
    entries.push({ path, entry: renamed(difference, from) });
  }
  for (const difference of differences)
    if (!paired.has(difference)) entries.push({ path: difference.path, entry: plain(difference, isLeftOut) });
  return entries.sort((a, b) => Buffer.compare(a.path, b.path)).map(({ entry }) => entry);
}

function isRenamable(node: TreeNode): boolean {
  return node.type === "file" && node.size > 0;
}

function contentKey(node: TreeNode): string {
  return `${node.size}:${Buffer.from(node.content ?? []).toString("latin1")}`;
}

function renamed(difference: Difference, from: Difference): DiffEntry {
  const old = displayPath(from.path);
  return {
    ...displayPath(difference.path),
    change: "renamed",
    kind: kindOf(difference.after!),
    aspects: [],
    from_path: old.path,
    ...(old.path_b64 === undefined ? {} : { from_path_b64: old.path_b64 }),
    size_before: from.before!.size,
    size_after: difference.after!.size,
  };
}

function plain(difference: Difference, isLeftOut: (each: Difference) => boolean): DiffEntry {
  const { path, before, after, aspects } = difference;
  const gone = isLeftOut(difference) ? "not_kept" : "removed";
  return {
    ...displayPath(path),
    change: before === null ? "added" : after === null ? gone : "modified",
    kind: kindOf((after ?? before)!),
    aspects,
    ...(before?.type === "file" ? { size_before: before.size } : {}),
    ...(after?.type === "file" ? { size_after: after.size } : {}),
  };
}
