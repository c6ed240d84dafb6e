import type { RestoreResult } from "../../contract/points.ts";
import type { RestoreInPlaceOptions, RestoreInPlaceResult } from "../../contract/snapshots.ts";
import { toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { flushFileSystem } from "../../fs/linux/flush.ts";
import { pathOfDisplayed } from "../../fs/paths/safe-path.ts";
import { recoverWorkspace } from "../../workspace/open/recovery.ts";
import { restoreLocked } from "../../workspace/restore/methods.ts";
import { type Point, rulesOf } from "../../workspace/points/point-files.ts";
import type { Workspace, WorkspaceCall } from "../../workspace/open/workspace.ts";
import { readChecks } from "../open/checks.ts";
import { callOf, type OpenRepository } from "../open/open-repository.ts";
import { requireUntouched } from "../open/own-folder.ts";
import { reading } from "../open/session.ts";
import { restoredSnapshot } from "../open/snapshots.ts";
import { planInPlace } from "./plan-in-place.ts";
import { checkProof, checkReceiptOf, isToBeProven, proveInPlace, type ReadBack } from "./prove.ts";
import { dropLost, knownOrReceived } from "./received-point.ts";
import { type WantedInPlace, wantedInPlace, warnOfOtherFolder } from "./wanted-in-place.ts";
import { neverPart } from "../../workspace/place/registry.ts";

/**
 * Makes a workspace's folder equal to a snapshot, or chosen paths of it. If the store is damaged, which is found before
 * the folder changes, the packs leave the index, and their content is moved in again for a second try.
 * - If a plan was shown, it is compared before anything is fetched, and again with the scan of the undo point.
 * - Packs that the store has lost leave its index ●; missing content is moved into the store and named by a point ●.
 * - That point is restored as any other is, the present saved first ●. A kill before it leaves one more point, from
 * which the next call goes on.
 * - For a whole snapshot the folder is read again and compared, and a receipt is signed.
 */
export async function restoreBackupInPlace(
  workspace: Workspace,
  access: OpenRepository,
  options: RestoreInPlaceOptions & { snapshot: string },
): Promise<RestoreInPlaceResult> {
  const started = performance.now();
  checkProof(options, workspace.root);
  using _lock = await workspace.lock("restore", options);
  await recoverWorkspace(workspace, options);
  const call = callOf(options);
  const madeFrom = workspace.points.nextSequence();
  const found = await reading(access, call, async (session) => {
    // By default `latest` is the newest snapshot of this folder, not of another one.
    const latestOf = options.latestOf ?? { paths: [workspace.root.toString("utf8")] };
    const wanted = await wantedInPlace(session, workspace.root, { ...options, latestOf });
    checkReceiptOf(options, { ...wanted, isWhole: wanted.chosen.paths === null });
    await requireUntouched(access, workspace.root, { wanted, signal: options.signal });
    warnOfOtherFolder(workspace, wanted, options);
    if (options.dryRun === true || options.plan !== undefined) {
      const plan = await planInPlace(workspace, wanted, { ...options, ...call });
      if (options.dryRun === true) return { wanted, plan };
    }
    await dropLost(workspace, call);
    const checks = await readChecks(session.reader, wanted.listed, (message) => options.onWarning?.(message));
    return { wanted, checks, point: await knownOrReceived(workspace, access, { wanted, call }) };
  });
  const { listed, chosen, change } = found.wanted;
  const backup = { ...access.info, ...restoredSnapshot(listed) };
  const facts = { ...backup, target: workspace.root.toString("utf8") };
  if (found.plan !== undefined) {
    const duration = Math.round(performance.now() - started);
    return { ...facts, ...found.plan, ...NOT_READ, dry_run: true, stored_bytes: null, duration_ms: duration };
  }
  const { plan } = options;
  failpoint("restore-backup.received");
  const { restored, point } = await restorePoint(workspace, found.point, {
    restore: async (target, isWhole) =>
      restoreLocked(workspace, started, {
        ...call,
        cause: { kind: "restore", ...options.cause, backup },
        target,
        origin: listed.id,
        madeFrom,
        plan,
        change: change.throwing(isWhole),
        takeOwnership: options.takeOwnership,
        throughSqlite: options.throughSqlite,
        kind: "restore",
      }),
    again: async () =>
      reading(access, call, async (session) => {
        const wanted = await wantedInPlace(session, workspace.root, { ...options, snapshot: listed.id });
        return knownOrReceived(workspace, access, { wanted, call });
      }),
    call,
  });
  failpoint("restore-backup.restored");
  // Nobody expects a full read after a restore of parts, or one that keeps present entries.
  const isProven = isToBeProven(options, chosen.paths === null && options.keepPresent !== true);
  const proven = isProven
    ? await prove(workspace, point, { access, ...found.wanted, options, checks: found.checks }, restored)
    : NOT_READ;
  return {
    ...facts,
    ...restored,
    ...proven,
    dry_run: false,
    plan_id: null,
    planned_entries: null,
    stored_bytes: point.descriptor.bytes_stored,
    duration_ms: Math.round(performance.now() - started),
  };
}

/** Restores a point. If the store lacks content, restores once more with the repository's copy. */
async function restorePoint(
  workspace: Workspace,
  point: Point,
  by: {
    restore: (point: Point, isWhole: boolean) => Promise<RestoreResult>;
    again: () => Promise<Point>;
    call: WorkspaceCall;
  },
): Promise<{ restored: RestoreResult; point: Point }> {
  const { restore, again, call } = by;
  try {
    return { restored: await restore(point, true), point };
  } catch (error) {
    if (toCairnError(error).code !== "damaged") throw error;
    await recoverWorkspace(workspace, call);
    if ((await dropLost(workspace, call, true)) === 0) throw error;
  }
  const whole = await again();
  return { restored: await restore(whole, false), point: whole };
}

const NOT_READ = { proof: null, read_again: false, read_from: null, untold_files: null };

type Proven = Pick<RestoreInPlaceResult, "proof" | "left_out" | "read_again" | "read_from" | "untold_files">;

async function prove(
  workspace: Workspace,
  point: Point,
  what: ReadBack & Pick<WantedInPlace, "chosen" | "keepPresent">,
  { left_out: leftOut, through_sqlite: through = [] }: RestoreResult,
): Promise<Proven> {
  const { options, chosen, keepPresent } = what;
  const { root: folder } = workspace;
  if (options.proveFrom !== "memory") await flushFileSystem(folder);
  const rules = rulesOf(point);
  const { crossMounts } = rules;
  const left = { rules, skip: neverPart(folder, { crossMounts }), crossMounts };
  const { proof, from, untold, isEqual, ...all } = await proveInPlace({
    ...what,
    folder,
    chosen: chosen.paths,
    keepPresent,
    leftOut,
    left,
    through: through.map(pathOfDisplayed),
  });
  return {
    proof,
    left_out: all.leftOut,
    read_again: isEqual && through.every((each) => each.read_again),
    read_from: from,
    untold_files: untold,
  };
}
