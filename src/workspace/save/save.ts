import { isDeepStrictEqual } from "node:util";
import type { TreeHolder } from "../../clones/holder.ts";
import { CairnError, toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { capturePoint, whyNotHeld } from "./capture.ts";
import { attachmentsOf, patternsOf } from "./given-patterns.ts";
import { treePlace, whyTreeIsNotThePoint } from "../points/held-trees.ts";
import { countByInodes, lookBesideHeld, lookUntilDifferent } from "./look.ts";
import { requireFolder } from "../open/missing-folder.ts";
import { isOfAll, type Point } from "../points/point-files.ts";
import { recordPoint, type Saved, type SaveInput } from "./record-point.ts";
import { leftOutOf, warnOfRules } from "../points/left-out.ts";
import { isSameRoot, rootOfFolder, rootOfPoint } from "../points/root-changes.ts";
import { recoverWorkspace } from "../open/recovery.ts";
import { keepSpareRoom } from "../open/temporaries.ts";
import { sealPoints } from "./seal.ts";
import { findUnwanted, unwantedKinds, type UnwantedKinds } from "./unwanted.ts";
import type { Workspace } from "../open/workspace.ts";
import type { Degradation } from "../../contract/words.ts";
import { guardSpace, warnOfPlace, withinQuota } from "./space.ts";
import { isUnchanged } from "../open/describe.ts";
import { neverPart } from "../place/registry.ts";
import { noteFolder } from "../place/find-workspace.ts";
import { requireMounted } from "../place/mounted.ts";

/** Starts what a save will want, so that it overlaps with other work. */
export function prepareSave({ engine }: Workspace): void {
  if (engine.holder === null) engine.prepare();
  else engine.holder.prepare?.();
}

export interface SavedOrHead extends Saved {
  /** false: nothing had changed, and it is head */
  made: boolean;
}

/** Saves at most, where something stops being what is to be left out while it is saved. */
const ATTEMPTS = 3;

/** Saves a workspace: takes its lock, finishes what an earlier unclean end left, records the folder as one point. */
export async function saveWorkspace(workspace: Workspace, given: SaveInput): Promise<SavedOrHead> {
  requireFolder(workspace);
  const kinds = unwantedKinds(given);
  const exclude = patternsOf(workspace.root, given);
  const tags = given.id === undefined ? given.tags : [given.id, ...(given.tags ?? [])];
  const input: SaveInput = { ...given, tags, exclude, attachments: attachmentsOf(given.with) };
  prepareSave(workspace);
  using _lock = await workspace.lock("save", input);
  await recoverWorkspace(workspace, input, workspace.engine.holder === null);
  requireFolder(workspace);
  requireMounted(workspace.found, input);
  noteFolder(workspace.found, input);
  if (input.id !== undefined) workspace.requireChosenId(input.id);
  workspace.requireTags(input);
  if (input.onDetached === "refuse") refuseDetached(workspace, workspace.byId(workspace.state().head));
  const saved = kinds === null ? await savePresent(workspace, input) : await saveWithout(workspace, input, kinds);
  const { save_point_id } = saved.point.descriptor;
  workspace.noteAgent(input.cause, { save_point_id, made: saved.made });
  return saved;
}

/**
 * Saves what is not to be left out, which is looked for first and becomes excludes of the point. What stopped being so
 * before the save was done is in no point yet: then it begins again.
 */
async function saveWithout(workspace: Workspace, input: SaveInput, kinds: UnwantedKinds): Promise<SavedOrHead> {
  const { root } = workspace;
  const { exclude = [], crossMounts = false } = input;
  for (let attempt = 1, forward = input.forward; ; attempt++, forward = undefined) {
    const found = await findUnwanted(kinds, { ...input, root, exclude, crossMounts, skip: neverPart(root, input) });
    failpoint("save.unwanted-found");
    // What is given decides where both do.
    const saved = await savePresent(workspace, { ...input, forward, exclude: [...found.patterns, ...exclude] });
    const changed = await found.changed();
    if (changed.length === 0 || attempt === ATTEMPTS)
      return { ...saved, leftOut: [...saved.leftOut, ...found.leftOut, ...changed] };
  }
}

/** For the holder of the workspace's lock. */
async function savePresent(workspace: Workspace, input: SaveInput): Promise<SavedOrHead> {
  const { holder } = workspace.engine;
  const head = workspace.byId(workspace.state().head);
  const degraded: Degradation[] = [];
  if (workspace.points.latest() === null) warnOfPlace(workspace, input);
  if (holder !== null) {
    // What a held tree comes to cost is known when it is sealed.
    await guardSpace(workspace, { ...input, first: false });
    keepSpareRoom(workspace.found.control);
    const passedOver = whyNotHeld(workspace, input);
    const isAsked = input.skipUnchanged === true && passedOver === null;
    const same = isAsked ? await unchangedHead(workspace, input, holder) : null;
    if (same !== null) return savedOrHead(same, head);
    const held =
      passedOver === null ? await capturePoint(workspace, input, holder) : { what: holder.type, reason: passedOver };
    if ("point" in held)
      return savedOrHead({ ...held, changes: await countHeld(workspace, { head, point: held.point }, input) }, head);
    degraded.push(held);
  }
  const saved = await withinQuota(workspace, { ...input, first: head === null }, async (mostBytes) =>
    recordPoint(workspace, { ...input, mostBytes }, { rules: null, undo: false, degraded }),
  );
  if (saved.scan !== undefined) warnOfRules(saved.scan, input);
  return savedOrHead(saved, head);
}

/** Counts what a held point has that head has not, and the other way round; null where its tree has to be read for that. */
async function countHeld(
  workspace: Workspace,
  { head, point }: { head: Point | null; point: Point },
  input: SaveInput,
): Promise<Saved["changes"]> {
  if (head === null) return null;
  try {
    return await countByInodes(workspace, { from: head, to: point }, { ...input, most: MOST_COUNTED });
  } catch {
    // The point is made, whatever keeps it from being compared.
    return null;
  }
}

/** Changed inodes up to which a save counts: each costs some microseconds, and a save is waited for. */
const MOST_COUNTED = 2000;

function savedOrHead(saved: Saved, head: Point | null): SavedOrHead {
  return { ...saved, made: saved.point.descriptor.save_point_id !== head?.descriptor.save_point_id };
}

function refuseDetached(workspace: Workspace, head: Point | null): void {
  const latest = workspace.points.latest();
  if (head === null || latest === null || head.descriptor.save_point_id === latest.descriptor.save_point_id) return;
  throw new CairnError(
    "detached",
    `head is ${head.descriptor.save_point_id.slice(0, 8)}, which is not the latest point`,
    {
      hint: "restore latest first, or save without the option that refuses this",
    },
  );
}

/**
 * Returns head where nothing has changed since; null where a point is to be made, also where that cannot be told. No
 * content is read while the clone driver tells that something was written and head is not sealed; elsewhere the folder
 * is looked at up to the first entry that differs, and head sealed for it.
 */
async function unchangedHead(workspace: Workspace, input: SaveInput, holder: TreeHolder): Promise<Saved | null> {
  const head = workspace.byId(workspace.state().head);
  if (head === null || !hasSameRules(head, input)) return null;
  try {
    return await headIfSame(workspace, input, { head, holder });
  } catch (error) {
    const problem = toCairnError(error);
    if (problem.code === "interrupted") throw problem;
    // To hold the folder takes no store, and less room than to read it.
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
  // What this user cannot read may have changed, and a held tree has it.
  if (known?.sealed !== true || !known.descriptor.complete) return null;
  const root = rootOfFolder(workspace.root);
  if (!isSameRoot(rootOfPoint(known), root)) return null;
  workspace.engine.prepare();
  const looked = await lookUntilDifferent(workspace, input, known);
  if (looked === null || !isUnchanged(known, looked.scan, root) || leftOutOf(looked.scan).length > 0) return null;
  return { point: known, changes: NO_CHANGES, readBytes: looked.scan.notes.bytesRead, leftOut: [] };
}

/** Tells if nothing was written to the folder since head's tree was made; null where only a look at it can tell. */
async function isStillHead(
  { points, found, root }: Workspace,
  head: Point,
  holder: TreeHolder,
): Promise<boolean | null> {
  if (head.descriptor.content.held?.last_change === undefined || whyTreeIsNotThePoint(points, head) !== null)
    return null;
  return (await holder.isStill?.(root, treePlace(points, head), found.control.temporary)) ?? null;
}

/** Tells if a save would leave out what a point did, as long as the ignore files are the same. */
function hasSameRules({ descriptor }: Point, { exclude = [] }: SaveInput): boolean {
  return !isOfAll(descriptor) && isDeepStrictEqual(descriptor.rules.exclude, [...exclude]);
}

const NO_CHANGES = { added: 0, modified: 0, removed: 0 };
