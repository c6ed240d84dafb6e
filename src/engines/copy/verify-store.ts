import { CairnError } from "../../errors.ts";
import { BlobIndex } from "../../repository/blob-index.ts";
import { acquireLock, type RepositoryLock } from "../../repository/locks.ts";
import type { DamagedFile, ListedSnapshot, Repository } from "../../repository/repository.ts";
import type { PointToVerify, StoreProblem, StoreVerification, VerifyStoreRequest } from "../store-care.ts";
import type { CheckedPoint } from "../verify/checked-point.ts";
import { verifyContent } from "../verify/verify-content.ts";
import type { ContentProblem } from "../verify/problem-list.ts";
import { notePacks } from "./damaged-packs.ts";
import { EmbeddedStore, type StorePaths } from "./embedded-store.ts";

const LOCK_WAIT_MS = 10_000;
const MEND_INDEX = "run 'cairn doctor --repair': the index is written again from the packs";
const MEND_SNAPSHOT = "run 'cairn doctor --repair': the snapshot is written again, nothing is lost with it";

/**
 * Proves points, and with `everything` every pack and the snapshots of others too. Trusts no cache. Held under a
 * shared lock, so that no clean-up takes packs away meanwhile. Throws what keeps the store from being opened.
 */
export async function verifyStore(paths: StorePaths, request: VerifyStoreRequest): Promise<StoreVerification> {
  const store = await EmbeddedStore.open(paths);
  let lock: RepositoryLock | null = null;
  try {
    lock = await sharedLock(store.repository, request.signal);
    const index = await BlobIndex.load(store.repository, null);
    const { snapshots, damaged } = await store.repository.listSnapshots();
    const others = request.everything ? foreignPoints(snapshots, request.points) : [];
    const content = await verifyContent({
      keys: store.repository.keys,
      index,
      packs: `${paths.repository}/data`,
      points: [...request.points.map(checkedPoint), ...others],
      allPacks: request.everything,
      ...(request.deep === undefined ? {} : { deep: request.deep }),
      ...(request.signal === undefined ? {} : { signal: request.signal }),
      ...(request.onProgress === undefined ? {} : { onProgress: request.onProgress }),
    });
    notePacks(paths, content.damagedPacks, request.everything);
    const labels = new Set(others.map((other) => other.label));
    return {
      problems: [
        ...index.damaged.map(indexProblem),
        ...damagedSnapshots(damaged, request),
        ...content.problems.map((problem) => storeProblem(problem, labels)),
      ],
      more: content.more,
      verdicts: content.points.filter((verdict) => !labels.has(verdict.label)),
    };
  } finally {
    await lock?.release();
    store.close();
  }
}

/** Null where this process may not write: then it can only be hoped that nobody cleans up. */
async function sharedLock(repository: Repository, signal: AbortSignal | undefined): Promise<RepositoryLock | null> {
  try {
    return await acquireLock(repository, {
      exclusive: false,
      waitMs: LOCK_WAIT_MS,
      ...(signal === undefined ? {} : { signal }),
    });
  } catch (error) {
    if (error instanceof CairnError && error.code === "permission") return null;
    throw error;
  }
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
  const where = problem.path === null ? "" : `/${Buffer.from(problem.path).toString("utf8")}: `;
  return {
    ...problem,
    point: null,
    path: null,
    detail: `${problem.point}, which belongs to no save point: ${where}${problem.detail}`,
  };
}
