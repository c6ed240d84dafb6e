import { setDirectory } from "../../archive/write/root-metadata.ts";
import { openToUmask } from "../../fs/make-folder.ts";
import { inDirectory } from "../../fs/linux/syscalls.ts";
import { canBeOne, linkedInode, type TreeNode } from "../../formats/restic/tree.ts";
import { newPacer, throttled } from "../../pacer.ts";
import type { BlobSource } from "../../repository/blob-source.ts";
import { append } from "../../append.ts";
import type { ScanResult } from "../../archive/scan/scan.ts";
import { holesByPath, losslessByPath } from "../../archive/write/exact-nodes.ts";
import { writeTree, type WriteTreeResult } from "../../archive/write/write-tree.ts";
import { CairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { NO_RULES } from "../../fs/ignore.ts";
import { flushing } from "../../fs/linux/flush.ts";
import { PathSelection } from "../../fs/path-selection.ts";
import { displayPath, joinRaw, printablePath, quotedPath } from "../../fs/safe-path.ts";
import { BlobIndex, DATA_BLOB } from "../../repository/index/blob-index.ts";
import { objectIdOf } from "../../ids.ts";
import { addWanted, type WantedRange } from "../../repository/transfer/near-packs.ts";
import { PackFetch } from "../../repository/transfer/pack-fetch.ts";
import { planTransfer, type TransferPlan } from "../../repository/transfer/transfer-plan.ts";
import { realPathOf } from "../../workspace/place/find-workspace.ts";
import { checkLocation } from "../../workspace/place/guards.ts";
import { type DeadPartial, requireFree } from "../../workspace/new-folder/new-folder.ts";
import { lackingIn, notSetEntry, publicLeftOut } from "../../workspace/points/left-out.ts";
import { hasRoom, requireRoom } from "../../workspace/place/room.ts";
import type { LeftOut } from "../../contract/words.ts";
import type { ProofSource, RestoreBackupOptions, RestoreBackupResult, RestoreProof } from "../../contract/snapshots.ts";
import { chosenPaths, contentOf } from "../paths.ts";
import {
  checkProof,
  checkReceiptOf,
  compareWritten,
  isOfState,
  isRefusal,
  isToBeProven,
  readBack,
  type ReadBack,
  signed,
  warnUnproven,
} from "./prove.ts";
import { chosenSnapshot, pointOf, publicSnapshot, restoredSnapshot } from "../snapshots.ts";
import { reading, type Session } from "../session.ts";
import { requireOutside } from "../own-folder.ts";
import type { OpenRepository } from "../open-repository.ts";
import { nameOf, nodesOrNull, type SnapshotContent, snapshotContent, withoutOthersDigests } from "../content.ts";
import { restoredContent, RestoreFolder, settleEarlier } from "./unfinished-restore.ts";
import { lstatSync } from "node:fs";
import { resolve } from "node:path";

/**
 * Writes a snapshot into an absent or empty folder and reads it again. Far packs are fetched into a {@link FetchArea},
 * and files written as their content comes; where no digest will be compared, each piece is compared with its id.
 * - The restore is recorded in the user's state directory, and a folder beside the target is filled.
 * - All is flushed; for a proof it is read again and its state digest compared.
 * - The folder gets the target's name ● (at the root of a mount its entries move in); the receipt is signed and kept.
 * - A kill before ● leaves a folder that the next restore of the same goes on with and any other removes; after it one
 * without a receipt.
 */
export async function restoreBackup(
  access: OpenRepository,
  asked: { snapshot: string; to: string; asStored?: boolean },
  options: RestoreBackupOptions,
): Promise<RestoreBackupResult> {
  const started = Date.now();
  const target = realPathOf(resolve(asked.to));
  requireOutside(access, target);
  checkProof(options, target);
  const left = settleEarlier(target, options.onWarning);
  requireFree(target, left);
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
    const restore = new SnapshotRestore({ access, session, listed, content, paths, target, options, started });
    return options.dryRun === true ? restore.planned() : restore.run(left);
  });
}

/** The part of a snapshot that is written, and the folder that it is written into. */
interface RestoreParts extends Omit<ReadBack, "options"> {
  session: Session;
  /** Raw paths below the root; null: everything. */
  paths: readonly Uint8Array[] | null;
  options: RestoreBackupOptions;
  target: Buffer;
  started: number;
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

  async planned(): Promise<RestoreBackupResult> {
    const { session, content, target, options } = this.#parts;
    requireRoomAt(target, this.#bytesOf(await this.#plan()));
    const { signal } = options;
    const counted = await countNodes(session.reader, content.root, { paths: this.#written(), signal });
    return this.#result({ ...counted, keptBytes: 0, leftOut: [], ...NOT_READ });
  }

  async run(left: readonly DeadPartial[]): Promise<RestoreBackupResult> {
    const { access, session, listed, content, target, options } = this.#parts;
    const { part } = content;
    const named = restoredContent(access.repository.id, listed.id, { paths: this.#written(), folder: part?.path });
    const folder = new RestoreFolder(target, { content: named, left }, options.onWarning);
    const there = await folder.bytesThere(options.signal);
    const plan = this.#isAllAtHand(there) ? null : await this.#plan();
    if (plan !== null) {
      const needed = this.#bytesOf(plan) - there;
      requireRoomAt(target, needed);
      await session.area?.requireRoom(plan.storedBytes, { folder: target, bytes: needed });
    }
    const { partial, resumes } = folder.begin(options.onWarning);
    try {
      const write = async (): Promise<Written> => {
        const all = await this.#writeAll(plan, partial.staging, resumes);
        // Where the whole will not be proven, trees are read once more to compare with.
        if (!this.#isCompared(all.leftOut)) session.readNoMore();
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

  /** The state digest of the whole; null where only parts are written, or none is recorded. */
  get #recorded(): string | null {
    const { paths, content } = this.#parts;
    return paths === null ? (content.manifest?.stateDigest ?? null) : null;
  }

  /** True where no digest of the whole can be equal, or there is none. */
  #isCompared(leftOut: readonly LeftOut[]): boolean {
    return this.#isProven && (leftOut.some(isOfState) || this.#recorded === null);
  }

  /** A piece with a right seal is another one than it should be next to never: a digest of the whole tells of it, too. */
  get #comparesPieces(): boolean {
    return !this.#isProven || this.#recorded === null;
  }

  /** True where nothing has to be planned: all packs are here, and there is room even if no content is in it twice. */
  #isAllAtHand(there: number): boolean {
    const { session, paths, listed, target } = this.#parts;
    const { bytes } = publicSnapshot(listed);
    return session.near.isLocal && paths === null && bytes !== null && hasRoom(target, bytes - there);
  }

  /** All that is needed, walked once; of chosen paths only what is below them. What is not there is met when it is written. */
  async #plan(paths = this.#written()): Promise<TransferPlan> {
    const { session, content, options } = this.#parts;
    const { index, reader } = session;
    return planTransfer(index, new BlobIndex(), {
      roots: [content.root],
      only: paths === null ? undefined : new PathSelection(paths),
      lenient: true,
      readTree: reader.readTree,
      signal: options.signal,
      onTree: (done) => options.onProgress?.({ phase: "planning", done }),
    });
  }

  /** The bytes that are written of it at least. Where holes are written, content that repeats itself is one. */
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
   * All that can be had. Where something was damaged that other far packs have too, all is written once more over what is
   * there, of which only that is missing: what it needs is fetched before it is written.
   */
  async #writeAll(plan: TransferPlan | null, folder: Buffer, resumes: boolean): Promise<Written> {
    const { paths } = this.#parts;
    const { manifest, manifestDamage } = this.#parts.content;
    const first = await this.#fetchAndWrite(plan, folder, resumes);
    let written = first;
    while (written.damaged.length > 0 && (await this.#fetchOthers(written))) {
      written = await this.#fetchAndWrite(plan, folder, true);
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

  /** True where something of what was damaged has come from other far packs, and is read from those now. */
  async #fetchOthers({ damaged }: WriteTreeResult): Promise<boolean> {
    const { session, options } = this.#parts;
    const { index, near } = session;
    if (near.isLocal) return false;
    const { entries } = await this.#plan(damaged.map(({ path }) => path));
    const wanted: WantedRange[] = [];
    for (const entry of entries)
      for (const { pack, offset, length } of index.others(entry)) {
        const range = { pack: objectIdOf(pack), offset, length };
        if (!near.has(range)) addWanted(wanted, range);
      }
    await near.fetch(wanted, { lenient: true, signal: options.signal });
    return wanted.some((range) => near.has(range));
  }

  /** A failure of one ends both: nothing is fetched into a folder that is given up. */
  async #fetchAndWrite(plan: TransferPlan | null, folder: Buffer, resumes: boolean): Promise<WriteTreeResult> {
    const { session, options } = this.#parts;
    const { near, index } = session;
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
    const { access, session, content, options } = this.#parts;
    const { index, near, reader, onElsewhere } = session;
    const { manifest } = content;
    const { resumes, fetch } = how;
    return writeTree({
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
      read: (id) => reader.readId(id, DATA_BLOB),
      onElsewhere,
      ...(options.signal === undefined ? {} : { signal: options.signal }),
      // Until everything has come that is what is told of.
      onProgress: throttled(({ done, bytes }) => {
        if (fetch === null || fetch.isOver) options.onProgress?.({ phase: "restoring", done, bytes });
      }),
    });
  }

  /**
   * Reads everything again, and proves it by its digest. Where there is none to compare, or not all could be made or
   * read, each entry is compared instead, as far as it is not listed. Throws `damaged` when something is not what was
   * saved although nothing is known to be missing.
   */
  async #prove(folder: Buffer, written: WriteTreeResult, leftOut: LeftOut[]): Promise<Proven> {
    const { access, session, content, options } = this.#parts;
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
    const how = { folder, found, written, leftOut };
    // Others may have the repository since it was written: the trees are read under a lock of their own.
    const untold = isCompared
      ? await this.#compare(session.reader, how)
      : await reading(access, { ...options, area: session.area }, async ({ reader }) => this.#compare(reader, how));
    if (!isCompared && !leftOut.some(isOfState))
      throw this.#otherwise(`with state digest ${state}; saved was ${recorded}`);
    return { proof: null, from, untold: untold + (this.#comparesPieces ? 0 : countUntold(folder, found)) };
  }

  /**
   * Lists what has another mode, or is linked otherwise. Returns the number of files of which nothing tells whether they
   * are what was saved; everything else is, but for what is listed.
   */
  async #compare(
    reader: BlobSource,
    how: { folder: Buffer; found: ScanResult; written: WriteTreeResult; leftOut: LeftOut[] },
  ): Promise<number> {
    const { folder, found, written, leftOut } = how;
    const { wrong, unlike, untold } = await compareWritten(reader, found, {
      folder,
      signal: this.#parts.options.signal,
      content: this.#parts.content,
      chosen: this.#written(),
      lost: written.damaged.map(({ path }) => path),
      notSet: written.notSet,
      others: "nowhere",
    });
    if (wrong.length > 0) throw this.#otherwise(`otherwise at ${printablePath(wrong[0]!)}`, wrong.length);
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
        hint: this.#comparesPieces
          ? "nothing was put in place; verify the repository (`cairn backup verify`) and check this machine's disk and memory"
          : "nothing was put in place; where the repository has another content (`cairn backup verify`), --no-prove leaves that out and restores the rest; else check this machine's disk and memory",
      },
    );
  }

  /** Gives a folder the mode, owner and time that the snapshot has, or those of a new one. Returns what could not be set. */
  #setRoot(folder: Buffer): LeftOut[] {
    if (this.#rootNode === null) {
      openToUmask(folder);
      return [];
    }
    const { mode, uid, gid, mtimeSec, mtimeNs, xattrs } = this.#rootNode;
    const facts = { mode, uid, gid, mtime_sec: mtimeSec, mtime_ns: mtimeNs };
    const notSet = inDirectory(folder, (fd) => setDirectory(fd, facts, { xattrs }));
    return notSet.map(notSetEntry).map(publicLeftOut);
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

/** Counts what could not be read again and was not compared as it was written: files that their owner may not read. */
function countUntold(folder: Buffer, { notes }: ScanResult): number {
  const wasCompared = ({ path }: { path: Uint8Array }): boolean => {
    const facts = lstatSync(joinRaw(folder, path), { throwIfNoEntry: false });
    return facts?.isFile() === true && (facts.mode & 0o400) === 0;
  };
  return notes.omitted.filter((each) => !wasCompared(each)).length;
}

/** Counts entries below a tree and the bytes of their content, none of trees that cannot be read. `paths`: raw ones from there. */
async function countNodes(
  reader: BlobSource,
  root: Uint8Array,
  { paths, signal }: { paths: readonly Uint8Array[] | null; signal: AbortSignal | undefined },
): Promise<{ entries: number; bytes: number }> {
  const chosen = paths === null ? null : new PathSelection(paths);
  const pace = newPacer(signal);
  const counted = { entries: 0, bytes: 0 };
  const linked = new Map<string, TreeNode>();
  const walk = async (tree: Uint8Array, path: string): Promise<void> => {
    await pace();
    for (const node of (await nodesOrNull(reader, tree)) ?? []) {
      const own = path === "" ? nameOf(node) : `${path}/${nameOf(node)}`;
      const part = chosen?.of(Buffer.from(own, "latin1")) ?? "whole";
      if (part === "no") continue;
      counted.entries++;
      // Of several names of one file the first brings its content.
      const group = linkedInode(node);
      const other = group === null ? undefined : linked.get(group);
      const isKnown = other !== undefined && canBeOne(other, node);
      if (group !== null) linked.set(group, node);
      if (node.type === "file" && !isKnown) counted.bytes += node.size;
      if (node.subtree !== undefined) await walk(node.subtree, own);
    }
  };
  await walk(root, "");
  return counted;
}
