import fs from "node:fs";
import { hostname } from "node:os";
import { currentUser } from "../../fs/users.ts";
import { CairnError, throwIfAborted, toCairnError } from "../../errors.ts";
import { objectIdOf, type ObjectId } from "../../ids.ts";
import {
  checkStructure,
  type CheckedPacks,
  type CheckProblem,
  type CheckReport,
  type CheckRoot,
} from "../../repository/check.ts";
import { explain } from "../../repository/consequences.ts";
import { readIndexCache } from "../../repository/index-cache.ts";
import type { ReadTree } from "../../repository/live.ts";
import { lookAtLocks } from "../../repository/lock-state.ts";
import { removeDeadLocks, withLock } from "../../repository/locks.ts";
import { NearPacks } from "../../repository/near-packs.ts";
import { OtherCopies } from "../../repository/other-copies.ts";
import { removeSnapshots, removeUnindexedPacks } from "../../repository/remove.ts";
import type { DamagedFile, ListedSnapshot } from "../../repository/repository.ts";
import type { ExamineRequest, StoreFinding } from "../store-care.ts";
import { notedPacks } from "./damaged-packs.ts";
import type { EmbeddedStore } from "./embedded-store.ts";
import { dropDamagedPacks } from "./lost-content.ts";
import { pathToTree } from "./point-remains.ts";

const LOCK_WAIT_MS = 10_000;
const TAG = "cairn:";
/** Paths that are listed one by one of each point. */
const SHOWN_PATHS = 100;
const PROGRAM = "cairn doctor";

const MEND_INDEX =
  "the index is written again from the packs; readable content of damaged packs is kept, the rest counts as absent and is stored again when a save meets it";

/** What is wrong with an open store: index, packs, trees, snapshots, locks, caches. The content of packs is not read. */
export async function examineStore(store: EmbeddedStore, request: ExamineRequest): Promise<StoreFinding[]> {
  return new StoreExamination(store, request).run();
}

class StoreExamination {
  readonly #store: EmbeddedStore;
  readonly #request: ExamineRequest;
  readonly #findings: StoreFinding[] = [];
  #indexMended: Promise<void> | undefined;

  constructor(store: EmbeddedStore, request: ExamineRequest) {
    this.#store = store;
    this.#request = request;
  }

  async run(): Promise<StoreFinding[]> {
    const { repository } = this.#store;
    const { signal, points } = this.#request;
    const { snapshots, damaged } = await repository.listSnapshots(signal);
    const roots = points.flatMap(({ id, content }) => [
      { label: id, tree: Buffer.from(content.tree, "hex") },
      ...(typeof content["snapshot_tree"] === "string"
        ? [{ label: `${SPINE}${id}`, tree: Buffer.from(content["snapshot_tree"], "hex") }]
        : []),
    ]);
    const call = signal === undefined ? {} : { signal };
    const report = await this.#check(roots, call);
    throwIfAborted(signal);
    this.#index(report);
    this.#noted(report);
    this.#lost(report);
    this.#recorded();
    this.#snapshots(snapshots, damaged, report);
    await this.#locks();
    this.#cache();
    return this.#findings;
  }

  /** What can be read of other packs is not lost. */
  async #check(roots: readonly CheckRoot[], call: { signal?: AbortSignal }): Promise<CheckReport> {
    const { repository, onFoundCopy: onFound } = this.#store;
    const near = new NearPacks(repository.storage, "");
    let copies: OtherCopies | null = null;
    let readTree: ReadTree = (place) => this.tree(place);
    const onPacks = ({ index }: CheckedPacks): void => {
      copies = new OtherCopies({ repository, index, near, signal: call.signal, onFound });
      readTree = copies.reading((place) => this.tree(place));
    };
    try {
      const byNow: ReadTree = (place, next) => readTree(place, next);
      const report = await checkStructure(repository, { roots, readTree: byNow, onPacks, ...call });
      await explain(report, { readTree, elsewhere: await idsElsewhere(report, copies!), ...call });
      return report;
    } finally {
      (copies as OtherCopies | null)?.close();
    }
  }

  tree(place: Parameters<EmbeddedStore["reader"]["read"]>[0]): Uint8Array {
    try {
      return this.#store.reader.read(place);
    } catch (error) {
      const known = toCairnError(error);
      throw known.code === "not_found" ? new CairnError("damaged", "its pack is missing", { cause: error }) : known;
    }
  }

  #index(report: CheckReport): void {
    const mending = { repair: MEND_INDEX, mend: async (): Promise<void> => this.#mendIndex() };
    const unindexed: CheckProblem[] = [];
    for (const problem of report.problems) {
      const name = problem.object.slice(0, 12);
      if (problem.kind === "index_damaged") this.#damage("index", `index file ${name}: ${problem.detail}`, mending);
      else if (problem.kind === "pack_missing")
        this.#damage("pack", `pack ${name} is missing: ${problem.detail}`, mending);
      else if (problem.kind === "pack_size") this.#damage("pack", `pack ${name}: ${problem.detail}`, mending);
      else if (problem.kind === "pack_unindexed") unindexed.push(problem);
    }
    if (unindexed.length === 0) return;
    const needed = report.problems.some(
      ({ kind }) => kind === "index_damaged" || kind === "blob_missing" || kind === "tree_missing",
    );
    const count = `${unindexed.length} ${unindexed.length === 1 ? "pack is" : "packs are"} in no index`;
    if (needed) this.#damage("index", `${count}; what is missing may be in them`, mending);
    else {
      const mend = async (): Promise<void> => {
        const damaged: string[] = [];
        const onDamaged = (pack: string): void => void damaged.push(pack);
        if ((await removeUnindexedPacks(this.#store.repository, { waitMs: LOCK_WAIT_MS, onDamaged })) < 0)
          throw new CairnError("busy", "another process uses the store");
        // What stays may be the only sound copy.
        if (damaged.length > 0) await this.#mendIndex();
      };
      this.#findings.push({
        kind: "leftovers",
        severity: "info",
        detail: `${count}: a save that was killed left them`,
        repair: "they are removed",
        mend,
      });
    }
  }

  /** Packs that a verification, which reads them, a save's maintenance or whoever read of another pack found damaged. */
  #noted(report: CheckReport): void {
    const noted = new Set(notedPacks(this.#store.paths));
    // It is told already.
    for (const { kind, object } of report.problems) if (kind === "pack_size") noted.delete(object);
    for (const { name } of report.packs) {
      if (!noted.has(name)) continue;
      const mending = { repair: MEND_INDEX, mend: async (): Promise<void> => this.#mendIndex() };
      this.#damage("pack", `pack ${name.slice(0, 12)}: it was found damaged when it was read`, mending);
    }
  }

  #damage(
    kind: string,
    detail: string,
    mending: { repair?: string; mend?: () => Promise<void>; key?: string } = {},
  ): void {
    this.#findings.push({ kind, severity: "damage", detail, ...mending });
  }

  /** Paths of points that cannot be given back. */
  #lost(report: CheckReport): void {
    const byPoint = new Map<string, Map<string, string>>();
    for (const { consequences, detail, kind } of report.problems) {
      for (const { root, path } of consequences ?? []) {
        if (root.startsWith(SPINE)) continue;
        const paths = byPoint.get(root) ?? new Map<string, string>();
        byPoint.set(
          root,
          paths.set(
            Buffer.from(path).toString("utf8"),
            kind.startsWith("pack") ? "its pack is missing or cut" : detail,
          ),
        );
      }
    }
    const own = new Set(this.#request.points.map(({ id }) => id));
    // A damaged tree's pack is written anew; what a damaged index hides comes back with it.
    const mendable = report.problems.some(
      ({ kind }) => kind === "tree_damaged" || kind === "index_damaged" || kind === "pack_unindexed",
    );
    for (const [root, paths] of byPoint) {
      // Snapshots of points have the same content, and are not named twice.
      if (!own.has(root) && this.#isOwnSnapshot(root, report)) continue;
      const who = own.has(root) ? `save point ${root.slice(0, 8)}` : root;
      for (const [path, reason] of [...paths].slice(0, SHOWN_PATHS)) {
        const detail = `${who}: ${path === "" ? "its root" : path} cannot be given back: ${reason}`;
        const mending = mendable ? { repair: MEND_INDEX, mend: async (): Promise<void> => this.#mendIndex() } : {};
        this.#damage("content", detail, { key: `content ${root} ${path}`, ...mending });
      }
      if (paths.size > SHOWN_PATHS)
        this.#damage("content", `${who}: ${paths.size - SHOWN_PATHS} further paths cannot be given back`);
    }
  }

  #isOwnSnapshot(label: string, report: CheckReport): boolean {
    const root = report.roots.find((each) => each.label === label);
    const tree = root === undefined ? "" : Buffer.from(root.tree).toString("hex");
    return this.#request.points.some(({ content }) => content["snapshot_tree"] === tree);
  }

  /** Damage inside of packs, which only a full read sees. */
  #recorded(): void {
    const { recordedDamage } = this.#request;
    if (recordedDamage === 0) return;
    this.#damage(
      "content",
      `the last verification found damage in ${recordedDamage} save ${recordedDamage === 1 ? "point" : "points"}`,
      {
        key: "recorded",
        repair: `everything is read; ${MEND_INDEX}`,
        mend: async () => this.#mendIndex(),
      },
    );
  }

  /** Once, whatever it was asked for. */
  async #mendIndex(): Promise<void> {
    this.#indexMended ??= this.#runIndexRepair();
    return this.#indexMended;
  }

  async #runIndexRepair(): Promise<void> {
    const { signal, onProgress } = this.#request;
    await dropDamagedPacks(this.#store, { signal, onProgress, waitMs: LOCK_WAIT_MS });
  }

  #snapshots(snapshots: readonly ListedSnapshot[], damaged: readonly DamagedFile[], report: CheckReport): void {
    const { points, known, nameless } = this.#request;
    const tags = new Set(snapshots.flatMap(({ snapshot }) => snapshot.tags ?? []));
    const present = new Set<string>(snapshots.map(({ id }) => id));
    const broken = brokenRoots(report);
    const missing = points.filter(
      ({ id, content }) => !tags.has(`${TAG}${id}`) && !present.has(String(content["snapshot"])),
    );
    for (const point of missing) {
      const detail = `save point ${point.id.slice(0, 8)} has no snapshot, so restic does not list it`;
      if (broken.has(`${SPINE}${point.id}`))
        this.#findings.push({ kind: "snapshot", severity: "warning", detail: `${detail}; what it needs is not whole` });
      else
        this.#findings.push({
          kind: "snapshot",
          severity: "warning",
          detail,
          repair: "it is written again",
          mend: async () => this.#writeSnapshot(point),
        });
    }
    for (const { name, error } of damaged) {
      const mend = async (): Promise<void> =>
        void (await removeSnapshots(this.#store.repository, [name], { waitMs: LOCK_WAIT_MS }));
      this.#damage("snapshot", error.message, {
        repair: "it is removed; each save point that lost its snapshot gets a new one",
        mend,
      });
    }
    // It may be what is left of a point whose descriptor is damaged.
    if (nameless > 0) return;
    for (const { id, snapshot } of snapshots) {
      if (!(snapshot.tags ?? []).some((tag) => tag.startsWith(TAG) && !known(tag.slice(TAG.length)))) continue;
      const detail = `snapshot ${id.slice(0, 8)} of ${snapshot.time} belongs to a save point that is not there`;
      const mend = async (): Promise<void> =>
        void (await removeSnapshots(this.#store.repository, [id], { waitMs: LOCK_WAIT_MS }));
      this.#findings.push({ kind: "orphan-snapshot", severity: "info", detail, repair: "it is removed", mend });
    }
  }

  async #writeSnapshot(point: ExamineRequest["points"][number]): Promise<void> {
    const { repository, storage } = this.#store;
    const top = String(point.content["snapshot_tree"]);
    const path = pathToTree(this.#store, top, point.content.tree);
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

  async #locks(): Promise<void> {
    const { repository } = this.#store;
    const dead = (await lookAtLocks(repository)).dead.length;
    if (dead === 0) return;
    const mend = async (): Promise<void> => void (await removeDeadLocks(repository));
    this.#findings.push({
      kind: "lock",
      severity: "info",
      detail: `${dead} ${dead === 1 ? "lock" : "locks"} of ended processes; until they are gone restic waits for them`,
      repair: "they are removed",
      mend,
    });
  }

  #cache(): void {
    const { indexCache } = this.#store.paths;
    if (!fs.existsSync(indexCache) || readIndexCache(indexCache, this.#store.repository.id) !== null) return;
    const mend = async (): Promise<void> => fs.rmSync(indexCache, { force: true });
    this.#findings.push({
      kind: "cache",
      severity: "info",
      detail: "the cache of the store's index cannot be used; it is slower without",
      repair: "it is made again",
      mend,
    });
  }
}

const SPINE = "snapshot of ";

/** Ids of what is damaged or lost where the index has it, and sound in other packs. */
async function idsElsewhere({ index, lost }: CheckReport, copies: OtherCopies): Promise<Set<string>> {
  await copies.seek(lost);
  return new Set([...copies.found.keys()].map((entry) => objectIdOf(index.idOf(entry))));
}

/** Labels of roots from which something is missing. */
function brokenRoots(report: CheckReport): Set<string> {
  return new Set(report.problems.flatMap(({ consequences }) => (consequences ?? []).map(({ root }) => root)));
}
