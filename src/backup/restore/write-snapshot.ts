import { holesByPath, losslessByPath } from "../../archive/write/exact-nodes.ts";
import { writeTree, type WriteTreeResult } from "../../archive/write/write-tree.ts";
import type { LeftOut, RestoreBackupOptions } from "../../contract/index.ts";
import { advice, CairnError, call } from "../../errors.ts";
import { PathSelection } from "../../fs/path-selection.ts";
import { displayPath, quotedPath } from "../../fs/paths/safe-path.ts";
import { objectIdOf } from "../../ids.ts";
import { throttled } from "../../pacer.ts";
import { BlobIndex } from "../../repository/index/blob-index.ts";
import type { ListedSnapshot } from "../../repository/repository.ts";
import { addWanted, type WantedRange } from "../../repository/read/near-packs.ts";
import { PackFetch } from "../../repository/transfer/pack-fetch.ts";
import { planTransfer, type TransferPlan } from "../../repository/transfer/transfer-plan.ts";
import { lackingIn, notSetEntry, publicLeftOut } from "../../workspace/points/left-out.ts";
import { type SnapshotContent, storedRoot } from "../open/content.ts";
import { chosenDatabases, writeDatabases } from "../databases/write-databases.ts";
import type { OpenRepository } from "../open/open-repository.ts";
import type { Session } from "../open/session.ts";
import { type CountedEntries, countEntries } from "./count-entries.ts";

/** The least disk space of an entry, on any file system. */
const ENTRY_BYTES = 128;

/** The part of a snapshot that is written. */
export interface WriterParts {
  readonly access: OpenRepository;
  readonly session: Session;
  readonly listed: ListedSnapshot;
  readonly content: SnapshotContent;
  /** Raw paths below the root; null: everything. */
  readonly paths: readonly Uint8Array[] | null;
  /** Raw chosen paths, some of which may exist already; null: everything. */
  readonly chosen: readonly Uint8Array[] | null;
  /** True if each piece is compared with its id as it is written, because no digest will be. */
  readonly comparesPieces: boolean;
  readonly options: RestoreBackupOptions;
  /** Real path of the folder that is restored. */
  readonly target: Buffer;
}

export interface Written {
  readonly written: WriteTreeResult;
  readonly leftOut: LeftOut[];
}

/** Writes a snapshot, or parts of it, into a folder: plans the needed packs, fetches them and writes files as their content comes. */
export class SnapshotWriter {
  readonly #parts: WriterParts;

  constructor(parts: WriterParts) {
    this.#parts = parts;
  }

  /** The paths below the root that are written; null: everything. */
  get paths(): readonly Uint8Array[] | null {
    const { paths, content } = this.#parts;
    return paths ?? (content.only === null ? null : [content.only]);
  }

  get #databases(): ReturnType<typeof chosenDatabases> {
    return chosenDatabases(this.#parts.content, this.paths);
  }

  /** Counts entries and the bytes of their content; nothing of unreadable trees. */
  async counted(): Promise<CountedEntries> {
    const { content, options, session } = this.#parts;
    return countEntries(session.reader, { root: content.root, paths: this.paths, signal: options.signal });
  }

  /** True if all packs are local and the counted bytes tell how much is written. */
  get isAllAtHand(): boolean {
    const { session, options } = this.#parts;
    return session.near.isLocal && options.sparse !== true;
  }

  /** Walks all needed trees once; of chosen paths only the part below them. Missing content is reported when it is written. */
  async plan(paths = this.paths): Promise<TransferPlan> {
    const { session, content, options } = this.#parts;
    const { index, reader } = session;
    return planTransfer(index, new BlobIndex(), {
      roots: [storedRoot(content)],
      only: paths === null ? undefined : new PathSelection(paths),
      lenient: true,
      readTree: reader.viewTree,
      signal: options.signal,
      onTree: (done) => options.onProgress?.({ phase: "planning", done }),
    });
  }

  /**
   * Returns the least number of bytes to be written. Does not trust the snapshot's own summary. If holes are written,
   * repeated content in a file may be a hole.
   */
  bytesOf(plan: TransferPlan | null, { entries, bytes }: CountedEntries): number {
    const { content, options } = this.#parts;
    const databases = this.#databases.reduce((sum, { database }) => sum + database.manifest.node.size, 0);
    const others = databases + entries * ENTRY_BYTES;
    if (options.sparse === true) return (plan?.plainBytes ?? 0) + others;
    const holes = (content.manifest?.holeMaps ?? []).flatMap((map) => map.holes.map(([, length]) => length));
    return Math.max(0, bytes - holes.reduce((sum, length) => sum + length, 0)) + others;
  }

  /**
   * Writes all readable content. If damaged content exists in other far packs too, fetches those packs and writes again
   * over the folder, in which only the damaged entries are missing.
   */
  async write(plan: TransferPlan | null, folder: Buffer, resumes: boolean): Promise<Written> {
    const { chosen, content, session } = this.#parts;
    const { manifest, manifestDamage } = content;
    // The threads read trees for themselves.
    session.reader.close();
    const first = await this.#fetchAndWrite(plan, folder, resumes);
    let written = first;
    while (written.damaged.length > 0 && (await this.#fetchOthers(written))) {
      written = await this.#fetchAndWrite(plan, folder, true);
      written = { ...written, keptBytes: first.keptBytes };
    }
    const whole = written.damaged.find(({ path }) => path.length === 0);
    if (whole !== undefined) throw this.#nothingOf(whole.detail);
    const lossless = losslessByPath(manifest?.lossless ?? []);
    const databases = await writeDatabases(session, this.#databases, {
      folder,
      lossless,
      options: this.#parts.options,
    });
    written = {
      ...written,
      entries: written.entries + databases.entries,
      bytes: written.bytes + databases.bytes,
      damaged: [...written.damaged, ...databases.damaged],
      notSet: [...written.notSet, ...databases.notSet],
    };
    const leftOut: LeftOut[] = [
      ...(manifestDamage === null ? [] : [withoutManifest(manifestDamage)]),
      ...(content.placed?.damaged ?? []).map(({ name, error }) => ({
        path: `.cairn/databases/${name}`,
        reason: "damaged" as const,
        detail: `a database cannot be restored: ${error.message}`,
      })),
      ...written.damaged.map(({ path, detail }) => ({ ...displayPath(path), reason: "damaged" as const, detail })),
      ...written.notSet.map(notSetEntry).map(publicLeftOut),
      ...lackingIn(manifest, chosen).map(publicLeftOut),
    ];
    return { written, leftOut };
  }

  /** Fetches damaged content from other far packs. True if something came, which is read from those packs now. */
  async #fetchOthers({ damaged }: WriteTreeResult): Promise<boolean> {
    const { session, options } = this.#parts;
    const { index, near } = session;
    if (near.isLocal) return false;
    const { entries } = await this.plan(damaged.map(({ path }) => path));
    const wanted: WantedRange[] = [];
    for (const entry of entries)
      for (const { pack, offset, length } of index.others(entry)) {
        const range = { pack: objectIdOf(pack), offset, length };
        if (!near.has(range)) addWanted(wanted, range);
      }
    await near.fetch(wanted, { lenient: true, signal: options.signal });
    return wanted.some((range) => near.has(range));
  }

  /** Fetches packs and writes files at the same time. If either fails, both end. */
  async #fetchAndWrite(plan: TransferPlan | null, folder: Buffer, resumes: boolean): Promise<WriteTreeResult> {
    const { session, options } = this.#parts;
    const { near, index } = session;
    if (near.isLocal || plan === null) return this.#writeTree(folder, { resumes, fetch: null });
    const stop = new AbortController();
    const signal = options.signal === undefined ? stop.signal : AbortSignal.any([stop.signal, options.signal]);
    const total = plan.storedBytes;
    const onBytes = (bytes: number): void =>
      options.onProgress?.({ phase: "downloading", done: bytes, bytes, total_bytes: total });
    const fetch = new PackFetch({ index, near, plan, signal, onBytes });
    try {
      return await this.#writeTree(folder, { resumes, fetch });
    } catch (error) {
      stop.abort();
      await fetch.done.catch(() => undefined);
      throw error;
    }
  }

  async #writeTree(folder: Buffer, how: { resumes: boolean; fetch: PackFetch | null }): Promise<WriteTreeResult> {
    const { session, content, comparesPieces, options } = this.#parts;
    const { index, near, onDamagedPack } = session;
    const { manifest } = content;
    const { resumes, fetch } = how;
    return writeTree({
      keys: session.access.repository.keys,
      index,
      packs: near.folder,
      target: folder,
      tree: storedRoot(content),
      paths: this.paths,
      resumes,
      comparesPieces,
      arrivals: fetch ?? undefined,
      holes: holesByPath(manifest),
      sparse: options.sparse === true,
      ownersByName: options.ownershipByName === true,
      lossless: losslessByPath(manifest?.lossless ?? []),
      onDamagedPack,
      signal: options.signal,
      // Until every pack has come, the fetch reports the progress.
      onProgress: throttled(({ done, bytes }) => {
        if (fetch === null || fetch.isOver) options.onProgress?.({ phase: "restoring", done, bytes });
      }),
    });
  }

  #nothingOf(detail: string): CairnError {
    const { listed, content } = this.#parts;
    const what = content.part === undefined ? "" : `${quotedPath(content.part.path)} in `;
    return new CairnError("damaged", `nothing of ${what}snapshot ${listed.id.slice(0, 8)} can be read: ${detail}`, {
      hint: advice`nothing was changed; ${call("backup verify", "verify")} says what is damaged`,
    });
  }
}

function withoutManifest(damage: CairnError): LeftOut {
  const detail = `the snapshot's manifest cannot be read, so holes are filled, nothing is proven, and databases of 1 MiB or more may be missing: ${damage.message}`;
  return { path: "", reason: "damaged", detail };
}
