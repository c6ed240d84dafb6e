import { toCairnError } from "../../errors.ts";
import { printablePath } from "../../fs/safe-path.ts";
import { newPacer } from "../../pacer.ts";
import { BlobIndex } from "../../repository/blob-index.ts";
import { NearPacks } from "../../repository/near-packs.ts";
import { OtherCopies } from "../../repository/other-copies.ts";
import { whileReading } from "../../repository/locks.ts";
import type { DamagedFile, ListedSnapshot, Repository } from "../../repository/repository.ts";
import type { PointToVerify, StoreProblem, StoreVerification, VerifyStoreRequest } from "../store-care.ts";
import type { CheckedPoint } from "../verify/checked-point.ts";
import { warmThreads } from "../threads.ts";
import { verifyContent, type VerifyContentResult } from "../verify/verify-content.ts";
import type { ContentProblem } from "../verify/problem-list.ts";
import { notePacks } from "./damaged-packs.ts";
import { EmbeddedStore } from "./embedded-store.ts";
import type { StorePaths } from "./store-paths.ts";

const LOCK_WAIT_MS = 10_000;
const MEND_INDEX = "run `cairn doctor --repair`: the index is written again from the packs";
const MEND_SNAPSHOT = "run `cairn doctor --repair`: the snapshot is written again, nothing is lost with it";

/**
 * Proves points, and with `everything` every pack and the snapshots of others too. Held under a shared lock, so that
 * no clean-up takes packs away meanwhile. Throws what keeps the store from being opened.
 */
export async function verifyStore(paths: StorePaths, request: VerifyStoreRequest): Promise<StoreVerification> {
  warmThreads("verify");
  const store = await EmbeddedStore.open(paths, request.signal);
  const { signal } = request;
  try {
    return await whileReading(store.repository, { waitMs: LOCK_WAIT_MS, signal }, async () => verify(store, request));
  } finally {
    store.close();
  }
}

async function verify(store: EmbeddedStore, request: VerifyStoreRequest): Promise<StoreVerification> {
  await store.refresh(request.signal);
  const damagedIndexes = await readIndexFiles(store.repository, request.signal);
  const { snapshots, damaged } = await store.repository.listSnapshots(request.signal);
  const others = request.everything ? foreignPoints(snapshots, request.points) : [];
  const content = await proveContent(store, request, [...request.points.map(checkedPoint), ...others]);
  notePacks(store.paths, content.damagedPacks, request.everything);
  const labels = new Set(others.map((other) => other.label));
  return {
    problems: [
      ...damagedIndexes.map(indexProblem),
      ...damagedSnapshots(damaged, request),
      ...content.problems.map((problem) => storeProblem(problem, labels)),
    ],
    more: content.more,
    verdicts: content.points.filter((verdict) => !labels.has(verdict.label)),
  };
}

/** Index files that are not what was written. A sound one says what the index made of it earlier says. */
async function readIndexFiles(repository: Repository, signal: AbortSignal | undefined): Promise<DamagedFile[]> {
  const pace = newPacer(signal);
  const damaged: DamagedFile[] = [];
  for (const { name } of await repository.storage.list("index")) {
    await pace();
    try {
      await repository.loadUnpacked("index", name);
    } catch (error) {
      const known = toCairnError(error);
      if (known.code !== "damaged") throw known;
      damaged.push({ name, error: known });
    }
  }
  return damaged;
}

/**
 * By the index at hand; what that finds wrong counts only when the index made anew from its files says the same, and no other
 * pack has what is damaged.
 */
async function proveContent(
  store: EmbeddedStore,
  request: VerifyStoreRequest,
  points: CheckedPoint[],
): Promise<VerifyContentResult> {
  const { deep, signal, onProgress, everything } = request;
  const options = {
    keys: store.repository.keys,
    packs: `${store.paths.repository}/data`,
    points,
    allPacks: everything,
    ...(deep === undefined ? {} : { deep }),
    ...(signal === undefined ? {} : { signal }),
    ...(onProgress === undefined ? {} : { onProgress }),
  };
  const prove = async (index: BlobIndex): Promise<VerifyContentResult> => verifyContent({ ...options, index });
  const result = await prove(store.index);
  if (result.problems.length === 0) return result;
  const fresh = await BlobIndex.load(store.repository, null, signal);
  const found = isSameIndex(fresh, store.index) ? result : await prove(fresh);
  return provenElsewhere(store, { index: fresh, found, prove, signal });
}

/** Where other packs have something of what could not be read, all is proven again with that. */
async function provenElsewhere(
  { repository, storage }: EmbeddedStore,
  by: {
    index: BlobIndex;
    found: VerifyContentResult;
    prove: (index: BlobIndex) => Promise<VerifyContentResult>;
    signal: AbortSignal | undefined;
  },
): Promise<VerifyContentResult> {
  const { index, prove, signal } = by;
  const damaged = new Set(by.found.damagedPacks);
  const copies = new OtherCopies({ repository, index, near: new NearPacks(storage, ""), signal });
  let result = by.found;
  try {
    // A tree that can be read now may lead to more.
    while ((await copies.seek(result.unproven)) > 0) {
      copies.settle();
      result = await prove(index);
      for (const pack of result.damagedPacks) damaged.add(pack);
    }
  } finally {
    copies.close();
  }
  const unnamed = [...damaged].filter((name) => !result.problems.some(({ detail }) => detail.includes(name)));
  return {
    ...result,
    problems: [...unnamed.map(readElsewhere), ...result.problems],
    damagedPacks: [...damaged].toSorted(),
  };
}

function readElsewhere(pack: string): ContentProblem {
  return {
    point: null,
    path: null,
    kind: "pack",
    detail: `pack ${pack} is damaged or missing; what is needed of it is sound in other packs`,
    hint: MEND_INDEX,
  };
}

function isSameIndex(a: BlobIndex, b: BlobIndex): boolean {
  const { table } = a;
  for (let entry = 0; entry < table.count; entry++) {
    const other = b.lookup(table.ids, entry * 32, table.typeOf(entry));
    if (other < 0) return false;
    const [x, y] = [a.place(entry), b.place(other)];
    if (x.offset !== y.offset || x.length !== y.length || x.uncompressedLength !== y.uncompressedLength) return false;
    if (Buffer.compare(x.pack, y.pack) !== 0) return false;
  }
  return a.count === b.count;
}

function checkedPoint(point: PointToVerify): CheckedPoint {
  const bytes = (hex: string | null): Uint8Array | null => (hex === null ? null : Buffer.from(hex, "hex"));
  const snapshotTree = point.content["snapshot_tree"];
  return {
    label: point.id,
    tree: Buffer.from(point.content.tree, "hex"),
    snapshotTree: typeof snapshotTree === "string" ? Buffer.from(snapshotTree, "hex") : null,
    stateDigest: bytes(point.stateDigest),
    metadataDigest: bytes(point.metadataDigest),
  };
}

/** Snapshots that belong to none of the points: another program's, or ones that lost their point. */
function foreignPoints(snapshots: readonly ListedSnapshot[], points: readonly PointToVerify[]): CheckedPoint[] {
  const known = new Set(points.flatMap(({ id, content }) => [`cairn:${id}`, content["snapshot"]]));
  return snapshots
    .filter(({ id, snapshot }) => !known.has(id) && snapshot.tags?.some((tag) => known.has(tag)) !== true)
    .map(({ id, snapshot }) => ({
      label: `snapshot ${id.slice(0, 8)}`,
      tree: Buffer.from(snapshot.tree, "hex"),
      snapshotTree: null,
      stateDigest: null,
      metadataDigest: null,
    }));
}

function indexProblem({ name, error }: DamagedFile): StoreProblem {
  return {
    point: null,
    path: null,
    kind: "index",
    detail: `index file ${name.slice(0, 12)}: ${error.message}`,
    hint: MEND_INDEX,
  };
}

/** Damaged snapshot files: of the points that are verified, or all. */
function damagedSnapshots(damaged: readonly DamagedFile[], request: VerifyStoreRequest): StoreProblem[] {
  const owners = new Map(request.points.map(({ id, content }) => [content["snapshot"], id]));
  return damaged.flatMap(({ name, error }): StoreProblem[] => {
    const point = owners.get(name) ?? null;
    if (point === null && !request.everything) return [];
    return [{ point, path: null, kind: "snapshot", detail: error.message, hint: MEND_SNAPSHOT }];
  });
}

function storeProblem(problem: ContentProblem, foreign: ReadonlySet<string>): StoreProblem {
  if (problem.point === null || !foreign.has(problem.point)) return problem;
  const where = problem.path === null ? "" : `/${printablePath(problem.path)}: `;
  return {
    ...problem,
    point: null,
    path: null,
    detail: `${problem.point}, which belongs to no save point: ${where}${problem.detail}`,
  };
}
