import { existsSync } from "node:fs";
import type { LookedAt } from "../store/engine.ts";
import { presentSource } from "../../archive/scan/present-source.ts";
import { mayDifferInLinks } from "../../archive/scan/link-groups.ts";
import { type ChangeCounts, countChanges } from "../../archive/scan/summary.ts";
import { FoundDifference, type ScanRequest } from "../../archive/scan/task.ts";
import { CairnError, cannotBeWritten, toCairnError } from "../../errors.ts";
import type { IgnoreRecord } from "../../fs/ignore.ts";
import { requireFolder, withPresent } from "../open/missing-folder.ts";
import { type Point, rulesToReadBy } from "../points/point-files.ts";
import { needsRecovery, recoverWorkspace } from "../open/recovery.ts";
import { countRoot, rootOfFolder, rootOfPoint } from "../points/root-changes.ts";
import { readHeld, type SealProblem, whyUnsealed } from "./seal.ts";
import { scanRequest } from "./scan-request.ts";
import { type LeftOutEntry, leftOutOf } from "../points/left-out.ts";
import { differencesByInodes, type InodesCall } from "./differences-by-inodes.ts";
import { folderSide, HeldComparison, heldSide } from "./compare-held.ts";
import {
  countDifferences,
  countOf,
  diffTrees,
  missingButThere,
  type NotKept,
  withoutUnread,
} from "../points/tree-diff.ts";
import type { Workspace, WorkspaceCall } from "../open/workspace.ts";

const RECOVERY_WAIT_MS = 200;

/**
 * Scans the folder with the present ignore rules and head's excludes, and enters mounts if head did. `byTimes`: large
 * files with unchanged times are not read.
 */
export async function lookAtWorkspace(
  workspace: Workspace,
  { byTimes, ...call }: WorkspaceCall & Pick<ScanRequest, "byTimes">,
  head: Point | null,
): Promise<LookedAt> {
  return workspace.engine.look(lookRequest(workspace, head, { byTimes }), lookCall(call, head));
}

/** Scans the folder up to the first entry that differs from head, and then returns null. Reads no content. */
export async function lookUntilDifferent(
  workspace: Workspace,
  call: WorkspaceCall,
  head: Point,
): Promise<LookedAt | null> {
  try {
    return await workspace.engine.look(lookRequest(workspace, head, { untilDifferent: true }), lookCall(call, head));
  } catch (error) {
    if (error instanceof FoundDifference) return null;
    throw error;
  }
}

function lookCall(call: WorkspaceCall, head: Point | null): Parameters<Workspace["engine"]["look"]>[1] {
  return { ...call, tree: head?.descriptor.content.tree ?? null };
}

/** Makes the request of a look at the folder; `how`: when it ends, and which files it reads. */
export function lookRequest(
  workspace: Workspace,
  head: Point | null,
  how: Pick<ScanRequest, "byTimes" | "untilDifferent"> = {},
): ScanRequest {
  requireFolder(workspace);
  const { exclude = [], cross_mounts: crossMounts } = head?.descriptor.rules ?? {};
  // A displaced tree has all its entries, so the ignore rules of its time apply: by the present rules some would seem
  // removed.
  const rules = head === null ? null : rulesToReadBy(head.descriptor);
  return scanRequest(workspace, { exclude, crossMounts }, { rules, ...how });
}

/** Scans the folder by the rules of a point that is to be restored. A missing folder counts as empty. */
export async function lookBeforeRestore(
  workspace: Workspace,
  call: WorkspaceCall,
  rules: IgnoreRecord & { crossMounts?: boolean },
): Promise<LookedAt["scan"]> {
  const { crossMounts } = rules;
  return withPresent(workspace, async (root) => {
    const request = scanRequest(workspace, { crossMounts }, { rules, root });
    return (await workspace.engine.look(request, lookCall(call, null))).scan;
  });
}

export interface HeadCall extends WorkspaceCall {
  head: Point | null;
  /** Points that could not be sealed just now, with the reasons. */
  unsealed?: readonly SealProblem[] | undefined;
}

/** The number of differences between the folder and head, and the entries left out on the way. */
interface BesideHead {
  changes: ChangeCounts;
  /** entries of head that the folder has, but that a rule now leaves out: not counted as removed */
  notKept: NotKept;
  /** paths in latin1 that ignore rules hide */
  ignored: readonly string[];
  leftOut: LeftOutEntry[];
}

/** Scans the folder and counts the differences from head. Head is not sealed for it if its held tree is enough. */
export async function lookBesideHead(workspace: Workspace, call: HeadCall): Promise<BesideHead> {
  const { head, unsealed: _unsealed, ...own } = call;
  const beside =
    head === null
      ? null
      : ((await besideByInodes(workspace, head, own)) ?? (await lookBesideHeld(workspace, head, own)));
  if (beside !== null) return beside;
  const looked = await lookAtWorkspace(workspace, { ...own, byTimes: true }, head);
  const changes = await changesSinceHead(workspace, looked, call);
  const mayHide = head?.sealed === true && changes.removed > 0 && looked.scan.notes.ignoredCount > 0;
  if (!mayHide) return found(looked.scan, changes);
  const differences = withoutUnread(
    [...diffTrees(await workspace.source(head), presentSource(looked.scan))],
    looked.scan.notes.omitted,
  );
  return found(looked.scan, changes, await missingButThere(differences, workspace, call.signal));
}

function found(scan: LookedAt["scan"], counts: ChangeCounts, notKept: NotKept = { count: 0, paths: [] }): BesideHead {
  const changes = { ...counts, removed: counts.removed - notKept.count };
  return { changes, notKept, ignored: scan.notes.ignored, leftOut: leftOutOf(scan) };
}

/** Counts the result of {@link differencesByInodes} and the folder's own change; null if that call returns null. */
export async function countByInodes(
  workspace: Workspace,
  pair: { from: Point; to: Point | null },
  call: Omit<InodesCall, "exactly">,
): Promise<ChangeCounts | null> {
  const all = await differencesByInodes(workspace, pair, { ...call, exactly: false });
  const { from, to } = pair;
  const present = to === null ? rootOfFolder(workspace.root) : rootOfPoint(to);
  return all === null ? null : countRoot(countOf(all), rootOfPoint(from), present);
}

/** Counts changes by btrfs's list of inodes; null if btrfs cannot tell. */
async function besideByInodes(workspace: Workspace, head: Point, call: WorkspaceCall): Promise<BesideHead | null> {
  requireFolder(workspace);
  const changes = await countByInodes(workspace, { from: head, to: null }, call);
  return changes === null ? null : { changes, notKept: { count: 0, paths: [] }, ignored: [], leftOut: [] };
}

/** Does {@link lookBesideHead} with head's held tree; null if head is sealed, or its tree does not tell. */
export async function lookBesideHeld(
  workspace: Workspace,
  head: Point,
  call: WorkspaceCall,
): Promise<BesideHead | null> {
  const held = heldSide(workspace, head);
  if (held === null) return null;
  const compared = await HeldComparison.of(workspace, held, folderSide(lookRequest(workspace, head)), call);
  const all = await compared.differences({ exactly: false, signal: call.signal });
  const differences = withoutUnread(all, compared.scan.notes.omitted);
  const counts = countRoot(countOf(differences), rootOfPoint(head), rootOfFolder(workspace.root));
  const mayHide = counts.removed > 0 && compared.scan.notes.ignoredCount > 0;
  return found(compared.scan, counts, await missingButThere(mayHide ? differences : [], workspace, call.signal));
}

async function changesSinceHead(workspace: Workspace, looked: LookedAt, call: HeadCall): Promise<ChangeCounts> {
  const { head } = call;
  const counts = await changedEntries(workspace, looked, call);
  return head === null ? counts : countRoot(counts, rootOfPoint(head), rootOfFolder(workspace.root));
}

async function changedEntries(
  workspace: Workspace,
  looked: LookedAt,
  { head, unsealed = [], ...call }: HeadCall,
): Promise<ChangeCounts> {
  const { signal } = call;
  const tree = Buffer.from(looked.scan.tree).toString("hex");
  if (head === null) return { ...countChanges(looked.scan.table, null), modified: 0, removed: 0 };
  if (!head.sealed) {
    const problem = whyUnsealed(workspace.points, head, unsealed);
    if (problem !== null && cannotBeWritten(problem))
      return countDifferences(
        await readHeld(workspace, head, call),
        presentSource(looked.scan),
        signal,
        looked.scan.notes.omitted,
      );
  }
  const wanted = head.descriptor.content.tree;
  if (tree === wanted) return { added: 0, modified: 0, removed: 0 };
  if (looked.previousTree === wanted && !mayDifferInLinks(looked.scan)) return looked.scan.countChanges();
  return workspace.engine.reading(
    async () =>
      countDifferences(await workspace.source(head), presentSource(looked.scan), signal, looked.scan.notes.omitted),
    { signal },
  );
}

/** Recovers a workspace after an unclean end, if no process works in it now. */
export async function recoverIfIdle(workspace: Workspace, call: WorkspaceCall): Promise<void> {
  if (!needsRecovery(workspace)) return;
  try {
    using _lock = await workspace.lock("recover", {
      ...call,
      lockTimeoutMs: Math.min(call.lockTimeoutMs ?? RECOVERY_WAIT_MS, RECOVERY_WAIT_MS),
    });
    await recoverWorkspace(workspace, call);
  } catch (error) {
    // Another process works, or nothing can be written here: recovery waits for the next writer.
    if (!(error instanceof CairnError) || (error.code !== "busy" && !cannotBeWritten(error))) throw error;
  }
}

/**
 * Records acknowledged saves that a power failure left unrecorded, before anything is read. If that fails, readers go
 * on without them, and the next writer reports the reason.
 */
export async function recoverAcknowledged(workspace: Workspace): Promise<void> {
  if (!isUnrecorded(workspace)) return;
  try {
    await recoverIfIdle(workspace, { lockTimeoutMs: 0 });
  } catch (error) {
    if (toCairnError(error).code === "interrupted") throw error;
  }
}

/** Tells if held trees are not recorded yet: the file system's own commit makes them durable, maybe before the records. */
function isUnrecorded(workspace: Workspace): boolean {
  const { points } = workspace;
  return (
    points.unfinished().some(({ announced }) => announced !== null) ||
    points.unsettled().some((sequence) => existsSync(points.pathsOf(sequence).tree)) ||
    workspace.unfinished("exchange").isBegun
  );
}
