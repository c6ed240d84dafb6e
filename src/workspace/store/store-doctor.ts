import fs from "node:fs";
import { hostname } from "node:os";
import { currentUser } from "../../fs/users.ts";
import { CairnError, throwIfAborted } from "../../errors.ts";
import type { ObjectId } from "../../ids.ts";
import { explain } from "../../repository/verify/damage.ts";
import { checkStructure, type Structure } from "../../repository/verify/structure.ts";
import { readIndexCache } from "../../repository/index/index-cache.ts";
import { lookAtLocks } from "../../repository/lock-state.ts";
import { removeDeadLocks, withLock } from "../../repository/locks.ts";
import { NearPacks } from "../../repository/read/near-packs.ts";
import { removeSnapshots } from "../../repository/care/remove.ts";
import { removeUnindexedPacks } from "../../repository/care/unindexed-packs.ts";
import type { DamagedFile, ListedSnapshot } from "../../repository/repository.ts";
import type { ExamineRequest, StoreFinding } from "./store-care.ts";
import { notedPacks } from "./store-files.ts";
import type { EmbeddedStore } from "./embedded-store.ts";
import { dropDamagedPacks } from "./lost-content.ts";
import { pathToTree } from "./point-remains.ts";

const LOCK_WAIT_MS = 10_000;
const TAG = "cairn:";
/** Most lost paths of a point that get a finding of their own. */
const SHOWN_PATHS = 100;
const PROGRAM = "cairn doctor";

const MEND_INDEX =
  "the index is rebuilt from the packs, with all readable blobs of damaged packs. Lost blobs are stored again when a save meets the same content";

/** The repair that rewrites the index; done once, for any number of findings that ask for it. */
type Mending = Required<Pick<StoreFinding, "repair" | "mend">>;

/** Returns findings about an open store: index, packs, trees, snapshots, locks, caches. Reads no pack's content except trees. */
export async function examineStore(store: EmbeddedStore, request: ExamineRequest): Promise<StoreFinding[]> {
  const { repository } = store;
  const { signal, points, onProgress } = request;
  await store.refresh(signal);
  const { snapshots, damaged } = await repository.listSnapshots(signal);
  const roots = points.flatMap(({ id, content }) => [
    { label: id, tree: Buffer.from(content.tree, "hex") },
    ...(typeof content["snapshot_tree"] === "string"
      ? [{ label: `${SPINE}${id}`, tree: Buffer.from(content["snapshot_tree"], "hex") }]
      : []),
  ]);
  const call = signal === undefined ? {} : { signal };
  const packs = new NearPacks(repository.storage, "");
  const report = await checkStructure(repository, { roots, packs, onElsewhere: store.onElsewhere, ...call });
  await explain(report, call);
  report.blobs.close();
  throwIfAborted(signal);
  let mended: Promise<unknown> | undefined;
  const mend = async (): Promise<unknown> =>
    (mended ??= dropDamagedPacks(store, { signal, onProgress, waitMs: LOCK_WAIT_MS }));
  const mending = { repair: MEND_INDEX, mend };
  return [
    ...packFindings(store, report, mending),
    ...lostFindings(request, report, mending),
    ...recordedFindings(store, request, { report, mending }),
    ...snapshotFindings(store, request, { snapshots, damaged, report }),
    ...(await lockFindings(repository)),
    ...cacheFindings(store),
  ];
}

/** Damaged index files, and packs that are missing, cut, in no index, or were damaged when read. */
function* packFindings(store: EmbeddedStore, report: Structure, mending: Mending): Iterable<StoreFinding> {
  const damage = (kind: string, detail: string): StoreFinding => ({ kind, severity: "damage", detail, ...mending });
  const noted = new Set(notedPacks(store.paths));
  let unindexed = 0;
  for (const { kind, object, detail } of report.problems) {
    const name = object.slice(0, 12);
    if (kind === "index_damaged") yield damage("index", `index file ${name}: ${detail}`);
    else if (kind === "pack_missing") yield damage("pack", `pack ${name} is missing: ${detail}`);
    else if (kind === "pack_unindexed") unindexed++;
    else if (kind === "pack_size") {
      yield damage("pack", `pack ${name}: ${detail}`);
      noted.delete(object);
    }
  }
  if (unindexed > 0) {
    const count = `${unindexed} ${unindexed === 1 ? "pack is" : "packs are"} in no index`;
    const isNeeded = report.problems.some(({ kind }) =>
      ["index_damaged", "blob_missing", "tree_missing"].includes(kind),
    );
    if (isNeeded) yield damage("index", `${count}; they may have the missing blobs`);
    else
      yield {
        kind: "leftovers",
        severity: "info",
        detail: `${count}: a killed save left them`,
        repair: "they are removed",
        mend: async () => {
          const damaged: string[] = [];
          const onDamaged = (pack: string): void => void damaged.push(pack);
          if ((await removeUnindexedPacks(store.repository, { waitMs: LOCK_WAIT_MS, onDamaged })) < 0)
            throw new CairnError("busy", "another process uses the store");
          // A damaged pack that stays may have the only sound copy of a blob.
          if (damaged.length > 0) await mending.mend();
        },
      };
  }
  for (const { name } of report.packs)
    if (noted.has(name))
      yield damage(
        "pack",
        `pack ${name.slice(0, 12)}: a read found it damaged; \`cairn verify --all\` names the affected files`,
      );
}

/** Paths of points that cannot be restored. */
function* lostFindings(
  { points }: ExamineRequest,
  { problems, roots }: Structure,
  mending: Mending,
): Iterable<StoreFinding> {
  const byRoot = new Map<string, Map<string, string>>();
  for (const { consequences, detail, kind } of problems) {
    const reason = kind.startsWith("pack") ? "its pack is missing or cut" : detail;
    for (const { root, path } of consequences ?? []) {
      if (root.startsWith(SPINE)) continue;
      const paths = byRoot.get(root) ?? new Map<string, string>();
      byRoot.set(root, paths.set(Buffer.from(path).toString("utf8"), reason));
    }
  }
  const ids = new Set(points.map(({ id }) => id));
  const trees = new Set(points.map(({ content }) => content["snapshot_tree"]));
  // A point's snapshot has the same content as the point: name the point only.
  const ofPoints = new Set(
    roots.flatMap(({ label, tree }) =>
      !ids.has(label) && trees.has(Buffer.from(tree).toString("hex")) ? [label] : [],
    ),
  );
  // The repair rewrites the packs of damaged trees, and finds content again that a damaged index hides.
  const isMendable = problems.some(({ kind }) => ["tree_damaged", "index_damaged", "pack_unindexed"].includes(kind));
  for (const [root, paths] of byRoot) {
    if (ofPoints.has(root)) continue;
    const who = ids.has(root) ? `save point ${root.slice(0, 8)}` : root;
    for (const [path, reason] of [...paths].slice(0, SHOWN_PATHS))
      yield {
        kind: "content",
        severity: "damage",
        detail: `${who}: ${path === "" ? "the root folder" : path} cannot be restored: ${reason}`,
        key: `content ${root} ${path}`,
        ...(isMendable ? mending : {}),
      };
    const more = paths.size - SHOWN_PATHS;
    if (more > 0)
      yield { kind: "content", severity: "damage", detail: `${who}: ${more} further paths cannot be restored` };
  }
}

/** Damage that only a full read finds, without paths that are reported as lost. Without a damaged pack there is no repair. */
function* recordedFindings(
  { paths }: EmbeddedStore,
  { recordedDamage }: ExamineRequest,
  { report, mending }: { report: Structure; mending: Mending },
): Iterable<StoreFinding> {
  const lost = new Set(
    report.problems.flatMap(({ consequences }) =>
      (consequences ?? []).map(({ root, path }) => `${root} ${Buffer.from(path).toString("utf8")}`),
    ),
  );
  const count = recordedDamage.filter((each) => each.paths.some((path) => !lost.has(`${each.id} ${path}`))).length;
  if (count === 0) return;
  const detail = `the last verification found damage in ${count} save ${count === 1 ? "point" : "points"}`;
  const severity = "damage";
  if (notedPacks(paths).length > 0)
    yield {
      kind: "content",
      severity,
      detail,
      key: "recorded",
      ...mending,
      repair: `the whole store is read; ${MEND_INDEX}`,
    };
  else yield { kind: "content", severity, detail: `${detail}; \`cairn verify --all\` lists it`, key: "recorded" };
}

/** Points without a snapshot, unreadable snapshots, and snapshots without a point. */
function* snapshotFindings(
  store: EmbeddedStore,
  { points, known, nameless }: ExamineRequest,
  { snapshots, damaged, report }: { snapshots: ListedSnapshot[]; damaged: DamagedFile[]; report: Structure },
): Iterable<StoreFinding> {
  const { repository } = store;
  const remove = async (name: string): Promise<unknown> =>
    removeSnapshots(repository, [name], { waitMs: LOCK_WAIT_MS });
  const tags = new Set(snapshots.flatMap(({ snapshot }) => snapshot.tags ?? []));
  const present = new Set<string>(snapshots.map(({ id }) => id));
  const broken = new Set(report.problems.flatMap(({ consequences }) => (consequences ?? []).map(({ root }) => root)));
  for (const point of points) {
    const { id, content } = point;
    if (tags.has(`${TAG}${id}`) || present.has(String(content["snapshot"]))) continue;
    const detail = `save point ${id.slice(0, 8)} has no snapshot, so restic does not list it`;
    const severity = "warning";
    if (broken.has(`${SPINE}${id}`))
      yield { kind: "snapshot", severity, detail: `${detail}; some of its content is damaged or missing` };
    else
      yield {
        kind: "snapshot",
        severity,
        detail,
        repair: "the snapshot is written again",
        mend: async () => writeSnapshot(store, point),
      };
  }
  for (const { name, error } of damaged)
    yield {
      kind: "snapshot",
      severity: "damage",
      detail: error.message,
      repair: "the snapshot is removed; each save point without a snapshot gets a new one",
      mend: async () => remove(name),
    };
  // An orphan snapshot may be all that is left of a point with a damaged descriptor.
  if (nameless > 0) return;
  for (const { id, snapshot } of snapshots) {
    if (!(snapshot.tags ?? []).some((tag) => tag.startsWith(TAG) && !known(tag.slice(TAG.length)))) continue;
    const detail = `snapshot ${id.slice(0, 8)} of ${snapshot.time} belongs to a save point that does not exist`;
    yield {
      kind: "orphan-snapshot",
      severity: "info",
      detail,
      repair: "it is removed",
      mend: async () => remove(id),
    };
  }
}

async function writeSnapshot(store: EmbeddedStore, point: ExamineRequest["points"][number]): Promise<void> {
  const { repository, storage } = store;
  const top = String(point.content["snapshot_tree"]);
  const path = pathToTree(store, top, point.content.tree);
  const { uid, gid, username } = currentUser();
  await withLock(repository, { exclusive: false, waitMs: LOCK_WAIT_MS }, async () => {
    await repository.saveSnapshot(
      {
        time: point.createdAt,
        tree: top as ObjectId,
        paths: [Buffer.from(path ?? Buffer.from("/")).toString("utf8")],
        hostname: hostname(),
        username,
        uid,
        gid,
        tags: [`${TAG}${point.id}`],
        program_version: PROGRAM,
      },
      { durable: false },
    );
    await storage.sync(["snapshots"]);
  });
}

async function lockFindings(repository: EmbeddedStore["repository"]): Promise<StoreFinding[]> {
  const dead = (await lookAtLocks(repository)).dead.length;
  if (dead === 0) return [];
  const detail = `${dead} ${dead === 1 ? "lock" : "locks"} of ended processes; restic waits until they are removed`;
  const mend = async (): Promise<unknown> => removeDeadLocks(repository);
  return [{ kind: "lock", severity: "info", detail, repair: "they are removed", mend }];
}

function* cacheFindings({ paths, repository }: EmbeddedStore): Iterable<StoreFinding> {
  const { indexCache } = paths;
  if (!fs.existsSync(indexCache) || readIndexCache(indexCache, repository.id) !== null) return;
  yield {
    kind: "cache",
    severity: "info",
    detail: "the cache of the store's index cannot be read; commands are slower without it",
    repair: "it is made again",
    mend: () => fs.rmSync(indexCache, { force: true }),
  };
}

/** Prefix of the labels of the trees above points' folders in their snapshots. */
const SPINE = "snapshot of ";
