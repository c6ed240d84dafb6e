import { join } from "node:path";
import type { CopyBackupsOptions, CopyBackupsResult, TransferredSize } from "../../contract/index.ts";
import { moveByThreads } from "../../repository/transfer/move-by-threads.ts";
import { CairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { plural } from "../../formats/sizes.ts";
import type { BlobIndex } from "../../repository/index/blob-index.ts";
import { EntrySet } from "../../repository/index/entry-set.ts";
import type { RepositoryLock } from "../../repository/locks.ts";
import { lostEntries } from "../../repository/read/near-packs.ts";
import type { ListedSnapshot } from "../../repository/repository.ts";
import { packSizes } from "../../repository/storage/storage.ts";
import { runTransfer } from "../../repository/transfer/transfer.ts";
import { planTransfer, type TransferPlan } from "../../repository/transfer/transfer-plan.ts";
import { addedBy, keepKnownTrees, readKnownTrees } from "../open/made-snapshot.ts";
import { callOf, type OpenRepository } from "../open/open-repository.ts";
import { adding, reading, type Session } from "../open/session.ts";
import { chosenSnapshots, warnOfUnreadable } from "../open/snapshots.ts";

/**
 * Copies snapshots of one repository into another: blobs are decrypted, compared with their ids and encrypted anew. A
 * copy is known by its origin and tags. Names each snapshot that lacks content and copies the others. Throws `damaged`
 * if every snapshot lacks content and none was copied before.
 * - Shared locks on both, then packs, with their index at the latest every 64 packs or 30 s.
 * - Each snapshot's file ●, oldest first. A kill anywhere leaves whole snapshots, and the next call continues.
 */
export async function copyBackups(
  from: OpenRepository,
  to: OpenRepository,
  options: CopyBackupsOptions,
): Promise<CopyBackupsResult> {
  const started = Date.now();
  if (from.repository.id === to.repository.id)
    throw new CairnError("usage", `${from.location} and ${to.location} are the same repository`);
  const call = callOf(options);
  return reading(from, call, async (source) =>
    adding(to, { ...call, listsAll: true }, async (target) => {
      const done = await copyBetween(source, target, options);
      return { ...to.info, dry_run: options.dryRun === true, ...done, duration_ms: Date.now() - started };
    }),
  );
}

async function copyBetween(
  source: Session,
  target: Session,
  options: CopyBackupsOptions,
): Promise<Pick<CopyBackupsResult, "copied" | "not_copied" | "present" | "added">> {
  const wanted = chosenSnapshots(source, options);
  warnOfUnreadable(source.access, source.damaged, options);
  const copies = byIdentity(target.snapshots);
  const missing = wanted.filter((listed) => !isCopied(listed, copies));
  const present = wanted.filter((listed) => isCopied(listed, copies));
  const { access: to } = target;
  const { index } = target;
  // A copy made earlier may have lost content since, and a repair may have taken it out of the index.
  const known = readKnownTrees(to.cache, index);
  const unproven = wanted.filter(({ snapshot }) => !known.has(snapshot.tree));
  const { added, lacking } = await bring(unproven, { source, target, index, options });
  const isWhole = ({ id }: ListedSnapshot): boolean => !lacking.has(id);
  const notStored = present.filter((listed) => !isWhole(listed));
  if (notStored.length > 0) {
    const names = notStored.slice(0, 20).map(({ id }) => id.slice(0, 8));
    options.onWarning?.(
      `${plural(notStored.length, "snapshot")} (${names.join(", ")}${notStored.length > names.length ? ", …" : ""}) are already in ${to.location}, but are damaged here: content that may be missing from the copies was not stored`,
    );
  }
  const whole = missing.filter(isWhole);
  const [first] = lacking.values();
  if (first !== undefined && whole.length + present.length === 0) throw first;
  const found = {
    not_copied: missing
      .filter((listed) => !isWhole(listed))
      .map(({ id }) => ({ snapshot_id: id, detail: lacking.get(id)!.message })),
    present: present.length,
    added,
  };
  if (options.dryRun === true) return { copied: whole.map(({ id }) => ({ snapshot_id: id, new_id: null })), ...found };
  const copied = await saveCopies(to, whole, { lock: target.lock!, signal: options.signal });
  for (const { snapshot } of wanted) known.delete(snapshot.tree);
  const proven = wanted.filter(isWhole).map(({ snapshot }) => snapshot.tree);
  keepKnownTrees(to.cache, index, [...proven.toReversed(), ...known]);
  return { copied, ...found };
}

interface Bringing {
  source: Session;
  target: Session;
  index: BlobIndex;
  options: CopyBackupsOptions;
}

interface Brought {
  added: TransferredSize;
  /** Damage of snapshots that lack something, by their ids. */
  lacking: ReadonlyMap<string, CairnError>;
}

/** Copies the content of all snapshots at once; if some of it is lost or damaged, snapshot by snapshot. A dry run only plans. */
async function bring(snapshots: readonly ListedSnapshot[], of: Bringing): Promise<Brought> {
  const { source, options } = of;
  try {
    // The transfer finds lost content when it reads it. A dry run reads no content, so it asks the index.
    if (options.dryRun !== true) return { added: await move(await plan(snapshots, of), of), lacking: new Map() };
  } catch (error) {
    if (!isDamaged(error)) throw error;
  }
  const isLost = lostEntries(source.index, await packSizes(source.access.storage));
  const lacking = new Map<string, CairnError>();
  const added: TransferredSize = { data_blobs: 0, tree_blobs: 0, bytes: 0, stored_bytes: 0, packs: 0 };
  let seen = new EntrySet(source.index.count);
  for (const listed of snapshots)
    try {
      const next = { isLost, seen: seen.copy() };
      const planned = await plan([listed], of, next);
      const more = options.dryRun === true ? addedBy(planned, null) : await move(planned, of);
      for (const key of Object.keys(added) as (keyof TransferredSize)[]) added[key] += more[key];
      ({ seen } = next);
    } catch (error) {
      if (!isDamaged(error)) throw error;
      lacking.set(listed.id, error);
    }
  return { added, lacking };
}

async function plan(
  snapshots: readonly ListedSnapshot[],
  { source, index, options }: Bringing,
  careful?: { isLost: (entry: number) => boolean; seen: EntrySet },
): Promise<TransferPlan> {
  return planTransfer(source.index, index, {
    roots: snapshots.map(({ snapshot }) => Buffer.from(snapshot.tree, "hex")),
    readTree: source.reader.viewTree,
    ...careful,
    signal: options.signal,
    onTree: (done) => options.onProgress?.({ phase: "planning", done }),
  });
}

async function move(planned: TransferPlan, { source, target, index, options }: Bringing): Promise<TransferredSize> {
  const { repository } = target.access;
  const sides = [
    { repository: source.access.repository, index: source.index },
    { repository, index },
  ] as const;
  const transfer = await runTransfer(...sides, planned, {
    directory: join(target.access.workDirectory(), "packs"),
    near: source.near,
    move: moveByThreads,
    uploads: { stillHeld: async () => target.lock!.recheck() },
    onDamagedPack: source.onDamagedPack,
    signal: options.signal,
    onProgress: ({ total, totalBytes, arrived: { blobs: done, bytes } }) =>
      options.onProgress?.({
        phase: "uploading",
        done,
        total,
        bytes: Math.min(bytes, totalBytes),
        total_bytes: totalBytes,
      }),
  });
  return addedBy(planned, transfer);
}

function isDamaged(error: unknown): error is CairnError {
  return error instanceof CairnError && error.code === "damaged";
}

/**
 * Least milliseconds between two checks for other locks: a check takes as long as writing a snapshot's file. A process
 * that was suspended for longer checks again.
 */
const LOOK_EVERY_MS = 1000;

/** Writes the snapshots' own files, once all that they need is there. */
async function saveCopies(
  { repository }: OpenRepository,
  missing: readonly ListedSnapshot[],
  { lock, signal }: { lock: RepositoryLock; signal: AbortSignal | undefined },
): Promise<CopyBackupsResult["copied"]> {
  const copied: CopyBackupsResult["copied"] = [];
  let lookedAt = Number.NEGATIVE_INFINITY;
  for (const { id, snapshot } of missing) {
    if (performance.now() - lookedAt > LOOK_EVERY_MS) {
      await lock.recheck();
      lookedAt = performance.now();
    }
    // In the target the parent has another id, or does not exist.
    const { parent: _parent, ...rest } = snapshot;
    if (signal?.aborted === true)
      throw new CairnError("interrupted", `stopped by the caller; ${plural(copied.length, "snapshot")} copied`, {
        cause: signal.reason,
      });
    const newId = await repository.saveSnapshot({ ...rest, original: snapshot.original ?? id });
    copied.push({ snapshot_id: id, new_id: newId });
    failpoint("copy.snapshot-written");
  }
  return copied;
}

function byIdentity(snapshots: readonly ListedSnapshot[]): Map<string, ListedSnapshot[]> {
  const copies = new Map<string, ListedSnapshot[]>();
  for (const listed of snapshots)
    for (const key of identities(listed)) copies.set(key, [...(copies.get(key) ?? []), listed]);
  return copies;
}

/** True if one of the copies has all tags of `listed`. */
function isCopied(listed: ListedSnapshot, copies: ReadonlyMap<string, readonly ListedSnapshot[]>): boolean {
  const tags = listed.snapshot.tags ?? [];
  return identities(listed).some((key) =>
    copies.get(key)?.some(({ snapshot }) => tags.every((tag) => snapshot.tags?.includes(tag) === true)),
  );
}

/** Keys that two copies of one snapshot share: the id of the origin with the tree. */
function identities({ id, snapshot }: ListedSnapshot): string[] {
  const origins = snapshot.original === undefined ? [id] : [id, snapshot.original];
  return origins.map((origin) => `${origin} ${snapshot.tree}`);
}
