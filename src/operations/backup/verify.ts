import { append } from "../../append.ts";
import { warmThreads } from "../../engines/threads.ts";
import { provenPointDigests, type DigestFinding, type ProvenDigests } from "./verify-digests.ts";
import { verifyPacks, type VerifiedPacks } from "./verify-packs.ts";
import { CairnError } from "../../errors.ts";
import { displayPath } from "../../fs/safe-path.ts";
import { objectIdOf } from "../../ids.ts";
import {
  checkStructure,
  type CheckedPacks,
  type CheckedRoots,
  type CheckProblem,
  type CheckReport,
} from "../../repository/check.ts";
import { DATA_BLOB, TREE_BLOB } from "../../repository/blob-index.ts";
import { explain } from "../../repository/consequences.ts";
import type { ReadTree } from "../../repository/live.ts";
import { NearReader } from "../../repository/near-reader.ts";
import { OtherCopies } from "../../repository/other-copies.ts";
import { packSizes, type StoredFile } from "../../repository/storage/storage.ts";
import type { BackupProblem, VerifyBackupOptions, VerifyBackupResult } from "../contract.ts";
import { chosenSnapshots } from "./list.ts";
import { checkByRestoring } from "./restore-check.ts";
import type { RepositoryAccess } from "./repository-access.ts";

/**
 * Reads a repository and names everything that is not what was written, with the snapshots and paths that it costs.
 * Under a shared lock where this user may write one, so that nothing is moved meanwhile. Changes nothing else.
 */
export async function verifyBackup(
  access: RepositoryAccess,
  options: VerifyBackupOptions,
): Promise<VerifyBackupResult> {
  const { subset, quick, snapshots } = options;
  if (subset !== undefined && !(subset.part >= 1 && subset.part <= subset.of && Number.isSafeInteger(subset.of)))
    throw new CairnError("usage", `part ${subset.part} of ${subset.of} is none`);
  if (quick === true && subset !== undefined)
    throw new CairnError("usage", "a quick verification reads no packs, so there is no part of them");
  const started = Date.now();
  if (quick !== true) warmThreads("verify");
  const verified = await access.reading(options, async () => {
    const chosen = snapshots === undefined ? undefined : await chosenIds(access, options);
    const found = await readRepository(access, options, chosen);
    const { report, digests, read } = found;
    const problems = relevant(found, chosen).map(publicProblem);
    const costly = new Set(problems.flatMap(({ losses }) => losses.map((loss) => loss.snapshot_id)));
    return {
      ...access.info,
      checked: {
        snapshots: report.snapshots,
        trees: report.trees,
        packs: read.packs,
        blobs: read.blobs,
        bytes: read.bytes,
        digests: digests.filter(({ kind, snapshot }) => kind === "proven" && !costly.has(snapshot)).length,
      },
      read_data: quick !== true,
      problems: [...problems, ...digestProblems(digests, costly)],
    };
  });
  const { restored, problems } =
    options.restoreCheck === true ? await access.asStored(async () => checkByRestoring(access, options)) : NOTHING;
  const all = [...verified.problems, ...problems];
  return { ...verified, restored, problems: all, duration_ms: Date.now() - started };
}

const NOTHING = { restored: [], problems: [] };

interface ReadRepository {
  report: CheckReport;
  digests: DigestFinding[];
  read: VerifiedPacks;
  /** Packs that the chosen snapshots need; null where all count. */
  needed: ReadonlySet<string> | null;
  /** Ids of blobs that are damaged in one pack and sound in another. */
  elsewhere: ReadonlySet<string>;
}

/** Packs of this machine are read by the threads while this one walks the trees; others come after the trees' own. */
async function readRepository(
  access: RepositoryAccess,
  options: VerifyBackupOptions,
  chosen: ReadonlySet<string> | undefined,
): Promise<ReadRepository> {
  const { subset, quick, signal } = options;
  const near = access.near();
  // Also what no index lists; and on a storage that is not local how much of a pack of trees is brought at once.
  const sizes = await packSizes(access.storage);
  const stop = new AbortController();
  const all = { ...options, signal: signal === undefined ? stop.signal : AbortSignal.any([signal, stop.signal]) };
  let reading: Promise<VerifiedPacks> | null = null;
  let by: { reader: NearReader; copies: OtherCopies } | null = null;
  const begin = (checked: CheckedPacks): void => {
    const copies = new OtherCopies({ repository: access.repository, index: checked.index, near, signal });
    by = { copies, reader: new NearReader({ repository: access.repository, near, ends: sizes, copies, signal }) };
    if (quick === true || chosen !== undefined || !near.isLocal) return;
    reading = verifyPacks({ access, report: checked, near, packs: partOf(checked.packs, subset), options: all });
    reading.catch(() => undefined);
  };
  try {
    let proven: ProvenDigests | null = null;
    const prove = async (report: CheckedRoots): Promise<ProvenDigests> =>
      (proven = await provenPointDigests({ access, report, near, reader: by!.reader, options }));
    // The same walk serves both where every tree is here.
    const isAllNear = near.isLocal && quick !== true;
    const follow = isAllNear ? async (found: CheckedRoots) => (await prove(found)).followed : undefined;
    const viewTree: ReadTree = (place, next) => by!.reader.viewTree(place, next);
    const structure = { readTree: viewTree, snapshots: chosen, signal, onPacks: begin, follow };
    const report = await access.asStored(async () => checkStructure(access.repository, structure));
    const { copies, reader } = by!;
    const needed = chosen === undefined ? null : neededPacks(report);
    const proveAgain = async (): Promise<void> => {
      // Also what could not be told may be for want of a tree.
      const isOpen = proven?.findings.some(({ kind }) => kind !== "proven") === true;
      if (copies.settle() && isOpen) await prove(report);
    };
    // Elsewhere while what the walk has brought of trees is still here.
    if (!near.isLocal) {
      copies.settle();
      if (quick !== true) await prove(report);
      await proveAgain();
    }
    const packs = quick === true ? [] : choosePacks(report, needed, subset);
    const read = await (reading ?? verifyPacks({ access, report, near, packs, options }));
    append(report.problems, read.problems);
    const elsewhere = await soundElsewhere(report, copies);
    // Its threads are done with the index.
    if (near.isLocal) await proveAgain();
    await explain(report, { readTree: reader.readTree, elsewhere, ...(signal === undefined ? {} : { signal }) });
    const digests = (proven as ProvenDigests | null)?.findings ?? [];
    return { report, digests, read, needed, elsewhere };
  } finally {
    stop.abort();
    await (reading as Promise<VerifiedPacks> | null)?.catch(() => undefined);
    (by as { reader: NearReader } | null)?.reader.close();
  }
}

/** Ids of what is damaged or lost in one pack and sound in another, which the problems say of it. */
async function soundElsewhere(report: CheckReport, copies: OtherCopies): Promise<Set<string>> {
  const { index, lost, problems } = report;
  const idOf = (entry: number): string => objectIdOf(index.idOf(entry));
  const damaged = problems.filter(({ kind }) => kind === "blob_damaged" || kind === "tree_damaged");
  const entries = damaged.flatMap(({ object }) => {
    const id = Buffer.from(object, "hex");
    return [DATA_BLOB, TREE_BLOB].map((type) => index.lookup(id, 0, type)).filter((entry) => entry >= 0);
  });
  if (entries.length + lost.size > 0) await copies.seek([...entries, ...lost]);
  const elsewhere = new Set<string>();
  const said = new Set(damaged.map(({ object }) => object));
  for (const { entry, error } of copies.found.values()) {
    const object = idOf(entry);
    elsewhere.add(object);
    if (said.has(object) || lost.has(entry)) continue;
    const kind = index.table.typeOf(entry) === TREE_BLOB ? "tree_damaged" : "blob_damaged";
    problems.push({ kind, object, detail: error.message, severity: "damage" });
  }
  const packs = new Map([...copies.found.values()].map(({ entry, soundPack }) => [idOf(entry), soundPack]));
  for (const [at, problem] of problems.entries()) {
    const pack = packs.get(problem.object);
    if (pack === undefined) continue;
    problems[at] = { ...problem, detail: `${problem.detail}; the copy in pack ${pack.slice(0, 12)} is sound` };
  }
  return elsewhere;
}

async function chosenIds(access: RepositoryAccess, options: VerifyBackupOptions): Promise<Set<string>> {
  const listing = await access.asStored(async () => access.repository.listSnapshots(options.signal));
  return new Set(chosenSnapshots(listing, options).map(({ id }) => id));
}

/** Packs to be read: all, or those that the chosen snapshots need, and of them the part that was asked for. */
function choosePacks(
  report: CheckReport,
  needed: ReadonlySet<string> | null,
  subset: VerifyBackupOptions["subset"],
): StoredFile[] {
  if (needed === null) return partOf(report.packs, subset);
  return partOf(
    report.packs.filter(({ name }) => needed.has(name)),
    subset,
  );
}

/** A part depends on nothing but the packs' names. */
function partOf(packs: StoredFile[], subset: VerifyBackupOptions["subset"]): StoredFile[] {
  if (subset === undefined) return packs;
  return packs.filter(({ name }) => Number.parseInt(name.slice(0, 8), 16) % subset.of === subset.part - 1);
}

function neededPacks({ index, live }: CheckReport): Set<string> {
  const { table } = index;
  const needed = new Uint8Array(table.packCount);
  for (let entry = 0; entry < table.count; entry++) if (live.has(entry)) needed[table.packOf[entry]!] = 1;
  const names = new Set<string>();
  for (let pack = 0; pack < table.packCount; pack++)
    if (needed[pack] === 1) names.add(Buffer.from(table.packId(pack)).toString("hex"));
  return names;
}

/** Of chosen snapshots only what concerns them, and what may concern anything. */
function relevant(
  { report, needed, elsewhere }: ReadRepository,
  chosen: ReadonlySet<string> | undefined,
): CheckProblem[] {
  if (chosen === undefined || needed === null) return report.problems;
  return report.problems.filter(
    ({ kind, object, consequences }) =>
      (consequences?.length ?? 0) > 0 ||
      kind === "key_damaged" ||
      kind === "index_damaged" ||
      needed.has(object) ||
      elsewhere.has(object) ||
      chosen.has(object),
  );
}

function publicProblem({ kind, object, detail, severity, consequences }: CheckProblem): BackupProblem {
  const losses = (consequences ?? []).map(({ root, path }) => ({
    snapshot_id: root.replace(/^snapshot /, ""),
    ...displayPath(path),
  }));
  return { kind, object, detail, severity, losses };
}

/** What cannot be read is a problem of its own only where nothing else says what that costs the snapshot. */
function digestProblems(findings: readonly DigestFinding[], costly: ReadonlySet<string>): BackupProblem[] {
  return findings
    .filter(({ kind, snapshot }) => kind === "wrong" || (kind !== "proven" && !costly.has(snapshot)))
    .map(({ kind, snapshot, detail }) => ({
      kind: kind === "wrong" ? "digest_wrong" : "digest_unverified",
      object: snapshot,
      detail: kind === "wrong" ? detail : `its state digest was not verified: ${detail}`,
      severity: kind === "unknown" ? "note" : "damage",
      losses: kind === "unknown" ? [] : [{ snapshot_id: snapshot, path: "" }],
    }));
}
