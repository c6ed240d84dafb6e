import { closeSync, existsSync, openSync } from "node:fs";
import type { Degradation } from "../engines/engine.ts";
import { recordedRoot, rootMetadata } from "../engines/root-metadata.ts";
import type { Captured, TreeHolder } from "../engines/tree/holder.ts";
import { toCairnError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import type { Descriptor } from "../formats/descriptor.ts";
import { recordPath } from "../formats/record.ts";
import { mountsInside } from "../fs/mounts.ts";
import { writeOrigins } from "../fs/origins.ts";
import { printablePath } from "../fs/safe-path.ts";
import { newSavePointId } from "../ids.ts";
import { writeState } from "./control-directory.ts";
import { controlDirectoriesInside } from "./guards.ts";
import type { Point } from "./points.ts";
import { guardSpace } from "./save-guard.ts";
import { pointFacts, recordPoint, type Saved, type SaveInput } from "./record-point.ts";
import type { Workspace } from "./workspace.ts";

/**
 * A point of an engine that clones: the tree is held as it is and nothing is read; sealing follows later. Where the
 * tree cannot be held this time, the store takes the content, and the point says so.
 *
 * Intent: the sequence number is claimed. Stage: the tree, beside where the descriptor will be. Commit: the descriptor
 * gets its name. Record: head moves. For the holder of the workspace's lock.
 */
export async function capturePoint(workspace: Workspace, input: SaveInput, holder: TreeHolder): Promise<Saved> {
  const passedOver = whyNotHeld(workspace, input);
  if (passedOver !== null) return recordInstead(workspace, input, { what: holder.type, reason: passedOver });
  const { points } = workspace;
  const state = workspace.state();
  const head = workspace.byId(state.head);
  const id = newSavePointId();
  const sequence = points.nextSequence();
  const { tree } = points.pathsOf(sequence);
  markHolding(workspace);
  // The capture makes the claim durable with itself.
  points.claim(sequence, id, { durable: false });
  const at = new Date().toISOString();
  let captured: Captured;
  try {
    captured = await holder.capture(workspace.root, tree, { signal: input.signal });
  } catch (error) {
    points.abandon(sequence);
    const failed = toCairnError(error);
    if (failed.code !== "unsupported" && failed.code !== "permission") throw error;
    return recordInstead(workspace, input, { what: holder.type, reason: failed.message });
  }
  failpoint("capture.held");
  const partial = whyPartial(captured);
  if (partial !== null) {
    await holder.remove(tree);
    points.abandon(sequence);
    return recordInstead(workspace, input, { what: holder.type, reason: partial });
  }
  let point: Point;
  try {
    const descriptor = describeHeld(workspace, input, { id, sequence, head, holder, tree, captured, at });
    point = points.commit(descriptor, { keepClaim: true });
  } catch (error) {
    await holder.remove(tree);
    points.abandon(sequence);
    throw error;
  }
  failpoint("save.committed");
  writeState(workspace.found.paths, { ...state, head: id });
  failpoint("save.head-moved");
  points.settle(sequence);
  keepOrigins(points.pathsOf(sequence).origins, captured);
  return {
    point,
    changes: null,
    readBytes: 0,
    leftOut: captured.torn.map((path) => ({ path, reason: "changing", detail: CHANGED })),
  };
}

/** What the folder has and the tree has not: going back to such a point would take it away. Null where there is none. */
function whyPartial({ apart, degraded }: Captured): string | null {
  const nested = degraded.find(({ what }) => what === "nested_subvolume")?.reason;
  const path = nested ?? (apart[0] === undefined ? null : printablePath(apart[0]));
  return path === null
    ? null
    : `${path} is a subvolume or a file system of its own, which cannot be held with the folder`;
}

/** After the commit: it is only there to make sealing fast, and a kill while it is written leaves what checks out as none. */
function keepOrigins(file: string, { origins }: Captured): void {
  if (origins === undefined) return;
  try {
    writeOrigins(file, origins);
  } catch {
    // Then everything is read when the point is sealed.
  }
}

const CHANGED = "it was changed while it was cloned";

/** What a held tree cannot do; null where it can. */
function whyNotHeld(workspace: Workspace, input: SaveInput): string | null {
  if (input.crossMounts === true) return "other file systems that are mounted inside cannot be held with it";
  if (input.skipUnchanged === true) return "whether something changed is not known without reading";
  const [mount] = mountsInside(workspace.root);
  if (mount !== undefined)
    return `something is mounted at ${printablePath(mount.mountPoint)}, and a held tree has what lies below instead`;
  if (controlDirectoriesInside(workspace.root).length > 0)
    return "a control directory lies inside the folder, and it must not become part of a point";
  return null;
}

async function recordInstead(workspace: Workspace, input: SaveInput, degradation: Degradation): Promise<Saved> {
  await guardSpace(workspace, { ...input, first: workspace.state().head === null });
  return recordPoint(workspace, input, { rules: null, undo: false, degraded: [degradation] });
}

/** The descriptor of a point whose tree is held and not read. */
export function describeHeld(
  workspace: Workspace,
  input: Pick<SaveInput, "message" | "tags" | "cause" | "exclude">,
  more: {
    id: Descriptor["save_point_id"];
    sequence: number;
    head: Point | null;
    holder: TreeHolder;
    tree: string;
    captured: Captured;
    at: string;
  },
): Descriptor {
  const { holder, tree, captured, at } = more;
  const root = recordedRoot(rootMetadata(Buffer.from(tree)));
  return {
    ...pointFacts(workspace, input, more),
    engine: holder.type,
    effective_engine: holder.type,
    degraded: captured.degraded.map(({ what, reason }) => `${what}: ${reason}`),
    content: { tree: "", snapshot_tree: "", snapshot: null, root, held: { engine: holder.type, at } },
    state_digest: null,
    metadata_digest: null,
    complete: captured.torn.length === 0,
    entries: { files: 0, directories: 0, links: 0, other: 0 },
    bytes: 0,
    bytes_stored: 0,
    unchanged: false,
    labels: captured.torn.map((path) => ({ ...recordPath(path), label: "torn-possible", reason: CHANGED })),
    omitted: [],
    omitted_count: 0,
    rules: { ignore_file: true, exclude: [...(input.exclude ?? [])], ignored_count: 0, ignored_sample: [] },
    undo: false,
  };
}

/** Before the first tree, so that no unsealed point is ever overlooked. */
export function markHolding({ found }: Workspace): void {
  if (!existsSync(found.paths.holds)) closeSync(openSync(found.paths.holds, "a", 0o600));
}
