import { NO_RULES } from "../fs/ignore.ts";
import type { Degradation, ReceivedContent, ReceiveRequest, StagedContent } from "../engines/engine.ts";
import { failpoint } from "../failpoint.ts";
import { type Cause, type Descriptor, omittedOf } from "../formats/descriptor.ts";
import { newSavePointId, type SavePointId } from "../ids.ts";
import type { Point } from "./point-files.ts";
import { rulesByFiles } from "./rebuilt-rules.ts";
import { pointFacts, sealedStateOf, stageRequest } from "./record-point.ts";
import type { Workspace, WorkspaceCall } from "./workspace.ts";

export interface ReceiveInput extends WorkspaceCall {
  content: Omit<ReceiveRequest, "pointId" | "root" | "signal" | "onProgress">;
  /** patterns that the state was saved without */
  excludes: readonly string[];
  message: string;
  cause: Cause;
}

/**
 * A point of content that lies in a repository. One of chosen paths only is made to be restored from, and becomes
 * neither head nor latest. For the holder of the workspace's lock.
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
    return { ...stateOf(received, input), degraded: [], undo: input.content.paths !== null };
  });
}

export interface TakeInInput extends WorkspaceCall {
  /** A folder of this process's own, with what is to be in the point and nothing else. */
  folder: Buffer;
  /** It is a part of a state, or one that a restore displaced: the point becomes neither head nor latest. */
  undo: boolean;
  message: string;
  cause: Cause;
  /** of the point, where it is known beforehand */
  id?: SavePointId;
  /** the point that it follows from; absent where from nothing that was here */
  head?: Point | null;
  /** why the workspace's own engine was passed over */
  degraded?: readonly Degradation[];
}

/** The same of what lies in a folder, whatever ignore files are in it. The folder is only read, and may go afterwards. */
export async function takeInFolder(workspace: Workspace, input: TakeInInput): Promise<Point> {
  let staged: StagedContent | undefined;
  const point = await addPoint(workspace, input, async (id) => {
    staged = await workspace.engine.stage({
      ...stageRequest(workspace, input, { rules: NO_RULES, head: null, id }),
      root: input.folder,
      recordedRoot: workspace.found.recordedFolder ?? workspace.root,
      skip: [],
      passing: true,
    });
    return {
      content: staged.content as unknown as Descriptor["content"],
      ...sealedStateOf(staged, { rules: NO_RULES, unchanged: false }),
      degraded: [...(input.degraded ?? []), ...staged.degraded].map(({ what, reason }) => `${what}: ${reason}`),
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
  input: Pick<TakeInInput, "message" | "cause" | "id" | "head">,
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
    // With its name the point is there, whatever failed after that.
    if (!points.isFinished(sequence)) {
      // Its snapshot first: without the claim nobody would know that it is nobody's.
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
