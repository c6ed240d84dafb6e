import type { TreeSource } from "../repository/trees/tree-source.ts";
import type { ScanResult } from "../archive/scan/scan.ts";
import { NOW } from "../contract/operand.ts";
import { advice, CairnError, call, throwIfAborted } from "../errors.ts";
import type { TreeNode } from "../formats/restic/tree.ts";
import { displayPath, isAtOrBelow, listedNames, normalizeTyped, printablePath } from "../fs/paths/safe-path.ts";
import {
  type Difference,
  NodeFinder,
  isHidden,
  withoutMovedTimes,
  type Unread,
  withoutUnread,
} from "../workspace/points/tree-diff.ts";
import { folderSide, HeldComparison, heldSide } from "../workspace/save/compare-held.ts";
import { changeOf, kindOf } from "../workspace/points/listed-entry.ts";
import { differencesByInodes } from "../workspace/save/differences-by-inodes.ts";
import { lookRequest } from "../workspace/save/look.ts";
import type { Point } from "../workspace/points/point-files.ts";
import { rootDifference, rootOfFolder, rootOfPoint } from "../workspace/points/root-changes.ts";
import type { Workspace, WorkspaceCall } from "../workspace/open/workspace.ts";
import { folderSource, type Looking, meantBy, now, type Opened, withSources } from "./sources/operands.ts";
import { differencesBetween, entryIn } from "./sources/source.ts";
import { pointSource, scannedSource } from "./sources/workspace-source.ts";
import type { DiffEntry, DiffOptions, DiffResult } from "../contract/looking.ts";

/** Lists changes from one state to another; `b` null: to the present folder, or to the folder there that `a` names. */
export async function diff(hand: Looking, a: string, b: string | null, options: DiffOptions): Promise<DiffResult> {
  const { workspace } = hand;
  if (b === null) workspace.engine.prepare();
  return workspace.engine.reading(async () => {
    const from = meantBy(workspace, a);
    const to = b === null ? now(from.path) : meantBy(workspace, b);
    if (from.kind === "now" && to.kind === "now")
      throw new CairnError("usage", "both states are the current folder", {
        hint: advice`name a save point first: ${call("diff latest .", "diff", "latest", null)}`,
      });
    const paths = options.paths?.map(normalizeTyped) ?? [];
    const isOfPoints = from.kind === "point" && to.kind !== "folder" && to.kind !== "backup";
    if (!isOfPoints || from.path.length + to.path.length > 0)
      return withSources(hand, [from, to], options, async ([before, after]) =>
        diffOpened(before!, after!, { paths, options }),
      );
    return diffPoints(workspace, options, { from: from.point, to: to.kind === "now" ? null : to.point, paths });
  }, options);
}

/** Lists changes from a point to another one, or to the present folder. The caller reads the store. */
export async function diffPoints(
  workspace: Workspace,
  options: DiffOptions,
  { from, to, paths }: Ends & { paths: readonly Uint8Array[] },
): Promise<DiffResult> {
  const all = await differencesOf(workspace, options, { from, to, paths });
  const ownRoot = rootDifference(rootOfPoint(from), to === null ? rootOfFolder(workspace.root) : rootOfPoint(to));
  return {
    from: from.descriptor.save_point_id,
    to: to?.descriptor.save_point_id ?? null,
    entries: chosenEntries(ownRoot === null ? all : [ownRoot, ...all], paths, to === null ? workspace.root : null),
  };
}

async function diffOpened(
  before: Opened,
  after: Opened,
  { paths, options }: { paths: readonly Uint8Array[]; options: DiffOptions },
): Promise<DiffResult> {
  const { all, unread } = await differencesBetween(before.source, after.source, options.signal);
  for (const path of paths)
    if (path.length > 0) mustExist(path, (await entryIn(before.source, path)) ?? (await entryIn(after.source, path)));
  const entries = chosenEntries(seen(all, unread, options), paths, after.folder);
  const idOf = ({ name }: Opened): DiffResult["from"] => name as DiffResult["from"];
  return { from: idOf(before), to: after.name === NOW ? null : idOf(after), entries };
}

/** `folder`: the folder whose present state is the later one; null: the later state is another one. */
function chosenEntries(all: readonly Difference[], paths: readonly Uint8Array[], folder: Buffer | null): DiffEntry[] {
  const wanted = withoutMovedTimes(all)
    .filter(({ path }) => paths.length === 0 || paths.some((each) => isAtOrBelow(path, each) || each.length === 0))
    .toArray();
  return entriesOf(wanted, (each) => folder !== null && isHidden(each, folder));
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
  const [was, is] = [new NodeFinder(before), new NodeFinder(after)];
  for (const path of paths) if (path.length > 0) mustExist(path, was.at(path) ?? is.at(path));
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
    const before = await pointSource(workspace, from);
    const { all, unread } = await differencesBetween(before, await scannedSource(workspace, scan), call.signal);
    return chosenEntries(seen(all, unread, call), [], workspace.root);
  }, call);
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
  const before = await pointSource(workspace, from);
  const after = to === null ? await folderSource(workspace, options) : await pointSource(workspace, to);
  const { all, unread } = await differencesBetween(before, after, options.signal);
  return { before, after, all: seen(all, unread, options) };
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

/** `node`: the entry at `path` in either of the two states; null if both lack it. */
function mustExist(path: Uint8Array, node: TreeNode | null): void {
  if (node !== null) return;
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
  const change = changeOf(before, after, aspects)!;
  const isNotKept = change.change === "removed" && isLeftOut(difference);
  return { ...displayPath(path), ...change, ...(isNotKept ? { change: "not_kept" } : {}) };
}
