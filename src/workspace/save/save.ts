import { isDeepStrictEqual } from "node:util";
import type { TreeHolder } from "../../clones/holder.ts";
import { advice, CairnError, call, option, toCairnError } from "../../errors.ts";
import { capturePoint, whyNotHeld } from "./capture.ts";
import { attachmentsOf, patternsOf } from "./given-patterns.ts";
import { noteAgentEvent } from "../points/agent-record.ts";
import { treePlace, whyTreeIsNotThePoint } from "../points/held-trees.ts";
import { countByInodes, lookBesideHeld, lookUntilDifferent } from "./look.ts";
import { requireFolder } from "../open/missing-folder.ts";
import { isOfAll, type Point } from "../points/point-files.ts";
import { recordPoint, type RecordOptions, type Saved, type SaveInput } from "./record-point.ts";
import { leftOutOf, unwantedEntries, warnOfRules } from "../points/left-out.ts";
import { isSameRoot, rootOfFolder, rootOfPoint } from "../points/root-changes.ts";
import { recoverWorkspace } from "../open/recovery.ts";
import { keepSpareRoom } from "../open/temporaries.ts";
import { sealedPoint, sealPoints } from "./seal.ts";
import { patternsOfUnwanted, unwantedKinds } from "../../archive/scan/unwanted.ts";
import { scanRequest } from "./scan-request.ts";
import { Workspace, type WorkspaceCall } from "../open/workspace.ts";
import type { Degradation } from "../../contract/words.ts";
import { guardSpace, warnOfPlace, withinQuota } from "./space.ts";
import { hasRowsOf, isUnchanged } from "../open/describe.ts";
import { type FoundWorkspace, noteFolder } from "../place/find-workspace.ts";
import { requireMounted } from "../place/mounted.ts";

/** Starts modules and threads that a save needs, so that this overlaps with other work. */
export function prepareSave({ engine }: Workspace): void {
  if (engine.holder === null) engine.prepare();
  else engine.holder.prepare?.();
}

export interface SavedOrHead extends Saved {
  /** false: nothing had changed, and `point` is head */
  made: boolean;
}

/**
 * Saves a workspace: takes its lock, recovers after an unclean end, records the folder as one point. The event of an agent's
 * hook is noted also if the save fails.
 */
export async function saveWorkspace(workspace: Workspace, given: SaveInput): Promise<SavedOrHead> {
  try {
    return await saveLocked(workspace, given);
  } catch (error) {
    const { code, message } = toCairnError(error);
    // A hook that stops waiting has its save made in the background.
    const isHandedOver = code === "interrupted" && given.cause?.["asked_at"] === undefined;
    const state = { before: headOrNull(workspace), save_point_id: null, made: false, failed: message };
    if (!isHandedOver) await noteAgentEvent(workspace.found, given, state);
    throw error;
  }
}

function headOrNull(workspace: Workspace): ReturnType<Workspace["state"]>["head"] {
  try {
    return workspace.state().head;
  } catch {
    return null;
  }
}

async function saveLocked(workspace: Workspace, given: SaveInput): Promise<SavedOrHead> {
  requireFolder(workspace);
  const unwanted = unwantedKinds(given);
  const exclude = patternsOf(workspace.root, given);
  const tags = given.id === undefined ? given.tags : [given.id, ...(given.tags ?? [])];
  const input: SaveInput = { ...given, tags, exclude, unwanted, attachments: attachmentsOf(given) };
  prepareSave(workspace);
  using _lock = await workspace.lock("save", input);
  await recoverWorkspace(workspace, input, workspace.engine.holder === null);
  requireFolder(workspace);
  requireMounted(workspace.found, input);
  noteFolder(workspace.found, input);
  if (input.id !== undefined) workspace.requireChosenId(input.id);
  workspace.requireTags(input);
  const before = workspace.state().head;
  if (input.onDetached === "refuse") refuseDetached(workspace, workspace.byId(before));
  const saving = async (): Promise<SavedOrHead> => savePresent(workspace, input);
  const saved = await (input.withDumps?.(workspace, saving) ?? saving());
  const { save_point_id } = saved.point.descriptor;
  await noteAgentEvent(workspace.found, input, { before, save_point_id, made: saved.made, failed: null });
  return saved;
}

/**
 * Saves the present of another workspace of the control directory. Returns the point, sealed. `message`: of a new point.
 */
export async function presentOf(
  { parts, removals }: Workspace,
  found: FoundWorkspace,
  input: WorkspaceCall & { message: string },
): Promise<Point> {
  await using other = new Workspace(found, parts, removals);
  const { point } = await saveWorkspace(other, { ...input, skipUnchanged: true });
  return await sealedPoint(other, point.descriptor.save_point_id, input);
}

/** Saves the folder as it is. `rules` instead of the present ones. The caller holds the workspace's lock. */
export async function savePresent(
  workspace: Workspace,
  input: SaveInput,
  rules: RecordOptions["rules"] = null,
): Promise<SavedOrHead> {
  const { holder } = workspace.engine;
  const head = workspace.byId(workspace.state().head);
  const degraded: Degradation[] = [];
  if (workspace.points.latest() === null) warnOfPlace(workspace, input);
  keepSpareRoom(workspace.found.control, holder !== null);
  if (holder !== null && rules === null) {
    // The cost of a held tree is known only when the point is sealed.
    await guardSpace(workspace, { ...input, first: false });
    const passedOver = whyNotHeld(workspace, input);
    const held =
      passedOver === null
        ? await saveHeld(workspace, input, { head, holder })
        : { what: holder.type, reason: passedOver };
    if ("point" in held) return savedOrHead(held, head);
    degraded.push(held);
  }
  const saved = await withinQuota(workspace, { ...input, first: head === null }, async (mostBytes) =>
    recordPoint(workspace, { ...input, mostBytes }, { rules, undo: false, degraded }),
  );
  if (saved.scan !== undefined) warnOfRules(saved.scan, input);
  return savedOrHead(saved, head);
}

/** Makes a point that holds the folder's tree, or returns head. Unwanted entries are excluded when the tree is read. */
async function saveHeld(
  workspace: Workspace,
  given: SaveInput,
  { head, holder }: { head: Point | null; holder: TreeHolder },
): Promise<Saved | Degradation> {
  const looked = await unwantedNow(workspace, given);
  const found = looked?.notes.unwanted ?? [];
  const input = { ...given, exclude: [...patternsOfUnwanted(found), ...(given.exclude ?? [])] };
  const same = input.skipUnchanged === true ? await unchangedHead(workspace, input, holder) : null;
  const held = same ?? (await capturePoint(workspace, input, holder));
  if (!("point" in held)) return held;
  if (looked !== null) warnOfRules(looked, input);
  const changes = same?.changes ?? (await countHeld(workspace, { head, point: held.point }, input));
  return { ...held, changes, leftOut: [...held.leftOut, ...unwantedEntries(found)] };
}

/** Finds the unwanted entries of the folder; null if all entries are wanted. Reads no file and needs no store. */
async function unwantedNow(workspace: Workspace, input: SaveInput): Promise<NonNullable<Saved["scan"]> | null> {
  const { unwanted } = input;
  if (unwanted === undefined) return null;
  const unread = { heldAt: 0, isLater: false };
  const request = scanRequest(workspace, input, { unwanted, unread, passesLongRules: true });
  return workspace.engine.lookAt(request, input);
}

/** Counts the differences of a held point from head; null if its tree would have to be read for that. */
async function countHeld(
  workspace: Workspace,
  { head, point }: { head: Point | null; point: Point },
  input: SaveInput,
): Promise<Saved["changes"]> {
  if (head === null) return null;
  try {
    return await countByInodes(workspace, { from: head, to: point }, { ...input, most: MOST_COUNTED });
  } catch {
    // The point is made, even if it cannot be compared.
    return null;
  }
}

/** The most changed inodes that a save counts: each takes some microseconds, and the caller waits. */
const MOST_COUNTED = 2000;

function savedOrHead(saved: Saved, head: Point | null): SavedOrHead {
  return { ...saved, made: saved.point.descriptor.save_point_id !== head?.descriptor.save_point_id };
}

function refuseDetached(workspace: Workspace, head: Point | null): void {
  const latest = workspace.points.latest();
  if (head === null || latest === null || head.descriptor.save_point_id === latest.descriptor.save_point_id) return;
  throw new CairnError(
    "detached",
    `the folder is based on ${head.descriptor.save_point_id.slice(0, 8)}, an older point than the latest`,
    {
      hint: advice`go to the latest first (${call("restore latest", "restore", { target: "latest" })}), or leave out ${option({ onDetached: "refuse" }, "--refuse-detached")}`,
    },
  );
}

/**
 * Returns head if the folder is unchanged; null if a point must be made, also if that is unknown. If the clone driver
 * reports writes and head is unsealed, no content is read. Else the folder is scanned up to the first difference, and
 * head sealed for it.
 */
async function unchangedHead(workspace: Workspace, input: SaveInput, holder: TreeHolder): Promise<Saved | null> {
  const head = workspace.byId(workspace.state().head);
  if (head === null || !hasSameRules(head, input)) return null;
  try {
    return await headIfSame(workspace, input, { head, holder });
  } catch (error) {
    const problem = toCairnError(error);
    if (problem.code === "interrupted") throw problem;
    // Holding the folder needs no store, and less space than reading it.
    input.onWarning?.(
      `a save point is made, because Cairn could not find out if the folder has changed: ${problem.message}`,
    );
    return null;
  }
}

async function headIfSame(
  workspace: Workspace,
  input: SaveInput,
  { head, holder }: { head: Point; holder: TreeHolder },
): Promise<Saved | null> {
  const isStill = await isStillHead(workspace, head, holder);
  if (isStill === true) return { point: head, changes: NO_CHANGES, readBytes: 0, leftOut: [] };
  if (!head.sealed) {
    if (isStill === false) return null;
    const beside = await lookBesideHeld(workspace, head, input);
    if (beside !== null) {
      const { added, modified, removed } = beside.changes;
      if (added + modified + removed > 0 || !head.descriptor.complete || beside.leftOut.length > 0) return null;
      return { point: head, changes: NO_CHANGES, readBytes: 0, leftOut: [] };
    }
    await sealPoints(workspace, { ...input, forward: undefined }, [head.sequence]);
  }
  const known = workspace.byId(head.descriptor.save_point_id);
  // Entries that this user cannot read may have changed, and a held tree includes them.
  if (known?.sealed !== true || !known.descriptor.complete) return null;
  const root = rootOfFolder(workspace.root);
  if (!isSameRoot(rootOfPoint(known), root)) return null;
  workspace.engine.prepare();
  const looked = await lookUntilDifferent(workspace, input, known);
  if (looked === null || !isUnchanged(known, looked.scan, root) || leftOutOf(looked.scan).length > 0) return null;
  return { point: known, changes: NO_CHANGES, readBytes: looked.scan.notes.bytesRead, leftOut: [] };
}

/** Tells if the folder is unchanged since head's tree was made; null if only a scan can tell. */
async function isStillHead(
  { points, found, root }: Workspace,
  head: Point,
  holder: TreeHolder,
): Promise<boolean | null> {
  if (head.descriptor.content.held?.last_change === undefined || whyTreeIsNotThePoint(points, head) !== null)
    return null;
  return (await holder.isStill?.(root, treePlace(points, head), found.control.temporary)) ?? null;
}

/** Tells if a save would leave out the same entries as a point, as long as the ignore files are unchanged. */
function hasSameRules(head: Point, input: SaveInput): boolean {
  const { descriptor } = head;
  const isSame = isDeepStrictEqual(descriptor.rules.exclude, [...(input.exclude ?? [])]);
  return !isOfAll(descriptor) && isSame && hasRowsOf(head, input);
}

const NO_CHANGES = { added: 0, modified: 0, removed: 0 };
