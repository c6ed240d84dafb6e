import { closeSync, existsSync, openSync } from "node:fs";
import type { Degradation } from "../store/engine.ts";
import { recordedRoot, rootMetadata } from "../../archive/write/root-metadata.ts";
import type { Captured, TreeHolder } from "../../clones/holder.ts";
import { CairnError, toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import type { WorkspaceState } from "../../formats/records/control.ts";
import type { Descriptor } from "../../formats/records/descriptor.ts";
import { mountsInside, readMounts, whyMountsUnknown } from "../../fs/linux/mounts.ts";
import { writeOrigins } from "../../archive/cache/origins.ts";
import { listedNames, printablePath } from "../../fs/paths/safe-path.ts";
import { newSavePointId, type SavePointId } from "../../ids.ts";
import { writeState, writeStateInOrder } from "../place/control-directory.ts";
import { noRules, type Point } from "../points/point-files.ts";
import { type DescribedTree, labelled, tornIn, withDatabases } from "./cloned-databases.ts";
import { removeHeldTrees } from "../points/held-trees.ts";
import { type Saved, type SaveInput } from "./record-point.ts";
import type { Workspace } from "../open/workspace.ts";
import { ownInside } from "../place/registry.ts";
import { pointFacts } from "../open/describe.ts";

/**
 * Makes a point that holds the tree of the folder or of `from`. No content is read; sealing follows later. Returns the
 * reason if the tree cannot be held now: then the store takes the content. The caller holds the workspace's lock.
 * - Intent: the sequence number is claimed. Stage: the tree, beside the descriptor's later place.
 * - Commit ●: the descriptor gets its name, or the announced tree is made. Record: head moves.
 */
export async function capturePoint(
  workspace: Workspace,
  input: SaveInput,
  holder: TreeHolder,
  more: { from?: Buffer; movesHead?: boolean; parent?: Point | null | undefined } = {},
): Promise<Saved | Degradation> {
  const { from = workspace.root, movesHead = true, parent } = more;
  const id = newSavePointId();
  let held: HeldPoint;
  try {
    held = await holdPoint(workspace, input, { holder, from, id, undo: false, parent });
  } catch (error) {
    const failed = toCairnError(error);
    if (failed.code !== "unsupported" && failed.code !== "permission") throw error;
    return { what: holder.type, reason: failed.message };
  }
  const { point } = held;
  failpoint("save.committed");
  if (movesHead) held.changeState({ head: id });
  failpoint("save.head-moved");
  settleHeld(workspace, held);
  return {
    point,
    changes: null,
    readBytes: 0,
    leftOut: tornIn(point.descriptor),
  };
}

interface HoldRequest {
  holder: TreeHolder;
  /** the folder, raw bytes */
  from: Buffer;
  id: SavePointId;
  /** made by a restore or an undo, of the state before it */
  undo: boolean;
  /** the parent; null: none; absent: head */
  parent?: Point | null | undefined;
}

export interface HeldPoint {
  point: Point;
  captured: Captured;
  /** Changes the workspace's state after the point is made, durably or in order with the point. */
  changeState(changes: Partial<WorkspaceState>): void;
}

/**
 * Makes a point that holds a folder's tree; its claim stays. The claim announces an atomic tree, so recovery can make
 * the point after a power cut. Throws as the clone driver does, and `unsupported` if the tree lacks entries of the
 * folder; then nothing is left.
 */
export async function holdPoint(workspace: Workspace, input: SaveInput, request: HoldRequest): Promise<HeldPoint> {
  const { holder, from, id } = request;
  const { points } = workspace;
  const state = workspace.state();
  const head = request.parent === undefined ? workspace.byId(state.head) : request.parent;
  const sequence = points.nextSequence();
  const { tree } = points.pathsOf(sequence);
  // The file is made before the first tree, so that no unsealed point is ever overlooked.
  const { control, paths } = workspace.found;
  const { holds } = paths;
  if (!existsSync(holds)) closeSync(openSync(holds, "a", 0o600));
  // The capture makes the claim durable too.
  points.claim(sequence, id, { durable: false });
  const at = new Date().toISOString();
  const describe = (place: Uint8Array, captured: Captured, lastChange?: number): Descriptor =>
    describeHeld(workspace, input, { ...request, sequence, head, tree: place, captured, at, lastChange, still });
  let announced: Descriptor | undefined;
  let still: DescribedTree["still"] = [];
  const announce = (lastChange: number): void => {
    // The last change of another tree tells nothing about the folder.
    announced = describe(from, WHOLE, from === workspace.root || request.undo ? lastChange : undefined);
    points.announce(announced);
    failpoint("capture.announced");
  };
  try {
    // The pin comes before the point, so that no kill leaves the point without it.
    if (input.pinned === true) points.writePin(sequence, { at, reason: "" });
    const { temporary } = control;
    const made = await withDatabases(workspace, { ...input, temporary }, { holder, from, tree, announce });
    const { captured } = made;
    still = made.still;
    failpoint("capture.held");
    const partial = whyPartial(captured);
    if (partial !== null) throw new CairnError("unsupported", partial);
    points.identifyTree(sequence);
    const known = captured.announced === true ? announced : undefined;
    workspace.requireLock();
    const point = points.commit(known ?? labelled(describe(Buffer.from(tree), captured), made), {
      keepClaim: true,
      announced: known !== undefined,
    });
    const write = known === undefined ? writeState : writeStateInOrder;
    return { point, captured, changeState: (changes) => write(paths, { ...state, ...changes }) };
  } catch (error) {
    // If the descriptor is in place, the point exists, even if a later step failed. Without the lock the claim belongs
    // to another process.
    if (!points.isFinished(sequence) && workspace.isStillLocked) {
      await removeHeldTrees(points, [sequence], { control, onWarning: input.onWarning });
      points.abandon(sequence);
    }
    throw error;
  }
}

/** Removes the claim of a held point after the state is recorded, and keeps the origins that make sealing fast. */
export function settleHeld({ points }: Workspace, { point, captured }: HeldPoint): void {
  points.settle(point.sequence);
  keepOrigins(points.pathsOf(point.sequence).origins, captured);
}

/** A tree that did not change while it was made. */
const WHOLE: Captured = { degraded: [], apart: [], torn: [] };

/** Names entries of the folder that the tree lacks: a restore of such a point would remove them. Null if there are none. */
function whyPartial({ apart, degraded }: Captured): string | null {
  const nested = degraded.filter(({ what }) => what === "nested_subvolume").map(({ reason }) => reason);
  const names = [...new Set([...nested, ...apart.map(printablePath)])];
  return names.length === 0
    ? null
    : `a snapshot of the folder does not include nested subvolumes and other file systems: ${listedNames(names)}`;
}

/**
 * Writes the origins after the commit: they only make sealing fast. After a kill during the write the file fails its
 * check and is ignored.
 */
function keepOrigins(file: string, { origins }: Captured): void {
  if (origins === undefined) return;
  try {
    writeOrigins(file, origins);
  } catch {
    // Without origins, sealing reads every file.
  }
}

/** Tells why a tree cannot be held for this save; null if it can. */
export function whyNotHeld(workspace: Workspace, input: SaveInput): string | null {
  if (input.skipUnchanged === true && input.reread === true) return "every file is read to find the changes";
  if (input.secrets === false) return "files that look like credentials are left out, and a clone would include them";
  if ((input.with ?? []).length > 0 && workspace.engine.holder?.atomic !== true)
    return "files that a database names must be read after it, and this engine clones entries in no fixed order";
  if (input.crossMounts === true) return "a clone cannot include other file systems that are mounted inside";
  const mounts = readMounts();
  const unknown = workspace.engine.holder?.atomic === true ? whyMountsUnknown(mounts) : null;
  if (unknown !== null) return unknown.reason;
  const mounted = mountsInside(workspace.root, mounts).map(({ mountPoint }) => printablePath(mountPoint));
  if (mounted.length > 0)
    return `a file system is mounted at ${listedNames(mounted)}, and a clone would have the files below it instead`;
  const [own] = ownInside(workspace.root);
  if (own !== undefined)
    return `${printablePath(own)} inside the folder holds Cairn's own files, which no point may include`;
  return null;
}

function describeHeld(
  workspace: Workspace,
  input: Pick<SaveInput, "message" | "id" | "tags" | "cause" | "createdAt" | "exclude">,
  more: {
    id: Descriptor["save_point_id"];
    undo: boolean;
    sequence: number;
    head: Point | null;
    holder: TreeHolder;
    /** the tree, or the folder of which the tree will be made; raw bytes */
    tree: Uint8Array;
    captured: Captured;
    at: string;
    lastChange?: number | undefined;
    still: DescribedTree["still"];
  },
): Descriptor {
  const { undo, holder, tree, captured, at, lastChange, still } = more;
  const root = recordedRoot(rootMetadata(Buffer.from(tree)));
  const held = {
    engine: holder.type,
    at,
    ...(lastChange === undefined ? {} : { last_change: lastChange }),
    ...(still.length === 0 ? {} : { still }),
  };
  return {
    ...pointFacts(workspace, input, more),
    engine: holder.type,
    effective_engine: holder.type,
    degraded: captured.degraded.map(({ what, reason }) => `${what}: ${reason}`),
    content: { tree: "", snapshot_tree: "", snapshot: null, root, held },
    state_digest: null,
    metadata_digest: null,
    complete: true,
    entries: { files: 0, directories: 0, links: 0, other: 0 },
    bytes: 0,
    bytes_stored: 0,
    unchanged: false,
    labels: [],
    omitted: [],
    omitted_count: 0,
    rules: undo
      ? noRules()
      : { ignore_file: true, exclude: [...(input.exclude ?? [])], ignored_count: 0, ignored_sample: [] },
    undo,
  };
}
