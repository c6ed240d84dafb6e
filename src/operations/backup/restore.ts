import { append } from "../../append.ts";
import { mkdirSync } from "node:fs";
import { resolve } from "node:path";
import type { ScanResult } from "../../engines/scan/scan.ts";
import { holesByPath, losslessByPath } from "../../engines/write/exact-nodes.ts";
import { writeTree, type WriteTreeResult } from "../../engines/write/write-tree.ts";
import { CairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { NO_RULES } from "../../fs/ignore.ts";
import { flushing } from "../../fs/flush.ts";
import { PathSelection } from "../../fs/path-selection.ts";
import { displayPath, printablePath, quotedPath } from "../../fs/safe-path.ts";
import { throttled } from "../../pacer.ts";
import { BlobIndex, DATA_BLOB } from "../../repository/blob-index.ts";
import { BlobReader } from "../../repository/blob-reader.ts";
import { PackFetch } from "../../repository/pack-fetch.ts";
import { planTransfer, type TransferPlan } from "../../repository/transfer-plan.ts";
import { realPathOf } from "../../workspace/find-workspace.ts";
import { checkLocation } from "../../workspace/guards.ts";
import { requireFree } from "../../workspace/partial-folder.ts";
import { lackingIn } from "../../workspace/record-point.ts";
import { notSetEntry } from "../../workspace/restore-left-out.ts";
import { hasRoom, requireRoom } from "../../workspace/room.ts";
import type { LeftOut, ProofSource, RestoreBackupOptions, RestoreBackupResult, RestoreProof } from "../contract.ts";
import { publicLeftOut } from "../save.ts";
import { setRestoredRoot } from "./restored-root.ts";
import { chosenPaths } from "./chosen-paths.ts";
import { compareWritten } from "./compare-written.ts";
import { countNodes } from "./count-nodes.ts";
import { chosenSnapshot } from "./list.ts";
import { checkJobs } from "./jobs.ts";
import { FetchArea } from "./fetch-area.ts";
import { type Look, type LookAtSnapshots, lookingAtSnapshots } from "./look.ts";
import { requireOutside } from "./own-folder.ts";
import { pointOf, publicSnapshot, restoredSnapshot } from "./public-snapshot.ts";
import {
  checkProof,
  checkReceiptOf,
  isOfState,
  isRefusal,
  isToBeProven,
  type ReadBack,
  readBack,
  signed,
  warnUnproven,
} from "./read-back.ts";
import type { RepositoryAccess } from "./repository-access.ts";
import { snapshotContent, type SnapshotContent } from "./snapshot-content.ts";
import { contentOf } from "./subfolder.ts";
import { withOwnDigests } from "./own-digests.ts";
import { type Attempt, isComparedAsWritten, NotAllCompared, warningOnce } from "./restore-attempt.ts";
import { RestoreFolder, restoredContent, settleEarlier } from "./unfinished-restore.ts";

/**
 * Writes a snapshot into an absent or empty folder and reads it again.
 *
 * Packs of another machine are fetched into an area of their own (see {@link FetchArea}), and files written as their content comes.
 *
 * Steps: what is about to be made is recorded in the user's state directory (where that can be written) → a folder beside the target is filled →
 * everything in it is flushed, and for a proof read again and its state digest compared (out of memory while it is flushed);
 * where that does not tell of each piece that it is right, all of this is done once more with each compared as it is
 * written, and ends here if something was wrong that none of them explains → the folder gets the target's name ● (at the root of
 * a mount its entries move in) → the receipt is signed and kept. A kill before ● leaves a folder with a name of its own,
 * with which the next restore of the same into the same target goes on, and which any other removes; what is in it counts
 * only as far as it is read and found right. After ● a restored folder without a receipt.
 */
export async function restoreBackup(
  access: RepositoryAccess,
  asked: { snapshot: string; to: string; asStored?: boolean },
  given: RestoreBackupOptions,
): Promise<RestoreBackupResult> {
  const started = Date.now();
  const options = warningOnce(given);
  checkJobs(options.jobs);
  const target = realPathOf(resolve(asked.to));
  requireOutside(access, target);
  checkProof(options, target);
  const left = settleEarlier(target, options.onWarning);
  requireFree(target, left);
  checkLocation(target, { allow: ["home", "nested", "git"] });
  let chosen = asked.snapshot;
  const restoreLooking = async (look: LookAtSnapshots, attempt: Attempt): Promise<RestoreBackupResult> => {
    const listed = chosenSnapshot(look, chosen, options);
    chosen = listed.id;
    const whole = await snapshotContent(look, listed.snapshot);
    const as = await contentOf(look, { listed, content: whole }, options.subfolder);
    const { paths } = await chosenPaths(look, as, { ...options, savedPaths: listed.snapshot.paths });
    const isWhole = as === whole && paths === null;
    const content = isWhole ? await withOwnDigests(as, { ...look, access, listed, options }) : as;
    checkReceiptOf(options, { listed, content, isWhole });
    return new SnapshotRestore({ access, listed, content, paths, ...look, ...attempt, target, options, started }).run();
  };
  const restore = async (attempt: Attempt): Promise<RestoreBackupResult> =>
    lookingAtSnapshots(access, { ...options, area: attempt.area, restores: true }, async (look) =>
      restoreLooking(look, attempt),
    );
  if (options.dryRun === true) return restore({ area: null, left, comparesPieces: true });
  return FetchArea.during(access, asked.asStored !== true, async (area) => {
    try {
      return await restore({ area, left, comparesPieces: false });
    } catch (error) {
      if (!(error instanceof NotAllCompared)) throw error;
      options.onWarning?.(`${error.message}; it is written once more, and each piece compared with its id`);
      return restore({ area, left: [], comparesPieces: true, earlier: error });
    }
  });
}

/** A snapshot, and what of it is written. */
interface SnapshotParts extends Omit<ReadBack, "options">, LookAtSnapshots {
  /** Raw paths below the root; null: everything. */
  paths: readonly Uint8Array[] | null;
  options: RestoreBackupOptions;
}

interface RestoreParts extends SnapshotParts, Attempt {
  target: Buffer;
  started: number;
}

/** Writes a snapshot into a folder that is made for it and that nobody else looks at; it is read again as a restore is. */
export async function writeSnapshot(folder: Buffer, parts: SnapshotParts): Promise<{ leftOut: LeftOut[] }> {
  mkdirSync(folder, { mode: 0o700 });
  const attempt: Attempt = { area: null, left: [], comparesPieces: true };
  return new SnapshotRestore({ ...parts, ...attempt, target: folder, started: Date.now() }).write();
}

interface Proven {
  proof: Omit<RestoreProof, "receipt"> | null;
  /** null where nothing was read again */
  from: ProofSource | null;
  /** files that nothing tells whether they are what was saved; null where nothing was read again */
  untold: number | null;
}

const NOT_READ = { proof: null, from: null, untold: null } as const;

interface Written {
  written: WriteTreeResult;
  leftOut: LeftOut[];
}

class SnapshotRestore {
  readonly #parts: RestoreParts;

  constructor(parts: RestoreParts) {
    this.#parts = parts;
  }

  async run(): Promise<RestoreBackupResult> {
    const { access, listed, target, left, options } = this.#parts;
    if (options.dryRun === true) {
      requireRoomAt(target, this.#bytesOf(await this.#plan()));
      const paths = this.#written();
      const { entries, bytes } = await countNodes(this.#parts, this.#parts.content.root, {
        paths,
        signal: options.signal,
      });
      return this.#result({ entries, bytes, keptBytes: 0, leftOut: [], ...NOT_READ });
    }
    const { part } = this.#parts.content;
    const content = restoredContent(access.repository.id, listed.id, { paths: this.#written(), folder: part?.path });
    const folder = new RestoreFolder(target, { content, left }, options.onWarning);
    const there = await folder.bytesThere(options.signal);
    const plan = this.#isAllAtHand(there) ? null : await this.#plan();
    if (plan !== null) {
      const needed = this.#bytesOf(plan) - there;
      requireRoomAt(target, needed);
      await this.#parts.area?.requireRoom(plan.storedBytes, { folder: target, bytes: needed });
    }
    const { partial, resumes } = folder.begin(options.onWarning);
    try {
      const write = async (): Promise<Written> => {
        const all = await this.#writeAll(plan, partial.staging, resumes);
        // Where the whole will not be proven, trees are read once more to compare with.
        if (!this.#isCompared(all.leftOut)) this.#parts.readNoMore();
        failpoint("restore-backup.written");
        return all;
      };
      const { written, leftOut, proof, from, untold } = await this.#flushedAndProven(partial.staging, write);
      failpoint("restore-backup.proven");
      // Where it is moved in, the folder that was filled is not the one that stays, and has to stay open.
      const notSet = partial.movesIn ? [] : this.#setRoot(partial.staging);
      partial.commit(this.#rootNode?.mode);
      append(leftOut, partial.movesIn ? this.#setRoot(target) : notSet);
      partial.end();
      failpoint("restore-backup.committed");
      const to = target.toString("utf8");
      if (proof === null) warnUnproven(options);
      const shown =
        proof === null || from === null ? null : await signed(this.#parts, proof, { from, leftOut, target: to });
      return this.#result({ ...written, leftOut, proof: shown, from, untold });
    } catch (error) {
      partial.abandon(options.onWarning);
      throw error;
    }
  }

  /** Without a name of its own to give: see {@link writeSnapshot}. */
  async write(): Promise<{ leftOut: LeftOut[] }> {
    const { target } = this.#parts;
    const plan = await this.#plan();
    requireRoomAt(target, this.#bytesOf(plan));
    const { leftOut } = await this.#flushedAndProven(target, async () => this.#writeAll(plan, target, false));
    append(leftOut, this.#setRoot(target));
    return { leftOut };
  }

  /** The disk is waited for before it is read; what is read from memory is read while that takes it. */
  async #flushedAndProven(folder: Buffer, write: () => Promise<Written>): Promise<Written & Proven> {
    const prove = async ({ written, leftOut }: Written): Promise<Written & Proven> => {
      const proven = await this.#prove(folder, written, leftOut);
      return { written, leftOut, ...proven };
    };
    return this.#parts.options.proveFrom === "memory"
      ? flushing(folder, async () => prove(await write()))
      : prove(await flushing(folder, write));
  }

  get #isProven(): boolean {
    const { paths, content, options } = this.#parts;
    return isToBeProven(options, paths === null && content.part === undefined);
  }

  /** Of the whole; null where only parts are written, or none is recorded. */
  get #recorded(): string | null {
    const { paths, content } = this.#parts;
    return paths === null ? (content.manifest?.stateDigest ?? null) : null;
  }

  /** True where no digest of the whole can be equal, or there is none. */
  #isCompared(leftOut: readonly LeftOut[]): boolean {
    return this.#isProven && (leftOut.some(isOfState) || this.#recorded === null);
  }

  get #comparesPieces(): boolean {
    return this.#parts.comparesPieces || !this.#isProven || this.#recorded === null;
  }

  /** True where nothing has to be fetched, and there is room for all that is not there even if no content is in it twice: then nothing has to be planned. */
  #isAllAtHand(there: number): boolean {
    const { near, paths, listed, target } = this.#parts;
    const { bytes } = publicSnapshot(listed);
    return near.isLocal && paths === null && bytes !== null && hasRoom(target, bytes - there);
  }

  /** All that is needed, walked once; of chosen paths only what is below them. What is not there is met when it is written. */
  async #plan(paths = this.#written()): Promise<TransferPlan> {
    const { index, reader, content, options } = this.#parts;
    return planTransfer(index, new BlobIndex(), {
      roots: [content.root],
      only: paths === null ? undefined : new PathSelection(paths),
      lenient: true,
      readTree: reader.readTree,
      signal: options.signal,
      onTree: (done) => options.onProgress?.({ phase: "planning", done }),
    });
  }

  /** What is written of it, at least. Where holes are written, what repeats itself is one. */
  #bytesOf({ plainBytes, repeatedBytes }: TransferPlan): number {
    const { content, options } = this.#parts;
    if (options.sparse === true) return plainBytes;
    const holes = (content.manifest?.holeMaps ?? []).flatMap((map) => map.holes.map(([, length]) => length));
    return plainBytes + Math.max(0, repeatedBytes - holes.reduce((sum, length) => sum + length, 0));
  }

  /** The paths below the root that are written; null: everything. */
  #written(): readonly Uint8Array[] | null {
    const { paths, content } = this.#parts;
    return paths ?? (content.only === null ? null : [content.only]);
  }

  /**
   * All that can be had. Where something was damaged that other packs have too, all is written once more over what is there,
   * of which only that is missing.
   */
  async #writeAll(plan: TransferPlan | null, folder: Buffer, resumes: boolean): Promise<Written> {
    const { copies, paths } = this.#parts;
    const { manifest, manifestDamage } = this.#parts.content;
    // Trees that were read by now.
    const isMoved = copies.settle();
    const first = await this.#fetchAndWrite(isMoved && plan !== null ? await this.#plan() : plan, folder, resumes);
    this.#parts.earlier?.settle(first);
    let written = first;
    while (written.damaged.length > 0 && (await this.#findCopies(written))) {
      written = await this.#fetchAndWrite(plan === null ? null : await this.#plan(), folder, true);
      written = { ...written, keptBytes: first.keptBytes };
    }
    const whole = written.damaged.find(({ path }) => path.length === 0);
    if (whole !== undefined) throw this.#nothingOf(whole.detail);
    const leftOut: LeftOut[] = [
      ...(manifestDamage === null ? [] : [withoutManifest(manifestDamage)]),
      ...written.damaged.map(({ path, detail }) => ({ ...displayPath(path), reason: "damaged" as const, detail })),
      ...written.notSet.map(notSetEntry).map(publicLeftOut),
      ...lackingIn(manifest, paths).map(publicLeftOut),
    ];
    return { written, leftOut };
  }

  /** True where other packs have something of what was damaged, which is read from them now. */
  async #findCopies({ damaged }: WriteTreeResult): Promise<boolean> {
    const { copies } = this.#parts;
    const { entries } = await this.#plan(damaged.map(({ path }) => path));
    await copies.seek(entries);
    return copies.settle();
  }

  /** What fails of both ends both: nothing is fetched into a folder that is given up. */
  async #fetchAndWrite(plan: TransferPlan | null, folder: Buffer, resumes: boolean): Promise<WriteTreeResult> {
    const { near, index, options } = this.#parts;
    if (near.isLocal || plan === null) return this.#write(folder, { resumes, fetch: null });
    const stop = new AbortController();
    const signal = options.signal === undefined ? stop.signal : AbortSignal.any([stop.signal, options.signal]);
    const total = plan.storedBytes;
    const onBytes = (bytes: number): void =>
      options.onProgress?.({ phase: "downloading", done: bytes, bytes, total_bytes: total });
    const fetch = new PackFetch({ index, near, plan, signal, onBytes });
    try {
      return await this.#write(folder, { resumes, fetch });
    } catch (error) {
      stop.abort();
      await fetch.done.catch(() => undefined);
      throw error;
    }
  }

  async #write(folder: Buffer, how: { resumes: boolean; fetch: PackFetch | null }): Promise<WriteTreeResult> {
    const { access, index, near, content, options } = this.#parts;
    const blobs = new BlobReader({ keys: access.repository.keys, openPack: (pack) => near.open(pack) });
    const { manifest } = content;
    const { resumes, fetch } = how;
    try {
      return await writeTree({
        keys: access.repository.keys,
        index,
        packs: near.folder,
        target: folder,
        tree: content.root,
        paths: this.#written(),
        resumes,
        comparesPieces: this.#comparesPieces,
        arrivals: fetch ?? undefined,
        jobs: options.jobs,
        holes: holesByPath(manifest),
        sparse: options.sparse === true,
        lossless: losslessByPath(manifest?.lossless ?? []),
        read: (id) => blobs.read({ ...index.place(index.lookup(id, 0, DATA_BLOB)), id }),
        ...(options.signal === undefined ? {} : { signal: options.signal }),
        // Until everything has come that is what is told of.
        onProgress: throttled(({ done, bytes }) => {
          if (fetch === null || fetch.isOver) options.onProgress?.({ phase: "restoring", done, bytes });
        }),
      });
    } finally {
      blobs.close();
    }
  }

  /**
   * Everything is read again. Without a proof where none is wanted, parts were written, there is nothing to compare the
   * whole with, this user may not make or read all of it, or the file system keeps no modes, which is listed: then each
   * entry is compared, as far as it is not listed. Throws `damaged` when something is not what was saved although nothing
   * is known to be missing.
   */
  async #prove(folder: Buffer, written: WriteTreeResult, leftOut: LeftOut[]): Promise<Proven> {
    const { access, area, content, options } = this.#parts;
    if (!this.#isProven) return NOT_READ;
    const isCompared = this.#isCompared(leftOut);
    const { found, state, meta, from, notRead, isRefused } = await readBack(this.#parts, folder, EVERYTHING);
    const recorded = this.#recorded;
    if (state === recorded)
      return {
        proof: { state_digest: state, metadata_equal: meta === content.manifest?.metadataDigest },
        from,
        untold: 0,
      };
    for (const each of notRead) leftOut.push(each);
    if (notRead.length > 0 && !isRefused) {
      const { omitted } = found.notes;
      const { path, reason } = omitted.find((each) => !isRefusal(each.reason))!;
      throw this.#otherwise(`not at all at ${printablePath(path)} (${reason})`, omitted.length);
    }
    const compare = async (look: Look): Promise<number> => this.#compare(look, { folder, found, written, leftOut });
    // Others may have the repository since it was written: the trees are read under a lock of their own.
    const untold = isCompared
      ? await compare(this.#parts)
      : await lookingAtSnapshots(access, { ...options, area }, compare);
    const wasCompared = ({ path }: { path: Uint8Array }): boolean => isComparedAsWritten(folder, path);
    if (!this.#comparesPieces && !found.notes.omitted.every(wasCompared)) throw new NotAllCompared(null);
    if (!isCompared && !leftOut.some(isOfState))
      throw this.#otherwise(`with state digest ${state}; saved was ${recorded}`);
    return { proof: null, from, untold };
  }

  /**
   * Lists what has another mode, or is linked otherwise. Returns of how many files nothing tells whether they are what was saved; everything else
   * is, but for what is listed.
   */
  async #compare(
    look: Look,
    how: { folder: Buffer; found: ScanResult; written: WriteTreeResult; leftOut: LeftOut[] },
  ): Promise<number> {
    const { folder, found, written, leftOut } = how;
    const { wrong, unlike, untold } = await compareWritten(look, found, {
      folder,
      signal: this.#parts.options.signal,
      content: this.#parts.content,
      chosen: this.#written(),
      lost: written.damaged.map(({ path }) => path),
      notSet: written.notSet,
      others: "nowhere",
    });
    if (wrong.length > 0) {
      const failure = this.#otherwise(`otherwise at ${printablePath(wrong[0]!)}`, wrong.length);
      throw this.#comparesPieces ? failure : new NotAllCompared({ failure, wrong });
    }
    append(leftOut, unlike);
    return untold;
  }

  #nothingOf(detail: string): CairnError {
    const { listed, content } = this.#parts;
    const what = content.part === undefined ? "" : `${quotedPath(content.part.path)} in `;
    return new CairnError("damaged", `nothing of ${what}snapshot ${listed.id.slice(0, 8)} can be read: ${detail}`, {
      hint: "nothing was changed; `cairn backup verify` says what is damaged",
    });
  }

  #otherwise(how: string, places = 1): CairnError {
    const more = places > 1 ? ` and ${places - 1} more places` : "";
    return new CairnError(
      "damaged",
      `what was written of snapshot ${this.#parts.listed.id.slice(0, 8)} reads back ${how}${more}`,
      {
        hint: "nothing was put in place; verify the repository (`cairn backup verify`) and check this machine's disk and memory",
      },
    );
  }

  #setRoot(folder: Buffer): LeftOut[] {
    return setRestoredRoot(folder, this.#rootNode);
  }

  get #rootNode(): SnapshotContent["node"] {
    const { content, paths } = this.#parts;
    return paths === null ? content.node : null;
  }

  #result(of: {
    entries: number;
    bytes: number;
    keptBytes: number;
    leftOut: LeftOut[];
    proof: RestoreProof | null;
    from: ProofSource | null;
    untold: number | null;
  }): RestoreBackupResult {
    const { access, listed, target, options, started } = this.#parts;
    return {
      ...access.info,
      ...restoredSnapshot(listed),
      save_point_id: pointOf(listed.snapshot),
      target: target.toString("utf8"),
      dry_run: options.dryRun === true,
      entries: of.entries,
      bytes: of.bytes,
      kept_bytes: of.keptBytes,
      left_out: of.leftOut,
      proof: of.proof,
      read_again: of.untold === 0,
      read_from: of.from,
      untold_files: of.untold,
      duration_ms: Date.now() - started,
    };
  }
}

function requireRoomAt(target: Buffer, bytes: number): void {
  requireRoom(target, bytes, { hint: "choose another place, or only some of the paths" });
}

const EVERYTHING = { rules: NO_RULES, skip: [] };

function withoutManifest(damage: CairnError): LeftOut {
  const detail = `the snapshot's manifest cannot be read, so holes are filled and nothing is proven: ${damage.message}`;
  return { path: "", reason: "damaged", detail };
}
