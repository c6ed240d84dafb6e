import fs from "node:fs";
import { isDeepStrictEqual } from "node:util";
import type { TreeHolder } from "../../clones/holder.ts";
import { CairnError, toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { printablePath } from "../../fs/safe-path.ts";
import { capturePoint, whyNotHeld } from "../points/capture.ts";
import { givenPatterns } from "./given-patterns.ts";
import { treePlace, whyTreeIsNotThePoint } from "../points/held-trees.ts";
import { lookUntilDifferent } from "./look.ts";
import { requireFolder } from "../restore/missing-folder.ts";
import { isOfAll, type Point } from "../points/point-files.ts";
import { isUnchanged, neverPart, recordPoint, type Saved, type SaveInput } from "./record-point.ts";
import { leftOutOf } from "../points/left-out.ts";
import { isSameRoot, rootOfFolder, rootOfPoint } from "../points/root-changes.ts";
import { isOtherFolder } from "../place/find-workspace.ts";
import { recoverWorkspace } from "../care/recovery.ts";
import { keepSpareRoom } from "../place/temporaries.ts";
import { sealPending } from "../points/seal.ts";
import { findUnwanted, unwantedKinds, type UnwantedKinds } from "./unwanted.ts";
import type { Workspace, WorkspaceCall } from "../workspace.ts";
import { NO_POLICY, retentionOf, type RetentionRules } from "../../formats/records/policy.ts";
import { freeSpace } from "../../fs/linux/mounts.ts";
import { checkQuota, checkSpace, isWithinQuota, quotaBytes } from "../place/guards.ts";
import type { Degradation, GuardName } from "../../contract/words.ts";
import { readPolicy, recordFolder } from "../place/control-directory.ts";
import { planCleanup } from "../care/cleanup-plan.ts";
import { runPlan } from "../care/cleanup.ts";
import { plural } from "../../formats/sizes.ts";

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
  const exclude = givenPatterns(workspace.root, given.exclude ?? [], given.onWarning);
  const input: SaveInput = { ...given, exclude };
  prepareSave(workspace);
  using _lock = await workspace.lock("save", input);
  await recoverWorkspace(workspace, input);
  requireFolder(workspace);
  acceptOtherFolder(workspace, input);
  if (input.onDetached === "refuse") refuseDetached(workspace, workspace.byId(workspace.state().head));
  return kinds === null ? await savePresent(workspace, input) : await saveWithout(workspace, input, kinds);
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
    if ("point" in held) return savedOrHead(held, head);
    degraded.push(held);
  }
  await guardSpace(workspace, { ...input, first: head === null });
  return savedOrHead(await recordPoint(workspace, input, { rules: null, undo: false, degraded }), head);
}

function savedOrHead(saved: Saved, head: Point | null): SavedOrHead {
  return { ...saved, made: saved.point.descriptor.save_point_id !== head?.descriptor.save_point_id };
}

/** The path decides which folder is kept; that another one lies there now is said once, by the save that records it. */
function acceptOtherFolder({ found }: Workspace, input: SaveInput): void {
  if (!isOtherFolder(found)) return;
  recordFolder(found);
  input.onWarning?.(
    `${printablePath(found.folder)} is another folder than the one that was saved before; the path decides, so its save points go on`,
  );
}

function refuseDetached(workspace: Workspace, head: Point | null): void {
  const latest = workspace.points.latest();
  if (head === null || latest === null || head.descriptor.save_point_id === latest.descriptor.save_point_id) return;
  throw new CairnError(
    "detached",
    `the workspace stands at ${head.descriptor.save_point_id.slice(0, 8)}, which is not the latest point`,
    {
      hint: "restore latest first, or save without refusing",
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
      `a save point is made, as it could not be told whether something has changed: ${problem.message}`,
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
    await sealPending(workspace, { ...input, forward: undefined });
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

export interface SpaceGuard extends WorkspaceCall {
  allow?: readonly GuardName[] | undefined;
  /** The save stores what the folder holds, and nothing of it is stored yet. */
  first: boolean;
}

/**
 * Before the first byte of a save: room on the file system, and in the quota. At the quota only what a policy that
 * somebody set drops anyway, and what is over a day old, makes room. For the holder of the workspace's lock.
 * Throws `no_space`.
 */
export async function guardSpace(workspace: Workspace, guard: SpaceGuard): Promise<void> {
  const { root } = workspace.found.control;
  const { retention, quota_bytes: configured } = policyOf(workspace, guard);
  const { freeBytes, usedBytes } = freeSpace(root);
  const quota = quotaBytes(root, configured);
  const estimate = guard.first ? estimateBytes(workspace.root, Math.min(freeBytes, quota)) : 0;
  checkSpace(root, estimate, { allow: guard.allow });
  // The store is no larger than all that is on its file system, and need not be counted then.
  if (usedBytes + estimate <= quota) return;
  const use = async (): Promise<Parameters<typeof checkQuota>[1]> => ({
    usedBytes: await storeBytes(workspace, guard),
    addedBytes: guard.allow?.includes("space") === true ? 0 : estimate,
    configured,
  });
  if (isWithinQuota(root, await use())) return;
  if (retention !== null) await makeRoom(workspace, retentionOf(retention), guard);
  checkQuota(root, await use());
}

/** The bytes in the store. One that cannot be opened keeps nobody from holding a folder, which takes no store. */
async function storeBytes({ engine }: Workspace, { onWarning }: WorkspaceCall): Promise<number> {
  // The save opens it anyway.
  if (engine.holder === null) return (await engine.storeFacts()).bytes;
  try {
    return await engine.storeBytes();
  } catch (error) {
    const problem = toCairnError(error);
    if (problem.code === "interrupted") throw problem;
    onWarning?.(`the quota is not kept to, as it cannot be told how much the store holds: ${problem.message}`);
    return 0;
  }
}

/** A policy that cannot be read removes nothing and keeps nobody from saving. */
function policyOf(workspace: Workspace, call: WorkspaceCall): ReturnType<typeof readPolicy> {
  try {
    return readPolicy(workspace.found.control);
  } catch (error) {
    if (!(error instanceof CairnError)) throw error;
    call.onWarning?.(`the policy cannot be read, so none is followed: ${error.message}`);
    return NO_POLICY;
  }
}

async function makeRoom(workspace: Workspace, rules: RetentionRules, call: WorkspaceCall): Promise<void> {
  const { plan } = await planCleanup(workspace, { ...call, rules, only: null, keepYoung: true });
  if (plan.drop.length === 0) return;
  const { removed } = await runPlan(workspace, plan, call);
  call.onWarning?.(
    `the quota is met: ${plural(removed.length, "point")} that the policy drops ${removed.length === 1 ? "was" : "were"} removed`,
  );
}

/** Milliseconds that a look at the folder may cost every first save. */
const ESTIMATE_MS = 60;

/**
 * At most how much a folder holds, as far as it matters: 0 when its whole file system holds no more than `most`.
 * Else its files are added up from the top until they are more, or some time is over; disk usage, since holes are not
 * stored.
 */
export function estimateBytes(folder: Buffer, most: number): number {
  if (freeSpace(folder).usedBytes <= most) return 0;
  const until = performance.now() + ESTIMATE_MS;
  const queue = [folder];
  const device = fs.statSync(folder).dev;
  let bytes = 0;
  for (const directory of queue) {
    for (const name of rawNamesIn(directory)) {
      if (bytes > most || performance.now() > until) return Math.ceil(bytes);
      const path = Buffer.concat([directory, SLASH, name]);
      const facts = factsOf(path);
      if (facts === undefined || facts.dev !== device) continue;
      if (facts.isDirectory()) queue.push(path);
      else if (facts.isFile()) bytes += Math.min(facts.size, facts.blocks * 512) / facts.nlink;
    }
  }
  return Math.ceil(bytes);
}

/** Undefined for what cannot be looked at, or lies deeper than one path may be long: the scan tells of it. */
function factsOf(path: Buffer): fs.Stats | undefined {
  try {
    return fs.lstatSync(path, { throwIfNoEntry: false });
  } catch {
    return undefined;
  }
}

/** None where a directory cannot be listed: the scan tells of it. */
function rawNamesIn(directory: Buffer): Buffer[] {
  try {
    return fs.readdirSync(directory, { encoding: "buffer" });
  } catch {
    return [];
  }
}

const SLASH = Buffer.from("/");
