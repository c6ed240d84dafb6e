import type { ContentElsewhere, PointContent } from "../../workspace/store/engine.ts";
import type { RootMetadata } from "../../archive/write/root-metadata.ts";
import { CairnError, toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { decodeTree, type TreeNode } from "../../formats/restic/tree.ts";
import { flushFileSystem } from "../../fs/linux/flush.ts";
import { isAtOrBelow, printablePath, quotedPath, rawBytes } from "../../fs/safe-path.ts";
import type { Point } from "../../workspace/points/point-files.ts";
import { receivePoint } from "../../workspace/points/receive.ts";
import { lackingIn, publicLeftOut } from "../../workspace/points/left-out.ts";
import { leftOutBefore } from "../../workspace/restore/apply.ts";
import { neverPart } from "../../workspace/save/record-point.ts";
import { recoverWorkspace } from "../../workspace/care/recovery.ts";
import { rulesOf, unknownIn } from "../../workspace/restore/restore.ts";
import type { Workspace, WorkspaceCall } from "../../workspace/workspace.ts";
import type { LeftOut } from "../../contract/words.ts";
import type { RestoreInPlaceOptions, RestoreInPlaceResult } from "../../contract/snapshots.ts";
import type { RestoreResult } from "../../contract/points.ts";
import { restoreLocked } from "../../workspace/new-folder/restore-folder.ts";
import { type ChosenPaths, chosenPaths, contentOf } from "../paths.ts";
import { checkProof, checkReceiptOf, isToBeProven, proveInPlace, type ReadBack } from "./prove.ts";
import { reading, type Session } from "../session.ts";
import { looksEmpty, requireUntouched } from "../own-folder.ts";
import { chosenSnapshot, isRecovered, pointOf, restoredSnapshot } from "../snapshots.ts";
import { callOf, type OpenRepository } from "../open-repository.ts";
import { surveyTree } from "../../workspace/store/survey-tree.ts";
import { rulesOfTask } from "../../archive/scan/directory-rules.ts";
import { presentSource } from "../../archive/scan/present-source.ts";
import { DATA_BLOB, TREE_BLOB } from "../../repository/index/blob-index.ts";
import { lookBeforeRestore } from "../../workspace/save/look.ts";
import { planRestore } from "../../workspace/restore/plan.ts";
import { isSameRoot, rootOfFolder } from "../../workspace/points/root-changes.ts";
import { withoutMovedTimes } from "../../workspace/points/tree-diff.ts";
import { joinPath } from "../../formats/bytes.ts";
import type { Manifest } from "../../formats/records/manifest.ts";
import type { ListedSnapshot } from "../../repository/repository.ts";
import { snapshotContent, type SnapshotContent, withoutOthersDigests } from "../content.ts";

/**
 * Makes a workspace's folder equal to a snapshot, or chosen paths of it. Damage in the store, which is met before the
 * folder is changed, takes packs out of the index, and what they held is moved in before it is tried again.
 * - Packs that the store has lost leave its index ●; what the store lacks is moved into it and named by a point ●.
 * - That point is restored as any other is, the present saved first ●. A kill before it leaves a point more, from which
 * the next call goes on.
 * - Of a whole snapshot the folder is read again, compared and a receipt signed.
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
  const found = await reading(access, call, async (session) => {
    // Another folder's newest is hardly meant.
    const latestOf = options.latestOf ?? { paths: [workspace.root.toString("utf8")] };
    const wanted = await wantedInPlace(session, workspace.root, { ...options, latestOf });
    checkReceiptOf(options, { ...wanted, isWhole: wanted.chosen.paths === null });
    await requireUntouched(access, workspace.root, { wanted, signal: options.signal });
    warnOfOtherFolder(workspace, wanted, options);
    if (options.dryRun === true) return { wanted, plan: await planInPlace(workspace, wanted, call) };
    await dropLost(workspace, call);
    return { wanted, point: await knownOrReceived(workspace, access, { wanted, call }) };
  });
  const { listed, chosen, keepPresent } = found.wanted;
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
      reading(access, call, async (session) => {
        const wanted = await wantedInPlace(session, workspace.root, { ...options, snapshot: listed.id });
        return knownOrReceived(workspace, access, { wanted, call });
      }),
    call,
  });
  failpoint("restore-backup.restored");
  // Of parts, and beside what it was asked to keep, nobody expects the whole to be read.
  const isProven = isToBeProven(options, chosen.paths === null && options.keepPresent !== true);
  const proven = isProven
    ? await prove(workspace, point, { access, ...found.wanted, options }, restored.left_out)
    : NOT_READ;
  return {
    ...facts,
    ...restored,
    ...proven,
    dry_run: false,
    stored_bytes: point.descriptor.bytes_stored,
    duration_ms: Math.round(performance.now() - started),
  };
}

/** Warns of a snapshot of another folder, as other programs restore into that, unless a filter or paths say what is wanted. */
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
 * Takes packs that the store has lost out of its index, since the repository is whole where the store may not be; with
 * `reads` also packs whose bytes are not what was written. Returns how many were lost.
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

interface Receiving {
  wanted: WantedInPlace;
  call: WorkspaceCall;
}

/** A point that holds the snapshot, or what of it was chosen. */
async function knownOrReceived(workspace: Workspace, access: OpenRepository, by: Receiving): Promise<Point> {
  return (await knownPoint(workspace, by)) ?? receive(workspace, access, by);
}

/** The workspace's own point that the snapshot was made of, or one that an earlier call made of it, where it is whole. */
async function knownPoint(
  workspace: Workspace,
  { wanted: { listed, content, chosen }, call }: Receiving,
): Promise<Point | null> {
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

async function receive(workspace: Workspace, access: OpenRepository, { wanted, call }: Receiving): Promise<Point> {
  const { listed, content, chosen, from } = wanted;
  const part = chosen.paths === null ? "" : "parts of ";
  return receivePoint(workspace, {
    ...call,
    content: {
      from,
      tree: content.root,
      rootMetadata: rootOf(content.node),
      manifest: content.manifest,
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

async function prove(
  workspace: Workspace,
  point: Point,
  what: ReadBack & Pick<WantedInPlace, "chosen" | "keepPresent">,
  leftOut: LeftOut[],
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
  });
  return { proof, left_out: all.leftOut, read_again: isEqual, read_from: from, untold_files: untold };
}

/** Says what a restore would change. Nothing is saved, and no point is made. */
async function planInPlace(
  workspace: Workspace,
  wanted: WantedInPlace,
  call: WorkspaceCall,
): Promise<Omit<RestoreResult, "duration_ms">> {
  const { from, content, chosen, listed, keepPresent } = wanted;
  const { signal } = call;
  const { blobs } = from;
  // All trees are at hand after this, wherever they lay.
  const { ignoreFiles } = await surveyTree(from, content.root, { only: null, signal });
  const rules = rulesOfTask({ excludes: listed.snapshot.excludes ?? [], rules: null }).record(ignoreFiles);
  const crossMounts = content.manifest.mounts?.entered ?? false;
  const scan = await lookBeforeRestore(workspace, call, { ...rules, crossMounts });
  const plan = await planRestore({
    present: presentSource(scan),
    scan,
    target: {
      root: content.root,
      list: (directory) => decodeTree(blobs.readId(directory, TREE_BLOB)),
      *content({ content: ids = new Uint8Array(0) }) {
        for (let at = 0; at < ids.length; at += 32) yield blobs.readId(ids.subarray(at, at + 32), DATA_BLOB);
      },
    },
    paths: chosen.paths,
    keepPresent,
    ...unknownIn(workspace, content.manifest),
    mayLackPaths: true,
    signal,
  });
  const changes = { created: 0, updated: 0, deleted: 0, metadata: 0 };
  for (const { action, before, after } of withoutMovedTimes(plan)) {
    const isOther = action === "update" && (before?.type === "dir") !== (after?.type === "dir");
    if (action === "keep") continue;
    if (!isOther) changes[ACTIONS[action]]++;
    else {
      // One goes and another comes, as no directory takes the place of a file.
      changes.deleted++;
      changes.created++;
    }
  }
  if (chosen.paths === null && !isSameRoot(content.node, rootOfFolder(workspace.root))) changes.metadata++;
  const lacking = lackingIn(content.manifest, chosen.paths);
  const left = leftOutBefore(plan, scan, { paths: chosen.paths, lacking, notSet: [] }).map(publicLeftOut);
  return { restored_to: null, undo_id: null, changes, left_out: left, unlinked: [], method: "entries" };
}

const ACTIONS = { create: "created", update: "updated", delete: "deleted", metadata: "metadata" } as const;

/** A snapshot of a folder, and the part of it that is wanted. */
interface WantedInPlace {
  listed: ListedSnapshot;
  content: SnapshotContent & { node: TreeNode; manifest: Manifest };
  chosen: ChosenPaths;
  from: ContentElsewhere;
  keepPresent: boolean;
}

/** Finds it. `folder`: the one that it is restored over. `refused` for what no workspace can stand at. */
async function wantedInPlace(
  session: Session,
  folder: Buffer,
  options: RestoreInPlaceOptions & { snapshot: string },
): Promise<WantedInPlace> {
  const listed = chosenSnapshot(session, options.snapshot, options);
  const content = await snapshotContent(session.reader, listed.snapshot);
  if (content.manifestDamage !== null) throw content.manifestDamage;
  if (content.manifest === null) throw onlyElsewhere(listed, "was made by another program, or of no save point");
  const { node, manifest } = content;
  if (node === null) throw onlyElsewhere(listed, "is not of one folder");
  const found = { ...content, node, manifest };
  const part = await contentOf(session.reader, { listed, content: found }, options.subfolder);
  const below = await chosenPaths(session.reader, part, { ...options, savedPaths: listed.snapshot.paths });
  if (part.part !== undefined) requireOwnPlace(listed, part.part, folder);
  const chosen = part.part === undefined ? below : inPlaceOf(part.part, below);
  const asRecorded =
    chosen.paths === null ? await withoutOthersDigests(session, { listed, content: found }, options) : found;
  if (asRecorded !== found) throw onlyElsewhere(listed, "is not what its save point was: another program rewrote it");
  return {
    listed,
    content: found,
    chosen,
    from: {
      repository: session.access.repository,
      index: session.index,
      near: session.near,
      blobs: session.reader,
      onElsewhere: session.onElsewhere,
    },
    // What was left out of a snapshot, one that was made anew does not say.
    keepPresent: options.keepPresent === true || chosen.byPattern || isRecovered(listed.snapshot),
  };
}

function onlyElsewhere({ id }: ListedSnapshot, why: string): CairnError {
  return new CairnError("refused", `snapshot ${id.slice(0, 8)} ${why}: it is not restored in place`, {
    hint: "restore it into a folder of its own with --to, and copy from there",
  });
}

/** Throws `refused` for a folder of a snapshot of one around the workspace: it would make another one of it below itself. */
function requireOwnPlace({ id }: ListedSnapshot, { path, whole }: Part, folder: Buffer): void {
  const place = joinPath(folder, path);
  if (!isAtOrBelow(whole, folder) || place.equals(whole)) return;
  throw new CairnError(
    "refused",
    `snapshot ${id.slice(0, 8)} is of a folder around ${printablePath(folder)}: in place, ${quotedPath(path)} would come to ${printablePath(place)}`,
    { hint: "restore it into a folder of its own with --to, and copy from there" },
  );
}

type Part = NonNullable<SnapshotContent["part"]>;

/** The paths from what was saved of those that were chosen below a folder. */
function inPlaceOf({ path }: Part, { paths, ...chosen }: ChosenPaths): ChosenPaths {
  return {
    ...chosen,
    paths: paths === null ? [rawBytes(path)] : paths.map((each) => Buffer.from(joinPath(path, each))),
  };
}
