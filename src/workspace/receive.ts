import { rulesOfTask } from "../engines/scan/directory-rules.ts";
import type { ReceivedContent, ReceiveRequest } from "../engines/engine.ts";
import { failpoint } from "../failpoint.ts";
import { type Cause, type Descriptor, MAX_OMITTED } from "../formats/descriptor.ts";
import { recordPath } from "../formats/record.ts";
import { newSavePointId } from "../ids.ts";
import type { Point } from "./point-files.ts";
import { pointFacts } from "./record-point.ts";
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
 *
 * Intent: the sequence number is claimed. Stage: content in the store. Commit: the descriptor gets its name.
 */
export async function receivePoint(workspace: Workspace, input: ReceiveInput): Promise<Point> {
  const { points, engine } = workspace;
  const id = newSavePointId();
  const sequence = points.nextSequence();
  points.claim(sequence, id);
  try {
    const { onProgress, signal } = input;
    const received = await engine.receive({
      ...input.content,
      pointId: id,
      root: workspace.root,
      signal,
      onProgress: ({ done, total, bytes, totalBytes }) =>
        onProgress?.({ phase: "downloading", done, total, bytes, total_bytes: totalBytes }),
    });
    failpoint("receive.staged");
    return points.commit({
      // It follows from nothing that was here.
      ...pointFacts(workspace, input, { id, sequence, head: null }),
      ...stateOf(received, input),
      engine: workspace.found.controlFile.engine,
      effective_engine: engine.type,
      degraded: [],
      undo: input.content.paths !== null,
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
): Omit<Descriptor, keyof ReturnType<typeof pointFacts> | "engine" | "effective_engine" | "degraded" | "undo"> {
  const { manifest } = received;
  const rules = rulesOfTask({ excludes, rules: null }).record(received.ignoreFiles);
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
    omitted: manifest.omitted
      .slice(0, MAX_OMITTED)
      .map(({ path, reason }) => ({ ...recordPath(Buffer.from(path)), reason })),
    omitted_count: manifest.omitted.length,
    rules: {
      ignore_file: true,
      exclude: rules.excludes,
      files: rules.files,
      ignored_count: 0,
      ignored_sample: [],
    },
  };
}
