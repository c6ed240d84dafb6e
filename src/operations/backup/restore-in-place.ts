import type { PointContent, RootMetadata } from "../../engines/engine.ts";
import { toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import type { Manifest } from "../../formats/manifest.ts";
import type { TreeNode } from "../../formats/tree.ts";
import { flushFileSystem } from "../../fs/flush.ts";
import { displayPath, pathOfDisplayed, printablePath } from "../../fs/safe-path.ts";
import type { Point } from "../../workspace/point-files.ts";
import { receivePoint } from "../../workspace/receive.ts";
import { neverPart } from "../../workspace/record-point.ts";
import { recoverWorkspace } from "../../workspace/recovery.ts";
import { rulesOf } from "../../workspace/restore.ts";
import { rootOfFolder, rootOfPoint } from "../../workspace/root-changes.ts";
import type { Workspace, WorkspaceCall } from "../../workspace/workspace.ts";
import type { LeftOut, RestoreInPlaceOptions, RestoreInPlaceResult, RestoreResult } from "../contract.ts";
import { restoreLocked } from "../restore.ts";
import { looksEmpty } from "./empty-folder.ts";
import type { ChosenPaths } from "./chosen-paths.ts";
import { compareWritten } from "./compare-written.ts";
import { checkJobs } from "./jobs.ts";
import { lookingAtSnapshots } from "./look.ts";
import { requireUntouched } from "./own-folder.ts";
import { planInPlace } from "./plan-in-place.ts";
import { pointOf, restoredSnapshot } from "./public-snapshot.ts";
import {
  checkProof,
  checkReceiptOf,
  isToBeProven,
  type ReadBack,
  readBack,
  signed,
  warnUnproven,
} from "./read-back.ts";
import { callOf, type RepositoryAccess } from "./repository-access.ts";
import { takeIn } from "./take-in.ts";
import { type WantedInPlace, wantedInPlace } from "./wanted-in-place.ts";

/**
 * Makes a workspace's folder equal to a snapshot, or chosen paths of it.
 *
 * Steps: packs that the workspace's store has lost leave its index ● → what the store lacks is moved into it and named by
 * a point ● → that point is restored as any other is, the present saved first ● → of a whole snapshot the folder is read
 * again, compared and a receipt signed. Where the restore meets damage in the store, which it does before
 * it changes the folder, damaged packs leave the index too, and what they held is moved in before it is tried again.
 * A kill between the last two leaves a point more in the history, from which the next call goes on.
 */
export async function restoreBackupInPlace(
  workspace: Workspace,
  access: RepositoryAccess,
  options: RestoreInPlaceOptions & { snapshot: string },
): Promise<RestoreInPlaceResult> {
  const started = performance.now();
  checkJobs(options.jobs);
  checkProof(options, workspace.root);
  using _lock = await workspace.lock("restore", options);
  await recoverWorkspace(workspace, options);
  const call = callOf(options);
  const restoring = { ...options, restores: true };
  const present = (): RootMetadata | null => {
    const head = workspace.byId(workspace.state().head);
    // Where it is gone, as it was saved last.
    return rootOfFolder(workspace.root) ?? (head && rootOfPoint(head));
  };
  const over = { folder: workspace.root, present };
  const found = await lookingAtSnapshots(access, restoring, async (look) => {
    // Another folder's newest is hardly meant.
    const latestOf = options.latestOf ?? { paths: [workspace.root.toString("utf8")] };
    const wanted = await wantedInPlace(access, look, { ...options, latestOf, ...over });
    checkReceiptOf(options, { ...wanted, isWhole: wanted.chosen.paths === null });
    await requireUntouched(access, workspace.root, { wanted, signal: options.signal });
    warnOfOtherFolder(workspace, wanted, options);
    if (options.dryRun === true) return { wanted, plan: await planInPlace(workspace, wanted, call) };
    await dropLost(workspace, call);
    return { wanted, ...(await knownOrReceived(workspace, access, { wanted, look, options, call })) };
  });
  const { listed, content, chosen, keepPresent } = found.wanted;
  const facts = { ...access.info, ...restoredSnapshot(listed), target: workspace.root.toString("utf8") };
  if (found.plan !== undefined) {
    const duration = Math.round(performance.now() - started);
    return { ...facts, ...found.plan, ...NOT_READ, dry_run: true, stored_bytes: null, duration_ms: duration };
  }
  failpoint("restore-backup.received");
  const { restored, point } = await restorePoint(workspace, found.point, {
    restore: async (target) =>
      restoreLocked(workspace, started, {
        ...call,
        target,
        paths: chosen.paths,
        pathsAreThere: true,
        keepPresent,
        kind: "restore",
      }),
    again: async () =>
      lookingAtSnapshots(access, restoring, async (look) => {
        const wanted = await wantedInPlace(access, look, { ...options, snapshot: listed.id, ...over });
        return (await knownOrReceived(workspace, access, { wanted, look, options, call })).point;
      }),
    call,
  });
  failpoint("restore-backup.restored");
  const leftOut = [...found.leftOut, ...restored.left_out];
  // Of parts, and beside what it was asked to keep, nobody expects the whole to be read; beside what restic left out they do.
  const isProven = isToBeProven(options, chosen.paths === null && options.keepPresent !== true);
  const proven: Proven = isProven
    ? await prove(workspace, point, { access, listed, content, options, leftOut, chosen, keepPresent })
    : { ...NOT_READ, left_out: leftOut };
  return {
    ...facts,
    ...restored,
    ...proven,
    dry_run: false,
    stored_bytes: point.descriptor.bytes_stored,
    duration_ms: Math.round(performance.now() - started),
  };
}

/**
 * In other programs what is restored in place goes where it came from. A filter, or paths, name what is wanted here; a folder
 * that has moved, or is empty, loses nothing.
 */
function warnOfOtherFolder(
  workspace: Workspace,
  { listed, chosen, keepPresent }: WantedInPlace,
  { latestOf, onWarning }: RestoreInPlaceOptions,
): void {
  const { paths } = listed.snapshot;
  const own = pointOf(listed.snapshot);
  if (latestOf !== undefined || chosen.paths !== null || keepPresent) return;
  if (paths.includes(workspace.root.toString("utf8")) || (own !== null && workspace.byId(own) !== null)) return;
  if (looksEmpty(workspace.root)) return;
  onWarning?.(
    `snapshot ${listed.id.slice(0, 8)} is of ${paths.map(printablePath).join(", ")}: ${printablePath(workspace.root)} is made equal to that, and what is there now goes into the undo point`,
  );
}

/** Restores a point; where the store does not give back what it needs, once more with what the repository has of it. */
async function restorePoint(
  workspace: Workspace,
  point: Point,
  by: { restore: (point: Point) => Promise<RestoreResult>; again: () => Promise<Point>; call: WorkspaceCall },
): Promise<{ restored: RestoreResult; point: Point }> {
  const { restore, again, call } = by;
  try {
    return { restored: await restore(point), point };
  } catch (error) {
    if (toCairnError(error).code !== "damaged") throw error;
    await recoverWorkspace(workspace, call);
    if ((await dropLost(workspace, call, true)) === 0) throw error;
  }
  const whole = await again();
  return { restored: await restore(whole), point: whole };
}

/**
 * The repository is whole where the store may not be: neither what is kept nor what is received relies on what is lost.
 * With `reads` also not on packs whose bytes are not what was written. Returns how many were lost.
 */
async function dropLost(
  { engine }: Workspace,
  { signal, onProgress, onWarning }: WorkspaceCall,
  reads = false,
): Promise<number> {
  return engine.dropLost({
    reads,
    signal,
    onProgress: (progress) => onProgress?.({ phase: "verifying", ...progress }),
    onWarning,
  });
}

type Taking = Parameters<typeof takeIn>[2];

/** A point that holds the snapshot, and what of it that lacks since it could not be made here. */
async function knownOrReceived(
  workspace: Workspace,
  access: RepositoryAccess,
  by: Taking,
): Promise<{ point: Point; leftOut: LeftOut[] }> {
  const known = await knownPoint(workspace, by);
  if (known !== null) return { point: known, leftOut: [] };
  const { manifest } = by.wanted.content;
  if (manifest === null) return takeIn(workspace, access, by);
  return { point: await receive(workspace, access, { ...by, manifest }), leftOut: [] };
}

/** The workspace's own point that the snapshot was made of, or one that an earlier call made of it, where it is whole. */
async function knownPoint(
  workspace: Workspace,
  { wanted: { listed, content, chosen }, call }: Pick<Taking, "wanted" | "call">,
): Promise<Point | null> {
  // Of what another program made a point has other trees, and may lack what could not be made.
  if (content.manifest === null) return null;
  const tree = Buffer.from(content.root).toString("hex");
  const id = pointOf(listed.snapshot);
  const own = id === null ? null : workspace.byId(id);
  const latest = workspace.points.latest();
  const isReceived = latest?.descriptor.cause["snapshot_id"] === listed.id && chosen.paths === null;
  for (const point of [own, isReceived ? latest : null]) {
    if (point?.descriptor.content.tree !== tree || point.descriptor.metadata_digest === null) continue;
    if (await workspace.engine.holds(point.descriptor.content as unknown as PointContent, call)) return point;
  }
  return null;
}

async function receive(
  workspace: Workspace,
  access: RepositoryAccess,
  { wanted, manifest, call }: { wanted: WantedInPlace; manifest: Manifest; call: WorkspaceCall },
): Promise<Point> {
  const { listed, content, chosen, from } = wanted;
  const part = chosen.paths === null ? "" : "parts of ";
  return receivePoint(workspace, {
    ...call,
    content: {
      from,
      tree: content.root,
      rootMetadata: rootOf(content.node),
      manifest,
      paths: chosen.paths,
    },
    excludes: listed.snapshot.excludes ?? [],
    message: `${part}snapshot ${listed.id.slice(0, 8)} of ${access.location}`,
    cause: { kind: "backup", snapshot_id: listed.id, repository_id: access.repository.id },
  });
}

function rootOf({ mode, uid, gid, mtimeSec, mtimeNs }: TreeNode): RootMetadata {
  return { mode, uid, gid, mtimeSec, mtimeNs };
}

const NOT_READ = { proof: null, read_again: false, read_from: null, untold_files: null };

type Proven = Pick<RestoreInPlaceResult, "proof" | "left_out" | "read_again" | "read_from" | "untold_files">;

/**
 * The folder as it is read again. Where that is not known to be what was saved by a digest of the whole, each entry
 * is compared. What is something else is listed: others may have written to it meanwhile.
 */
async function prove(
  workspace: Workspace,
  point: Point,
  more: ReadBack & { leftOut: LeftOut[]; chosen: ChosenPaths; keepPresent: boolean },
): Promise<Proven> {
  const { access, content, options, leftOut, chosen, keepPresent } = more;
  if (options.proveFrom !== "memory") await flushFileSystem(workspace.root);
  const rules = rulesOf(point);
  const { crossMounts } = rules;
  const skip = neverPart(workspace.root, { crossMounts });
  const { found, state, meta, from, notRead } = await readBack(more, workspace.root, { rules, skip, crossMounts });
  const recorded = chosen.paths === null && !keepPresent ? (content.manifest?.stateDigest ?? null) : null;
  // A digest says nothing of what could not be read, and that may be something else than the snapshot has.
  if (state === recorded && notRead.length === 0) {
    const proven = { state_digest: state, metadata_equal: meta === content.manifest?.metadataDigest };
    const target = workspace.root.toString("utf8");
    const proof = await signed(more, proven, { from, leftOut, target });
    return { proof, left_out: leftOut, read_again: true, read_from: from, untold_files: 0 };
  }
  warnUnproven(options);
  const known = leftOut.map((each) => ({ path: pathOfDisplayed(each), aspects: each.aspects ?? [] }));
  const { wrong, unlike, untold } = await lookingAtSnapshots(access, options, async (look) =>
    compareWritten(look, found, {
      folder: workspace.root,
      signal: options.signal,
      content,
      chosen: chosen.paths,
      lost: known.filter(({ aspects }) => aspects.length === 0).map(({ path }) => path),
      notSet: known,
      others: keepPresent ? "anywhere" : "beside what was chosen",
    }),
  );
  const isKnown = ({ path, path_b64 }: LeftOut): boolean =>
    leftOut.some((each) => each.path === path && each.path_b64 === path_b64);
  const all = [...leftOut, ...notRead.filter((each) => !isKnown(each)), ...unlike, ...wrong.map(otherEntry)];
  if (recorded !== null && all.length === 0) {
    const detail = `the folder reads back with state digest ${state}, saved was ${recorded}: ${WRITTEN_TO}`;
    return {
      proof: null,
      left_out: [{ path: "", reason: "changed_since", detail }],
      read_again: false,
      read_from: from,
      untold_files: 0,
    };
  }
  const isAll = wrong.length === 0 && untold === 0;
  return { proof: null, left_out: all, read_again: isAll, read_from: from, untold_files: untold };
}

const WRITTEN_TO = "something wrote to it meanwhile, or its disk does not keep what it is given";

function otherEntry(path: Uint8Array): LeftOut {
  const detail = `it reads back otherwise than the snapshot has it: ${WRITTEN_TO}`;
  return { ...displayPath(path), reason: "changed_since", detail };
}
