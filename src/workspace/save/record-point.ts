import fs from "node:fs";
import { type ChangeCounts, labelsOf } from "../../archive/scan/summary.ts";
import { mayDifferInLinks } from "../../archive/scan/link-groups.ts";
import type { Degradation, HeadContent, PointContent, StagedContent, StageRequest } from "../store/engine.ts";
import type { RootMetadata } from "../../archive/write/root-metadata.ts";
import type { GuardName } from "../../contract/words.ts";
import { CairnError, toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { type Cause, type Descriptor, omittedOf } from "../../formats/records/descriptor.ts";
import type { SealedState } from "../../formats/records/seal-file.ts";
import { recordPath } from "../../formats/records/record.ts";
import type { IgnoreRecord } from "../../fs/ignore.ts";
import { mountsInside, whyMountsUnknown } from "../../fs/linux/mounts.ts";
import { ownEntries } from "../../fs/linux/own-entries.ts";
import { printablePath } from "../../fs/safe-path.ts";
import { newSavePointId, type SavePointId } from "../../ids.ts";
import { rulesOfTask } from "../../archive/scan/directory-rules.ts";
import type { ScanResult } from "../../archive/scan/scan.ts";
import { writeState } from "../place/control-directory.ts";
import type { Point } from "../points/point-files.ts";
import type { ForwardTarget } from "../../repository/transfer/forward.ts";
import { countRoot, isSameRoot, rootOfContent, rootOfPoint } from "../points/root-changes.ts";
import { countDifferences } from "../points/tree-diff.ts";
import type { Unwanted } from "./unwanted.ts";
import type { Workspace, WorkspaceCall } from "../workspace.ts";
import { type LeftOutEntry, leftOutOf } from "../points/left-out.ts";
import { controlDirectoriesOn, ownInside } from "../place/registry.ts";

export interface SaveInput extends WorkspaceCall, Unwanted {
  message?: string | undefined;
  tags?: readonly string[] | undefined;
  cause?: Cause | undefined;
  onDetached?: "continue" | "refuse" | undefined;
  skipUnchanged?: boolean | undefined;
  reread?: boolean | undefined;
  exclude?: readonly string[] | undefined;
  crossMounts?: boolean | undefined;
  allow?: readonly GuardName[] | undefined;
  /** a repository that gets what is stored anew too, where the folder is read */
  forward?: ForwardTarget | undefined;
}

export interface Saved {
  point: Point;
  /** against head; null where nothing was read or head is lost, and for what was there before a restore, where nobody asks */
  changes: ChangeCounts | null;
  readBytes: number;
  leftOut: LeftOutEntry[];
  /** the scan behind it; absent when head was returned */
  scan?: ScanResult;
}

export interface RecordOptions {
  /** a point's rules instead of the present ones */
  rules: IgnoreRecord | null;
  /** made by a restore or an undo: becomes neither head nor latest */
  undo: boolean;
  /** why the workspace's own engine was passed over */
  degraded?: readonly Degradation[];
}

/**
 * Intent: the sequence number is claimed. Stage: content in the store. Commit: the descriptor gets its name.
 * Record: head moves. For the holder of the workspace's lock.
 */
export async function recordPoint(workspace: Workspace, input: SaveInput, options: RecordOptions): Promise<Saved> {
  const { points } = workspace;
  const state = workspace.state();
  const head = workspace.byId(state.head);
  const id = newSavePointId();
  const sequence = points.nextSequence();
  points.claim(sequence, id);
  let staged: StagedContent;
  try {
    staged = await workspace.engine.stage(stageRequest(workspace, input, { rules: options.rules, head, id }));
  } catch (error) {
    points.abandon(sequence);
    throw error;
  }
  let changes: ChangeCounts | null;
  try {
    changes = options.undo ? null : await changesSince(workspace, head, { staged, signal: input.signal });
  } catch (error) {
    await staged.discard();
    points.abandon(sequence);
    throw error;
  }
  const unchanged = isUnchanged(head, staged.scan, rootOfContent(staged.content));
  const leftOut = leftOutOf(staged.scan);
  if (head !== null && unchanged && input.skipUnchanged === true) {
    await staged.settled();
    await staged.discard();
    points.abandon(sequence);
    return { point: head, changes, readBytes: staged.scan.notes.bytesRead, leftOut };
  }
  failpoint("save.staged");
  const descriptor = describe(workspace, input, { id, sequence, head, staged, unchanged, options });
  let point: Point;
  try {
    workspace.requireLock();
    point = points.commit(descriptor, { keepClaim: !options.undo });
  } catch (error) {
    // With its name the point is there, whatever failed after that; without the lock the claim is another's.
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
  return { point, changes, readBytes: staged.scan.notes.bytesRead, leftOut, scan: staged.scan };
}

export function stageRequest(
  workspace: Workspace,
  input: SaveInput,
  more: { rules: IgnoreRecord | null; head: Point | null; id: SavePointId },
): StageRequest {
  const { signal, onProgress, onWarning } = input;
  if (input.crossMounts === true) requireMountsKnown(workspace.root);
  return {
    root: workspace.root,
    ...(workspace.found.recordedFolder === undefined ? {} : { recordedRoot: workspace.found.recordedFolder }),
    excludes: input.exclude ?? [],
    rules: more.rules,
    skip: neverPart(workspace.root, input),
    reread: input.reread ?? false,
    crossMounts: input.crossMounts ?? false,
    head: more.head === null ? null : headContent(more.head),
    pointId: more.id,
    message: input.message ?? "",
    forward: input.forward,
    ...(signal === undefined ? {} : { signal }),
    onProgress,
    onWarning,
  };
}

/**
 * Lists what is no part of a folder's state, by path in latin1: what Cairn keeps inside it, and what a file system keeps
 * at its own root; also of file systems mounted inside, where they are gone into.
 */
export function neverPart(root: Buffer, { crossMounts }: Pick<SaveInput, "crossMounts">): string[] {
  const below = (path: Buffer): string => path.toString("latin1", root.length + 1);
  const controls = ownInside(root).map(below);
  const isEntered = crossMounts === true && fs.existsSync(root);
  const mounts = isEntered ? mountsInside(root).filter(({ mountPoint }) => isOpenDirectory(mountPoint)) : [];
  if (mounts.length === 0) return [...controls, ...ownEntries(root)];
  const own = mounts.flatMap(({ mountPoint }) => ownEntries(mountPoint).map((name) => `${below(mountPoint)}/${name}`));
  return [...new Set([...controls, ...controlDirectoriesOn(mounts).map(below)]), ...ownEntries(root), ...own];
}

/** Throws `unsupported` where mounts cannot be known: at each that is gone into Cairn's own is looked for. */
function requireMountsKnown(root: Buffer): void {
  const unknown = whyMountsUnknown();
  if (unknown === null) return;
  const { reason, hint } = unknown;
  throw new CairnError("unsupported", `mounts inside ${printablePath(root)} cannot be entered: ${reason}`, { hint });
}

/** False for a file, and for what this user may not look into. */
function isOpenDirectory(place: Buffer): boolean {
  try {
    fs.accessSync(place, fs.constants.X_OK);
    return fs.statSync(place).isDirectory();
  } catch {
    return false;
  }
}

function headContent({ descriptor }: Point): HeadContent {
  const { content, entries, bytes, complete, metadata_digest: metadataDigest } = descriptor;
  return { content: content as unknown as PointContent, entries, bytes, complete, metadataDigest };
}

/** Trees do not hold everything, e.g. not which pipes are one; what cannot be known of head is not held against it. */
export function isUnchanged(
  head: Point | null,
  { tree, meta }: Pick<ScanResult, "tree" | "meta">,
  root: RootMetadata | null,
): boolean {
  if (head === null || head.descriptor.content.tree !== Buffer.from(tree).toString("hex")) return false;
  if (!isSameRoot(rootOfPoint(head), root)) return false;
  const { metadata_digest: digest } = head.descriptor;
  return digest === null || digest === Buffer.from(meta).toString("hex");
}

/** Counts against head, null where head was never read or cannot be any more: by the previous scan where that was head's state, else by comparing trees. */
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
  // What is only held has not been read: nobody knows by what it differs.
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
    // What head was cannot be told any more; what is there now is recorded all the same.
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
    degraded: [...(options.degraded ?? []), ...staged.degraded].map(({ what, reason }) => `${what}: ${reason}`),
    content: staged.content as unknown as Descriptor["content"],
    ...sealedStateOf(staged, { ...input, rules: options.rules, unchanged }),
    undo: options.undo,
  };
}

/** The part of a descriptor that does not depend on what holds the content: ids, place in the history, cause. */
export function pointFacts(
  workspace: Workspace,
  input: Pick<SaveInput, "message" | "tags" | "cause">,
  { id, sequence, head }: { id: SavePointId; sequence: number; head: Point | null },
): Pick<
  Descriptor,
  | "save_point_id"
  | "workspace_id"
  | "workspace_name"
  | "sequence"
  | "created_at"
  | "message"
  | "tags"
  | "parent_id"
  | "restored_from"
  | "cause"
> {
  const latest = workspace.points.latest();
  const detached =
    head !== null && latest !== null && latest.descriptor.save_point_id !== head.descriptor.save_point_id;
  return {
    save_point_id: id,
    workspace_id: workspace.found.workspace.id,
    workspace_name: workspace.found.workspace.name,
    sequence,
    created_at: new Date().toISOString(),
    message: input.message ?? "",
    tags: [...new Set(input.tags ?? [])],
    parent_id: head?.descriptor.save_point_id ?? null,
    restored_from: detached ? head.descriptor.save_point_id : null,
    cause: input.cause ?? { kind: "person" },
  };
}

/** The part of a point that reading its tree tells. */
export function sealedStateOf(
  { scan, summary, bytesStored }: StagedContent,
  more: Pick<SaveInput, "exclude" | "crossMounts"> & { rules: IgnoreRecord | null; unchanged: boolean },
): SealedState {
  const { notes } = scan;
  const rules = rulesOfTask({ excludes: more.exclude ?? [], rules: more.rules }).record(
    notes.ignoreFiles.map(({ path, text }) => ({
      directory: Buffer.from(path).toString("latin1"),
      text: Buffer.from(text).toString("latin1"),
    })),
  );
  return {
    state_digest: Buffer.from(scan.state).toString("hex"),
    metadata_digest: Buffer.from(scan.meta).toString("hex"),
    complete: notes.omitted.length === 0 && notes.torn.length === 0,
    entries: summary.entries,
    bytes: summary.bytes,
    bytes_stored: bytesStored,
    unchanged: more.unchanged,
    labels: labelsOf(notes),
    ...omittedOf(notes.omitted),
    rules: {
      ignore_file: more.rules === null,
      exclude: rules.excludes,
      files: rules.files,
      ignored_count: notes.ignoredCount,
      ignored_sample: notes.ignored.slice(0, 20).map((path) => recordPath(Buffer.from(path, "latin1"))),
      ...(more.crossMounts === true ? { cross_mounts: true } : {}),
    },
  };
}
