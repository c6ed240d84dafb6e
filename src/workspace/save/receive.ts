import { type FoundIgnoreFile, NO_RULES } from "../../fs/ignore.ts";
import type { Degradation, PointContent, ReceivedContent, ReceiveRequest, StagedContent } from "../store/engine.ts";
import type { TreeSource } from "../../repository/trees/tree-source.ts";
import { failpoint } from "../../failpoint.ts";
import { type Cause, type Descriptor, type IgnoreRules, omittedOf } from "../../formats/records/descriptor.ts";
import { newSavePointId, type SavePointId } from "../../ids.ts";
import type { Point } from "../points/point-files.ts";
import { recoverWorkspace } from "../open/recovery.ts";
import { siblingPoint, takenOver } from "../open/siblings.ts";
import type { Workspace, WorkspaceCall } from "../open/workspace.ts";
import { rulesOfRequest } from "../../archive/scan/directory-rules.ts";
import { CairnError, toCairnError } from "../../errors.ts";
import type { TreeNode } from "../../formats/restic/tree.ts";
import { ignoreFilesIn } from "../store/survey-tree.ts";
import { pointFacts, sealedStateOf } from "../open/describe.ts";

interface ReceiveInput extends WorkspaceCall {
  content: Omit<ReceiveRequest, "pointId" | "root" | "signal" | "onProgress">;
  /** patterns that the state was saved without */
  excludes: readonly string[];
  message: string;
  cause: Cause;
  /** the point becomes neither head nor latest; default: if only some paths are received */
  undo?: boolean;
}

/**
 * Makes a point of content in a repository. A point of chosen paths is only a source for a restore, and becomes neither
 * head nor latest. The caller holds the workspace's lock.
 */
export async function receivePoint(workspace: Workspace, input: ReceiveInput): Promise<Point> {
  const { onProgress, signal } = input;
  return addPoint(workspace, input, async (id) => {
    const received = await workspace.engine.receive({
      ...input.content,
      pointId: id,
      root: workspace.root,
      signal,
      onProgress: ({ done, total, bytes, totalBytes }) =>
        onProgress?.({ phase: "downloading", done, total, bytes, total_bytes: totalBytes }),
    });
    return { ...stateOf(received, input), degraded: [], undo: input.undo ?? input.content.paths !== null };
  });
}

/**
 * Makes a point of this workspace with the content of another workspace's sealed point. Returns the existing point if
 * an earlier call made it. The point becomes neither head nor latest. The caller holds the workspace's lock.
 */
export async function takeOverPoint(workspace: Workspace, from: Point): Promise<Point> {
  const { save_point_id: id, workspace_name: name, message } = from.descriptor;
  const known = takenOver(workspace.points, id);
  if (known !== null) return known;
  const cause = { kind: "adopt", from: id, from_workspace: name };
  return addPoint(
    workspace,
    { message: `${name}: ${message || id.slice(0, 8)}`.slice(0, 1000), cause },
    async (pointId) => {
      const own = { pointId, root: workspace.root };
      const content = await workspace.engine.share(from.descriptor.content as unknown as PointContent, own);
      const { state_digest, metadata_digest, complete, entries, bytes, labels, ...more } = from.descriptor;
      const { omitted, omitted_count, rules } = more;
      return {
        state_digest,
        metadata_digest,
        complete,
        entries,
        bytes,
        labels,
        omitted,
        omitted_count,
        rules,
        content: content as unknown as Descriptor["content"],
        bytes_stored: 0,
        unchanged: false,
        degraded: [],
        undo: true,
      };
    },
  );
}

/** Makes a point `id` of another workspace of the control directory a point of this one. Takes the workspace's lock. */
export async function takeOver(workspace: Workspace, id: SavePointId, call: WorkspaceCall): Promise<SavePointId> {
  using _lock = await workspace.lock("fork", call);
  await recoverWorkspace(workspace, call);
  const kept = await takeOverPoint(workspace, siblingById(workspace, id));
  failpoint("fork.taken-over");
  return kept.descriptor.save_point_id;
}

/** Returns a point of another workspace of the control directory. Throws `not_found`. */
export function siblingById({ found }: Workspace, id: SavePointId): Point {
  const sibling = siblingPoint(found.control, found.workspace.id, id);
  if (sibling === null) throw new CairnError("not_found", `the point ${id} is gone`);
  return sibling.point;
}

interface TakeInInput extends WorkspaceCall {
  /** A folder of this process's own, with exactly the content of the point. */
  folder: Buffer;
  /** The folder is a part of a state or a displaced tree: the point becomes neither head nor latest. */
  undo: boolean;
  message: string;
  cause: Cause;
  tags?: readonly string[];
  /** when the state was made, RFC 3339 in UTC; default: now */
  createdAt?: string;
  /** the point's id, if known beforehand */
  id?: SavePointId;
  /** parent of the new point; null or absent: no parent */
  head?: Point | null;
  /** why the workspace's own engine was not used */
  degraded?: readonly Degradation[];
}

/** Makes a point of a folder's entries; its ignore files are ignored. The folder is only read. */
export async function takeInFolder(workspace: Workspace, input: TakeInInput): Promise<Point> {
  let staged: StagedContent | undefined;
  const point = await addPoint(workspace, input, async (id) => {
    staged = await workspace.engine.stage({
      ...input,
      scan: { root: input.folder, rules: NO_RULES },
      recordedRoot: workspace.found.recordedFolder ?? workspace.root,
      databases: "copy",
      passing: true,
      head: null,
      pointId: id,
    });
    return {
      content: staged.content as unknown as Descriptor["content"],
      ...sealedStateOf(staged, { rules: NO_RULES, unchanged: false }),
      degraded: (input.degraded ?? []).map(({ what, reason }) => `${what}: ${reason}`),
      undo: input.undo,
    };
  });
  await staged?.settled();
  return point;
}

type OwnFacts = keyof ReturnType<typeof pointFacts> | "engine" | "effective_engine";

/** Intent: the sequence number is claimed. Stage: content in the store. Commit: the descriptor gets its name. */
async function addPoint(
  workspace: Workspace,
  input: Pick<TakeInInput, "message" | "cause" | "tags" | "createdAt" | "id" | "head">,
  stage: (id: SavePointId) => Promise<Omit<Descriptor, OwnFacts>>,
): Promise<Point> {
  const { points, engine } = workspace;
  const { id = newSavePointId(), head = null } = input;
  const sequence = points.nextSequence();
  points.claim(sequence, id);
  try {
    const staged = await stage(id);
    failpoint("receive.staged");
    return points.commit({
      ...pointFacts(workspace, input, { id, sequence, head }),
      ...staged,
      engine: workspace.found.controlFile.engine,
      effective_engine: engine.type,
    });
  } catch (error) {
    // A descriptor with its name means that the point exists, whatever failed later.
    if (!points.isFinished(sequence)) {
      // The snapshot is removed first: without the claim nothing would show that it is unused.
      await engine.discard([id]);
      points.abandon(sequence);
    }
    throw error;
  }
}

function stateOf(
  received: ReceivedContent,
  { excludes }: ReceiveInput,
): Omit<Descriptor, OwnFacts | "degraded" | "undo"> {
  const { manifest } = received;
  return {
    content: received.content as unknown as Descriptor["content"],
    state_digest: manifest.stateDigest,
    metadata_digest: manifest.metadataDigest,
    complete: manifest.complete,
    entries: received.entries,
    bytes: received.bytes,
    bytes_stored: received.bytesStored,
    unchanged: false,
    labels: manifest.labels,
    ...omittedOf(manifest.omitted),
    rules: rulesByFiles(received.ignoreFiles, { excludes, crossMounts: manifest.mounts?.entered === true }),
  };
}

/**
 * Rebuilds the lost rules of a point from the ignore files in its tree: without rules a restore would remove the
 * entries that they hid. Excludes of the save and unreadable ignore files stay unknown.
 */
export async function rebuiltRules(
  source: TreeSource,
  { crossMounts, signal }: { crossMounts: boolean; signal?: AbortSignal | undefined },
): Promise<IgnoreRules> {
  const reader = { list: (tree: Uint8Array) => source.list(tree), textOf: (node: TreeNode) => textOf(source, node) };
  const files = await ignoreFilesIn(reader, source.root, signal);
  return rulesByFiles(files, { excludes: [], crossMounts });
}

/** Returns the rules of a point whose ignore files and patterns alone are known: the hidden entries were not counted. */
function rulesByFiles(
  files: readonly FoundIgnoreFile[],
  { excludes, crossMounts }: { excludes: readonly string[]; crossMounts: boolean },
): IgnoreRules {
  const rules = rulesOfRequest({ excludes, rules: null }).record(files);
  return {
    ignore_file: true,
    exclude: rules.excludes,
    files: rules.files,
    ignored_count: 0,
    ignored_sample: [],
    ...(crossMounts ? { cross_mounts: true } : {}),
  };
}

/** Returns a file's text in latin1; null if the content is damaged. */
function textOf(source: TreeSource, node: TreeNode): string | null {
  try {
    return Array.from(source.content(node), (part) => Buffer.from(part).toString("latin1")).join("");
  } catch (error) {
    if (toCairnError(error).code !== "damaged") throw error;
    return null;
  }
}
