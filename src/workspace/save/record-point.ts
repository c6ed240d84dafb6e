import { type ChangeCounts } from "../../archive/scan/summary.ts";
import { mayDifferInLinks } from "../../archive/scan/link-groups.ts";
import type { Attachments, Degradation, StagedContent } from "../store/engine.ts";
import type { SaveOptions } from "../../contract/points.ts";
import { toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import type { Descriptor } from "../../formats/records/descriptor.ts";
import type { IgnoreRecord } from "../../fs/ignore.ts";
import { newSavePointId, type SavePointId } from "../../ids.ts";
import type { UnwantedKinds } from "../../archive/scan/task.ts";
import { writeState } from "../place/control-directory.ts";
import type { Point } from "../points/point-files.ts";
import { writeChangeTimes } from "../points/change-times.ts";
import type { ForwardTarget } from "../../repository/transfer/forward.ts";
import { countRoot, rootOfContent, rootOfPoint } from "../points/root-changes.ts";
import { countDifferences, diffTrees, missingButThere, type NotKept } from "../points/tree-diff.ts";
import { hasRowsOf, isUnchanged, pointFacts, sealedStateOf } from "../open/describe.ts";
import { scanRequest } from "./scan-request.ts";
import type { Workspace } from "../open/workspace.ts";
import { type LeftOutEntry, leftOutOf } from "../points/left-out.ts";

export interface SaveInput extends SaveOptions {
  /** when its tree was made, if that was earlier than now */
  createdAt?: string | undefined;
  /** the point is pinned from its beginning */
  pinned?: boolean | undefined;
  /** texts of the agent's event in `cause` */
  texts?: { prompt?: string; command?: string } | undefined;
  /** the parsed form of `with` */
  attachments?: readonly Attachments[];
  /** the checked kinds of unwanted entries */
  unwanted?: UnwantedKinds | undefined;
  /** bytes that the store may grow by; null or absent: any number. More is `no_space` */
  mostBytes?: number | null;
  /** runs the save while the dumps of `before` commands are in the folder as `.cairn-dumps` */
  withDumps?: (<T>(workspace: Workspace, save: () => Promise<T>) => Promise<T>) | undefined;
  /** a repository that also gets newly stored content, if the folder is read */
  forward?: ForwardTarget | undefined;
}

export interface Saved {
  point: Point;
  /** compared with head; null if nothing was read, head is lost, or the point is an undo point */
  changes: ChangeCounts | null;
  readBytes: number;
  leftOut: LeftOutEntry[];
  /** entries of head that the folder has, but that a rule now leaves out: not counted as removed */
  notKept?: NotKept;
  /** entries that ignore rules hid from the scan; absent if the folder was not read */
  hidden?: Pick<StagedContent["scan"]["notes"], "ignored" | "ignoredCount">;
  /** the scan of the folder; absent if head was returned */
  scan?: StagedContent["scan"];
  /** true: no point was made, because `unless` returned true; `point` is head */
  isSpared?: true;
}

export interface RecordOptions {
  /** a point's rules instead of the present ones */
  rules: IgnoreRecord | null;
  /** made by a restore or an undo: becomes neither head nor latest */
  undo: boolean;
  /** why the workspace's own engine was not used */
  degraded?: readonly Degradation[];
  /** called after the content is staged: true makes no point of it */
  unless?: ((staged: StagedContent) => boolean) | undefined;
}

/**
 * Saves the folder as a point. Intent: the sequence number is claimed. Stage: content in the store. Commit: the
 * descriptor gets its name. Record: head moves. The caller holds the workspace's lock.
 */
export async function recordPoint(workspace: Workspace, input: SaveInput, options: RecordOptions): Promise<Saved> {
  const { points } = workspace;
  const state = workspace.state();
  const head = workspace.byId(state.head);
  const id = newSavePointId();
  const sequence = points.nextSequence();
  points.claim(sequence, id);
  const began = Date.now();
  let staged: StagedContent;
  try {
    staged = await workspace.engine.stage({
      ...input,
      scan: scanRequest(workspace, input, { rules: options.rules, unwanted: input.unwanted }),
      recordedRoot: workspace.found.recordedFolder ?? workspace.root,
      databases: input.databases ?? "auto",
      head: head?.descriptor ?? null,
      pointId: id,
    });
  } catch (error) {
    points.abandon(sequence);
    throw error;
  }
  let changes: ChangeCounts | null;
  let notKept: NotKept | null = null;
  let isSpared: boolean;
  try {
    isSpared = head !== null && options.unless?.(staged) === true;
    changes = options.undo ? null : await changesSince(workspace, head, { staged, signal: input.signal });
    if (changes !== null) notKept = await entriesNowIgnored(workspace, head, { staged, changes, signal: input.signal });
    if (notKept !== null) changes = { ...changes!, removed: changes!.removed - notKept.count };
  } catch (error) {
    await staged.discard();
    points.abandon(sequence);
    throw error;
  }
  const unchanged = isUnchanged(head, staged.scan, rootOfContent(staged.content));
  const leftOut = leftOutOf(staged.scan);
  const hidden = staged.scan.notes;
  if (head !== null && (isSpared || (unchanged && input.skipUnchanged === true && hasRowsOf(head, input)))) {
    await staged.settled();
    await staged.discard();
    points.abandon(sequence);
    const nothing = { point: head, changes, readBytes: staged.scan.notes.bytesRead, leftOut, hidden };
    return isSpared ? { ...nothing, isSpared } : nothing;
  }
  writeChangeTimes(workspace, { sequence, head, scan: staged.scan, began, root: workspace.root });
  failpoint("save.staged");
  const descriptor = describe(workspace, input, { id, sequence, head, staged, unchanged, options });
  let point: Point;
  try {
    workspace.requireLock();
    point = points.commit(descriptor, { keepClaim: !options.undo });
  } catch (error) {
    // A descriptor with its name means that the point exists, whatever failed later. Without the lock the claim belongs
    // to another process.
    if (!points.isFinished(sequence) && workspace.isStillLocked) {
      await staged.discard();
      points.abandon(sequence);
    }
    throw error;
  }
  failpoint("save.committed");
  if (!options.undo && workspace.isStillLocked) writeState(workspace.found.paths, { ...state, head: id });
  failpoint("save.head-moved");
  points.settle(sequence);
  await staged.settled();
  const saved = { point, changes, readBytes: staged.scan.notes.bytesRead, leftOut, hidden, scan: staged.scan };
  return notKept === null ? saved : { ...saved, notKept };
}

/** Finds entries of head that the folder has, but that a rule now leaves out; null if there are none. */
async function entriesNowIgnored(
  workspace: Workspace,
  head: Point | null,
  { staged, changes, signal }: { staged: StagedContent; changes: ChangeCounts; signal: AbortSignal | undefined },
): Promise<NotKept | null> {
  if (head === null || changes.removed === 0 || staged.scan.notes.ignoredCount === 0) return null;
  const source = await workspace.source(head);
  const present = await workspace.engine.source(staged.content);
  const found = await missingButThere(diffTrees(source, present), workspace, signal);
  return found.count === 0 ? null : found;
}

/**
 * Counts changes since head: from the previous scan if that was head's state, else by comparing trees. Null if head was
 * never read or is damaged.
 */
async function changesSince(
  workspace: Workspace,
  head: Point | null,
  more: { staged: StagedContent; signal: AbortSignal | undefined },
): Promise<ChangeCounts | null> {
  const { staged, signal } = more;
  if (head === null) {
    const { files, directories, links, other } = staged.summary.entries;
    return { added: files + directories + links + other, modified: 0, removed: 0 };
  }
  // A held tree was not read, so its differences are unknown.
  if (!head.sealed) return null;
  const withRoot = (counts: ChangeCounts): ChangeCounts =>
    countRoot(counts, rootOfPoint(head), rootOfContent(staged.content));
  if (head.descriptor.content.tree === staged.content.tree) return withRoot({ added: 0, modified: 0, removed: 0 });
  if (staged.previousTree === head.descriptor.content.tree && !mayDifferInLinks(staged.scan))
    return withRoot(staged.scan.countChanges());
  try {
    return withRoot(
      await countDifferences(await workspace.source(head), await workspace.engine.source(staged.content), signal),
    );
  } catch (error) {
    // Head is damaged, so its differences are unknown; the present is recorded all the same.
    if (toCairnError(error).code === "damaged") return null;
    throw error;
  }
}

function describe(
  workspace: Workspace,
  input: SaveInput,
  more: {
    id: SavePointId;
    sequence: number;
    head: Point | null;
    staged: StagedContent;
    unchanged: boolean;
    options: RecordOptions;
  },
): Descriptor {
  const { staged, unchanged, options } = more;
  return {
    ...pointFacts(workspace, input, more),
    engine: workspace.found.controlFile.engine,
    effective_engine: workspace.engine.type,
    degraded: (options.degraded ?? []).map(({ what, reason }) => `${what}: ${reason}`),
    content: staged.content as unknown as Descriptor["content"],
    ...sealedStateOf(staged, { ...input, rules: options.rules, unchanged }),
    undo: options.undo,
  };
}
