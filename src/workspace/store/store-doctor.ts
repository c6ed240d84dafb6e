import fs from "node:fs";
import { throwIfAborted } from "../../errors.ts";
import type { Structure } from "../../repository/verify/structure.ts";
import { readIndexCache } from "../../repository/index/index-cache.ts";
import { lookAtLocks } from "../../repository/lock-state.ts";
import { removeDeadLocks, withLock } from "../../repository/locks.ts";
import { removeSnapshots } from "../../repository/care/remove.ts";
import { removeUnindexedPacks } from "../../repository/care/unindexed-packs.ts";
import type { ExamineRequest, PointToVerify, StoreFinding } from "./store-care.ts";
import type { EmbeddedStore } from "./embedded-store.ts";
import { dropDamagedPacks } from "./lost-content.ts";
import { snapshotAgain } from "./point-remains.ts";
import { type ExaminedStore, examineStore } from "./verify-store.ts";

const LOCK_WAIT_MS = 10_000;
const TAG = "cairn:";
/** Key of the finding that the last verification found damage. Dropped after doctor has verified the points again. */
export const RECORDED = "recorded";
/** Most lost paths of a point that get a finding of their own. */
const SHOWN_PATHS = 100;
const PROGRAM = "cairn doctor";

const MEND_INDEX =
  "the index is rebuilt from the packs, with all readable blobs of damaged packs. Lost blobs are stored again when a save meets the same content";

/** Facts of the points, besides their content, that decide about snapshots without a point. */
export interface DoctorRequest extends Omit<ExamineRequest, "everything" | "reads" | "points"> {
  /** every point of every workspace whose descriptor can be read */
  points: readonly (PointToVerify & { createdAt: string })[];
  /** true if a point, a damaged point or an unfinished save has this id; called after the store was listed */
  known(id: string): boolean;
  /** number of points with an unreadable descriptor and a lost id: snapshots may belong to them */
  nameless: number;
  /** points that the last verification found damaged, with the damaged paths; "" if it names no path */
  recordedDamage: readonly { id: string; paths: readonly string[] }[];
}

/** The repair that rewrites the index; done once, for any number of findings that ask for it. */
type Mending = Required<Pick<StoreFinding, "repair" | "mend">>;

/** Returns findings about an open store: index, packs, trees, snapshots, locks, caches. Reads no pack's content except trees. */
export async function doctorStore(store: EmbeddedStore, request: DoctorRequest): Promise<StoreFinding[]> {
  const { signal, onProgress } = request;
  const examined = await examineStore(store, { ...request, everything: true, reads: false });
  throwIfAborted(signal);
  let mended: Promise<unknown> | undefined;
  const mend = async (): Promise<unknown> =>
    (mended ??= dropDamagedPacks(store, { signal, onProgress, waitMs: LOCK_WAIT_MS }));
  const mending = { repair: MEND_INDEX, mend };
  return [
    ...withRepairs(store, examined, mending),
    ...packFindings(store, examined.structure, mending),
    ...recordedFindings(store, request, { findings: examined.findings, mending }),
    ...snapshotFindings(store, request, examined),
    ...(await lockFindings(store.repository)),
    ...cacheFindings(store),
  ];
}

/** Adds the repairs, and names at most 100 lost paths of each point. */
function* withRepairs(
  { repository }: EmbeddedStore,
  { findings, more, structure: { problems, listing } }: ExaminedStore,
  mending: Mending,
): Iterable<StoreFinding> {
  // The repair rewrites the packs of damaged trees, and finds content again that a damaged index hides.
  const isMendable = problems.some(({ kind }) => ["tree_damaged", "index_damaged", "pack_unindexed"].includes(kind));
  const paths = Map.groupBy(
    findings.filter(({ kind }) => kind === "tree" || kind === "content"),
    ({ point }) => point,
  );
  for (const finding of findings) {
    const { kind, point, detail } = finding;
    const file = listing.damaged.find(({ error }) => error.message === detail);
    if (kind === "index" || kind === "pack") yield { ...finding, ...mending };
    else if (file !== undefined)
      yield {
        ...finding,
        repair: "the snapshot is removed; each save point without a snapshot gets a new one",
        mend: async () => removeSnapshots(repository, [file.name], { waitMs: LOCK_WAIT_MS }),
      };
    else if (kind === "snapshot" && !paths.has(point)) yield { ...finding, ...(isMendable ? mending : {}) };
  }
  let left = more;
  for (const lost of paths.values()) {
    left += Math.max(0, lost.length - SHOWN_PATHS);
    for (const each of lost.slice(0, SHOWN_PATHS)) yield { ...each, kind: "content", ...(isMendable ? mending : {}) };
  }
  if (left > 0) yield { kind: "content", severity: "damage", detail: `${left} further paths cannot be restored` };
}

/** Packs that are in no index, or were damaged when read. */
function* packFindings(store: EmbeddedStore, { problems, packs }: Structure, mending: Mending): Iterable<StoreFinding> {
  const damage = (kind: string, detail: string): StoreFinding => ({ kind, severity: "damage", detail, ...mending });
  const unindexed = problems.filter(({ kind }) => kind === "pack_unindexed").length;
  if (unindexed > 0) {
    const count = `${unindexed} ${unindexed === 1 ? "pack is" : "packs are"} in no index`;
    const isNeeded = problems.some(({ kind }) => ["index_damaged", "blob_missing", "tree_missing"].includes(kind));
    if (isNeeded) yield damage("index", `${count}; they may have the missing blobs`);
    else
      yield {
        kind: "leftovers",
        severity: "info",
        detail: `${count}: a killed save left them`,
        repair: "they are removed",
        mend: async () => {
          const { damagedPacks } = await removeUnindexedPacks(store.repository, { waitMs: LOCK_WAIT_MS });
          // A damaged pack that stays may have the only sound copy of a blob.
          if (damagedPacks.length > 0) await mending.mend();
        },
      };
  }
  const noted = store.repository.damaged.names();
  const named = new Set(problems.flatMap(({ kind, object }) => (kind === "pack_size" ? [object] : [])));
  for (const { name } of packs)
    if (noted.has(name) && !named.has(name))
      yield damage(
        "pack",
        `pack ${name.slice(0, 12)}: a read found it damaged; \`cairn verify --all\` names the affected files`,
      );
}

/** Damage that only a full read finds, without paths that are reported as lost. Without a damaged pack there is no repair. */
function* recordedFindings(
  { repository }: EmbeddedStore,
  { recordedDamage }: DoctorRequest,
  { findings, mending }: { findings: readonly StoreFinding[]; mending: Mending },
): Iterable<StoreFinding> {
  const lost = new Set(findings.map(({ point, path }) => `${point} ${path && Buffer.from(path).toString("utf8")}`));
  const count = recordedDamage.filter((each) => each.paths.some((path) => !lost.has(`${each.id} ${path}`))).length;
  if (count === 0) return;
  const detail = `the last verification found damage in ${count} save ${count === 1 ? "point" : "points"}`;
  const finding = { kind: "content", severity: "damage", key: RECORDED } as const;
  if (repository.damaged.names().size > 0)
    yield { ...finding, detail, ...mending, repair: `the whole store is read; ${MEND_INDEX}` };
  else yield { ...finding, detail: `${detail}; \`cairn verify --all\` lists it` };
}

/** Points without a snapshot, and snapshots without a point. */
function* snapshotFindings(
  store: EmbeddedStore,
  { points, known, nameless }: DoctorRequest,
  { findings, structure: { listing } }: ExaminedStore,
): Iterable<StoreFinding> {
  const { snapshots } = listing;
  const tags = new Set(snapshots.flatMap(({ snapshot }) => snapshot.tags ?? []));
  const present = new Set<string>(snapshots.map(({ id }) => id));
  const files = new Set(listing.damaged.map(({ error }) => error.message));
  const broken = new Set(findings.flatMap(({ point, detail }) => (files.has(detail) ? [] : point)));
  for (const point of points) {
    const { id, content } = point;
    if (tags.has(`${TAG}${id}`) || present.has(String(content["snapshot"]))) continue;
    const detail = `save point ${id.slice(0, 8)} has no snapshot, so restic does not list it`;
    const severity = "warning";
    if (broken.has(id))
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
      mend: async () => removeSnapshots(store.repository, [id], { waitMs: LOCK_WAIT_MS }),
    };
  }
}

async function writeSnapshot(store: EmbeddedStore, point: DoctorRequest["points"][number]): Promise<void> {
  const { repository, storage } = store;
  const snapshot = snapshotAgain(store, point);
  await withLock(repository, { exclusive: false, waitMs: LOCK_WAIT_MS }, async () => {
    await repository.saveSnapshot({ ...snapshot, time: point.createdAt, program_version: PROGRAM }, { durable: false });
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
