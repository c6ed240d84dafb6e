import { resolve } from "node:path";
import { append } from "../../append.ts";
import type {
  LeftOut,
  ProofSource,
  RestoreBackupOptions,
  RestoreBackupResult,
  RestoreProof,
} from "../../contract/index.ts";
import { failpoint } from "../../failpoint.ts";
import { flushing } from "../../fs/linux/flush.ts";
import { type NewFolder, requireFree } from "../../workspace/new-folder/new-folder.ts";
import { realPathOf } from "../../workspace/place/find-workspace.ts";
import { checkLocation } from "../../workspace/place/guards.ts";
import { requireRoom } from "../../workspace/place/room.ts";
import { publicLeftOut } from "../../workspace/points/left-out.ts";
import { snapshotContent, withoutOthersDigests } from "../open/content.ts";
import type { OpenRepository } from "../open/open-repository.ts";
import { requireOutside } from "../open/own-folder.ts";
import { readChecks } from "../open/checks.ts";
import { chosenPaths, contentOf } from "../open/paths.ts";
import { reading } from "../open/session.ts";
import { chosenSnapshot, pointOf, restoredSnapshot } from "../open/snapshots.ts";
import {
  type Ask,
  checkProof,
  checkReceiptOf,
  isComparedByEntry,
  isToBeProven,
  type Proven,
  proveNewFolder,
  type ReadBack,
  signed,
  warnUnproven,
} from "./prove.ts";
import { GIVE_OVERWRITE, hasEntries, noSuchPlan, type OverFolder, planOver, type ShownOver } from "./over-target.ts";
import { beginRestore, bytesIn, restoredContent, setRoot, settleEarlier, settleOthers } from "./unfinished-restore.ts";
import { SnapshotWriter, type WriterParts, type Written } from "./write-snapshot.ts";

/**
 * Writes a snapshot into an absent or empty folder and reads it again; with `overwrite` over a folder with entries.
 * Far packs are fetched into a {@link FetchArea}, and files written as their content comes; if no digest will be
 * compared, each piece is compared with its id.
 * - The restore is recorded in the user's state directory, and a folder beside the target is filled.
 * - All is flushed; for a proof it is read again and its state digest compared.
 * - The folder gets the target's name ● (at the root of a mount its entries move in); the receipt is signed and kept.
 * - A kill before ● leaves a folder that the next restore of the same snapshot continues and any other removes; a kill
 * after ● leaves a folder without a receipt.
 * - If the target has entries, the folder that is filled lies inside the target. Each new entry is renamed over the old
 * one ●, the files of a database together, then the folder is removed. A kill leaves each entry old or new.
 */
export async function restoreBackup(
  access: OpenRepository,
  asked: { snapshot: string; to: string; asStored?: boolean; ask?: Ask },
  options: RestoreBackupOptions,
): Promise<RestoreBackupResult> {
  const started = Date.now();
  const target = realPathOf(resolve(asked.to));
  requireOutside(access, target);
  checkProof(options, target);
  const left = settleEarlier(target, options.onWarning);
  const isOver = options.overwrite !== undefined && hasEntries(target, left);
  if (!isOver) requireFree(target, left, GIVE_OVERWRITE);
  if (!isOver && options.plan !== undefined) throw noSuchPlan();
  checkLocation(target, { allow: ["home", "nested", "git"] });
  const area = options.dryRun === true ? undefined : asked.asStored === true ? "own" : "shared";
  return reading(access, { ...options, area }, async (session) => {
    const { reader } = session;
    const listed = chosenSnapshot(session, asked.snapshot, options);
    const whole = await snapshotContent(reader, listed.snapshot);
    const as = await contentOf(reader, { listed, content: whole }, options.subfolder);
    const { paths } = await chosenPaths(reader, as, { ...options, savedPaths: listed.snapshot.paths });
    const isWhole = as === whole && paths === null;
    const content = isWhole ? await withoutOthersDigests(session, { listed, content: as }, options) : as;
    checkReceiptOf(options, { listed, content, isWhole });
    const isProven = isToBeProven(options, isWhole && !isOver);
    const recorded = paths === null && !isOver ? (content.manifest?.stateDigest ?? null) : null;
    // A sealed piece almost never has the wrong content, and a digest of the whole would show it.
    const comparesPieces = !isProven || recorded === null;
    const { ask } = asked;
    const warn = ask === undefined ? (message: string) => options.onWarning?.(message) : undefined;
    const checks = isWhole && isProven ? await readChecks(reader, listed, warn) : null;
    const parts = { access, session, listed, content, paths, chosen: paths, options, target, checks, ask };
    const over = isOver ? await planOver(parts) : null;
    const toWrite = over === null ? paths : over.paths;
    const more = { over: over?.folder ?? null, shown: over?.shown, paths: toWrite, comparesPieces, recorded, isProven };
    const restore = new SnapshotRestore({ ...parts, ...more }, started);
    try {
      return await (options.dryRun === true ? restore.planned() : restore.run(left));
    } finally {
      over?.folder.close();
    }
  });
}

interface RestoreParts extends WriterParts {
  checks: ReadBack["checks"];
  ask: Ask | undefined;
  isProven: boolean;
  /** Null if the target is absent or empty. */
  over: OverFolder | null;
  shown: ShownOver | undefined;
  /** The state digest of the whole; null if only parts are written, or if none is recorded. */
  recorded: string | null;
}

const NOT_READ = { proof: null, from: null, untold: null } as const;

class SnapshotRestore {
  readonly #parts: RestoreParts;
  readonly #writer: SnapshotWriter;
  /** Milliseconds since 1970. */
  readonly #started: number;

  constructor(parts: RestoreParts, started: number) {
    this.#parts = parts;
    this.#writer = new SnapshotWriter(parts);
    this.#started = started;
  }

  async planned(): Promise<RestoreBackupResult> {
    const { over } = this.#parts;
    const counted = await this.#writer.counted();
    this.#requireRoom(this.#writer.bytesOf(await this.#writer.plan(), counted));
    if (over !== null) over.counts.written = counted.entries - counted.directories;
    const leftOut = (over?.leftOut ?? []).map(publicLeftOut);
    return this.#result({ ...counted, keptBytes: 0, unknownOwners: [], leftOut, ...NOT_READ });
  }

  async run(dead: ReturnType<typeof settleEarlier>): Promise<RestoreBackupResult> {
    const { access, session, listed, content, over, target, options } = this.#parts;
    const { onWarning, signal } = options;
    const folder = content.part?.path;
    const isOver = over !== null;
    const named = restoredContent(access.repository.id, listed.id, {
      paths: this.#writer.paths,
      folder,
      isOver,
      ownershipByName: options.ownershipByName === true,
    });
    const left = settleOthers(dead, named, onWarning);
    const there = await bytesIn(left, signal);
    const plan = this.#writer.isAllAtHand ? null : await this.#writer.plan();
    const counted = await this.#writer.counted();
    const needed = this.#writer.bytesOf(plan, counted) - there;
    this.#requireRoom(needed);
    if (plan !== null) await session.area?.requireRoom(plan.storedBytes, { folder: target, bytes: needed });
    const { partial, resumes } = beginRestore({ target, content: named, left, isOver }, onWarning);
    try {
      const { written, leftOut, proof, from, untold } = await this.#flushedAndProven(partial.staging, async () => {
        const all = await this.#writer.write(plan, partial.staging, resumes);
        // If no digest proves the whole, trees are read again for the comparison.
        if (!(this.#parts.isProven && isComparedByEntry(this.#parts, all.leftOut))) session.readNoMore();
        failpoint("restore-backup.written");
        return all;
      });
      failpoint("restore-backup.proven");
      if (over !== null) over.counts.written = Math.max(0, written.entries - counted.directories);
      await this.#putInPlace(partial, leftOut);
      failpoint("restore-backup.committed");
      const to = target.toString("utf8");
      const { ask, checks } = this.#parts;
      const answered = await ask?.(checks?.probes ?? [], proof === null ? null : to);
      if (proof !== null && answered !== undefined) proof.probes = answered;
      if (proof === null) warnUnproven(options);
      const shown =
        proof === null || from === null ? null : await signed(this.#parts, proof, { from, leftOut, target: to });
      return this.#result({ ...written, leftOut, proof: shown, from, untold });
    } catch (error) {
      partial.abandon(onWarning);
      throw error;
    }
  }

  /** Adds entries that stay, and metadata that could not be set, to `leftOut`. */
  async #putInPlace(partial: NewFolder, leftOut: LeftOut[]): Promise<void> {
    const { content, over, chosen, target, options } = this.#parts;
    if (over !== null) {
      await flushing(target, async () => over.place(partial.staging));
      // An entry that was not put in place has no metadata to report.
      const keyOf = ({ path, path_b64: raw }: LeftOut): string => raw ?? path;
      const left = over.leftOut.map(publicLeftOut);
      const stayed = new Set(left.filter(({ aspects }) => aspects === undefined).map(keyOf));
      const written = leftOut.splice(0).filter((each) => each.aspects === undefined || !stayed.has(keyOf(each)));
      append(leftOut, written);
      append(leftOut, left);
      return partial.abandon(options.onWarning);
    }
    const root = chosen === null ? content.node : null;
    // At a mount's root, entries move from the filled folder into the target, so the filled folder stays writable
    // until then.
    const notSet = partial.movesIn ? [] : setRoot(partial.staging, root, options);
    partial.commit(root?.mode);
    append(leftOut, partial.movesIn ? setRoot(target, root, options) : notSet);
    partial.end();
  }

  /** Waits for the disk before reading from it; a proof from memory reads while the disk flushes. */
  async #flushedAndProven(folder: Buffer, write: () => Promise<Written>): Promise<Written & Proven> {
    const { isProven, options } = this.#parts;
    const filled = { ...this.#parts, paths: this.#writer.paths };
    const prove = async (all: Written): Promise<Written & Proven> => ({
      ...all,
      ...(isProven ? await proveNewFolder(filled, folder, all) : NOT_READ),
    });
    return options.proveFrom === "memory"
      ? flushing(folder, async () => prove(await write()))
      : prove(await flushing(folder, write));
  }

  #requireRoom(bytes: number): void {
    requireRoom(this.#parts.target, bytes, { hint: "choose another place, or only some of the paths" });
  }

  #result(of: {
    entries: number;
    bytes: number;
    keptBytes: number;
    unknownOwners: Iterable<string>;
    leftOut: LeftOut[];
    proof: RestoreProof | null;
    from: ProofSource | null;
    untold: number | null;
  }): RestoreBackupResult {
    const { access, listed, over, target, options } = this.#parts;
    const shown = options.dryRun === true ? this.#parts.shown : undefined;
    return {
      ...access.info,
      ...restoredSnapshot(listed),
      save_point_id: pointOf(listed.snapshot),
      target: target.toString("utf8"),
      dry_run: options.dryRun === true,
      plan_id: shown?.id ?? null,
      planned_entries: shown?.entries ?? null,
      entries: of.entries,
      bytes: of.bytes,
      kept_bytes: of.keptBytes,
      overwritten: over === null ? null : { ...over.counts, left_first: over.left },
      owners: options.ownershipByName === true ? "names" : "numbers",
      unknown_owners: [...of.unknownOwners].toSorted(),
      left_out: of.leftOut,
      proof: of.proof,
      read_again: of.untold === 0,
      read_from: of.from,
      untold_files: of.untold,
      duration_ms: Date.now() - this.#started,
    };
  }
}
