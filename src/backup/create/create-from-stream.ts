import { hostname } from "node:os";
import { currentUser } from "../../fs/users.ts";
import type { ExtraBlob } from "../../archive/scan/store-sink.ts";
import { CairnError, throwIfAborted, toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { objectIdOf } from "../../ids.ts";
import { arenaOver, type Arena } from "../../native.ts";
import { keepTelling, newPacer } from "../../pacer.ts";
import { blobTypeOf } from "../../repository/index/blob-index.ts";
import type { PackedBlobs } from "../../repository/packs/packed-blobs.ts";
import type { ListedSnapshot } from "../../repository/repository.ts";
import { StreamCutter } from "../../repository/packs/stream-cutter.ts";
import type { StreamBackupResult, StreamBackupOptions, TransferredSize } from "../../contract/index.ts";
import { checkSnapshotTags, newestOfSame, publicSnapshot, timeAfter } from "../open/snapshots.ts";
import { adding, type Session } from "../open/session.ts";
import { madeSnapshot, type SnapshotOrigin } from "../open/made-snapshot.ts";
import type { OpenRepository } from "../open/open-repository.ts";
import { snapshotContent } from "../open/content.ts";
import { streamPath, streamSnapshot, type StreamSnapshot } from "./stream-snapshot.ts";

/**
 * Puts a stream into a repository as a snapshot of one file, as restic does with `--stdin`, with a manifest as in
 * snapshots of points. Keeps in memory only the pieces that are being cut and packed.
 * - A shared lock; packs as the stream comes, with their index at the latest every 64 packs or 30 s.
 * - The stream has ended well: its trees, manifest and their index; another look for a lock that excludes ours.
 * - The snapshot's file ●. A stream that fails, or a kill before ●, leaves packs that `prune` removes.
 */
export async function createFromStream(
  access: OpenRepository,
  content: AsyncIterable<Uint8Array>,
  options: StreamBackupOptions,
): Promise<StreamBackupResult> {
  checkSnapshotTags(options.tags ?? []);
  const components = streamPath(options.filename ?? "stdin");
  return adding(access, options, async (session) => {
    session.index.beginSession();
    try {
      return await new StreamBackup({ content, components, session, options }).run();
    } finally {
      session.index.endSession();
    }
  });
}

interface StreamParts {
  content: AsyncIterable<Uint8Array>;
  components: readonly Buffer[];
  /** Without a lock in a dry run. */
  session: Session;
  options: StreamBackupOptions;
}

class StreamBackup {
  readonly #parts: StreamParts;
  readonly #started = Date.now();
  readonly #added: TransferredSize = { data_blobs: 0, tree_blobs: 0, bytes: 0, stored_bytes: 0, packs: 0 };
  readonly #target: PackedBlobs | null;

  constructor(parts: StreamParts) {
    this.#parts = parts;
    this.#target = parts.session.packedBlobs();
  }

  async run(): Promise<StreamBackupResult> {
    const { options, components, session } = this.#parts;
    const origin = this.#origin();
    const parent = newestOfSame(session.snapshots, origin);
    const cutter = new StreamCutter({
      polynomial: session.access.repository.chunkerPolynomial,
      onPiece: (id, plain, offset, length) => this.#store("data", id, plain, offset, length),
    });
    const current = components.at(-1)!.toString("utf8");
    let [bytes, isThere] = [0, false];
    const toldLast = keepTelling(options.onProgress, () => {
      bytes = Math.max(bytes, cutter.size - (isThere ? 0 : (this.#target?.waiting ?? 0)));
      return { phase: "uploading" as const, done: cutter.pieces, bytes, current };
    });
    try {
      const cut = await this.#cut(cutter, current);
      failpoint("stream.read");
      const hasNew = this.#added.data_blobs > 0;
      const file = { components, uid: origin.uid, gid: origin.gid, at: this.#started };
      const made = streamSnapshot(file, cut);
      const unchanged = !hasNew && parent !== null && (await this.#holds(parent, made.stateDigest));
      const isSkipped = unchanged && options.skipIfUnchanged === true;
      for (const { id, type, bytes } of isSkipped ? [] : made.blobs)
        this.#store(type, id, arenaOver(bytes), 0, bytes.length);
      await this.#target?.finish();
      isThere = true;
      const isWritten = !isSkipped && this.#target !== null;
      const snapshot = isWritten ? await this.#commit(origin, parent, made) : null;
      return this.#result({ parent, unchanged, snapshot });
    } catch (error) {
      await this.#target?.abort();
      throw error;
    } finally {
      toldLast();
    }
  }

  #origin(): SnapshotOrigin {
    const { options, components } = this.#parts;
    const { username, uid, gid } = currentUser();
    const path = `/${components.map((name) => name.toString("utf8")).join("/")}`;
    return { paths: [path], hostname: options.hostname ?? hostname(), username, uid, gid };
  }

  /** Throws `refused` if the stream is empty: then the program that writes it has most likely failed. */
  async #cut(cutter: StreamCutter, name: string): Promise<ReturnType<StreamCutter["finish"]>> {
    const { content, options } = this.#parts;
    const pace = newPacer(options.signal);
    for await (const bytes of stoppable(content, options.signal)) {
      cutter.write(bytes);
      await this.#target?.settle();
      await pace();
    }
    if (cutter.size > 0) return cutter.finish();
    throw new CairnError("refused", `the stream for ${JSON.stringify(name)} was empty: no snapshot was made`, {
      hint: "check whether the command that writes the stream failed",
    });
  }

  #store(type: ExtraBlob["type"], id: Uint8Array, plain: Arena, offset: number, length: number): void {
    if (!this.#parts.session.index.claim(id, 0, blobTypeOf(type))) return;
    this.#added[type === "tree" ? "tree_blobs" : "data_blobs"]++;
    this.#added.bytes += length;
    this.#target?.add(type, id, plain, offset, length);
  }

  /** True if a snapshot holds a file of that name with the same content. */
  async #holds({ snapshot }: ListedSnapshot, stateDigest: string): Promise<boolean> {
    try {
      const { manifest } = await snapshotContent(this.#parts.session.reader, snapshot);
      return manifest?.stateDigest === stateDigest;
    } catch (error) {
      if (error instanceof CairnError && error.code === "damaged") return false;
      throw error;
    }
  }

  async #commit(origin: SnapshotOrigin, parent: ListedSnapshot | null, made: StreamSnapshot): Promise<ListedSnapshot> {
    const { session, options } = this.#parts;
    await session.lock!.recheck();
    const snapshot = madeSnapshot({
      time: timeAfter(new Date(this.#started).toISOString(), parent, options.onWarning),
      tree: objectIdOf(made.tree),
      origin,
      parent,
      tags: options.tags ?? [],
      started: this.#started,
      added: this.#sizes(),
      files: made.files,
      bytes: made.bytes,
    });
    failpoint("backup.transferred");
    // An abort may have cut the stream short too, although its source ends as if complete.
    throwIfAborted(options.signal);
    const id = await session.access.repository.saveSnapshot(snapshot);
    failpoint("backup.snapshot-written");
    session.index.saveCache();
    return { id, snapshot };
  }

  #sizes(): TransferredSize {
    const { bytes, packs } = this.#target ?? { bytes: this.#added.bytes, packs: 0 };
    return { ...this.#added, stored_bytes: bytes, packs };
  }

  #result(made: {
    parent: ListedSnapshot | null;
    unchanged: boolean;
    snapshot: ListedSnapshot | null;
  }): StreamBackupResult {
    return {
      ...this.#parts.session.access.info,
      snapshot: made.snapshot === null ? null : publicSnapshot(made.snapshot),
      save_point_id: null,
      parent: made.parent?.id ?? null,
      unchanged: made.unchanged,
      dry_run: this.#target === null,
      added: this.#sizes(),
      incomplete: null,
      left_out: [],
      duration_ms: Date.now() - this.#started,
    };
  }
}

/** Reports any failure of the stream as a read failure: no snapshot has any of it. */
function readFailure(error: unknown): CairnError {
  const known = toCairnError(error, "no snapshot was made, because the stream could not be read to its end");
  return known.code === "internal" ? new CairnError("io", known.message, { cause: error }) : known;
}

/** Passes pieces on until the signal aborts; does not wait for a stream that stands still. */
async function* stoppable(
  content: AsyncIterable<Uint8Array>,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array> {
  const pieces = content[Symbol.asyncIterator]();
  let giveUp: (() => void) | null = null;
  const stop = (): void => giveUp?.();
  signal?.addEventListener("abort", stop);
  try {
    for (;;) {
      throwIfAborted(signal);
      // One shared promise in a race would keep every piece in memory.
      const { promise, resolve, reject } = Promise.withResolvers<IteratorResult<Uint8Array>>();
      giveUp = () => reject(new CairnError("interrupted", "stopped by the caller", { cause: signal?.reason }));
      pieces.next().then(resolve, (error: unknown) => reject(readFailure(error)));
      const { value, done } = await promise;
      if (done === true) return;
      yield value;
    }
  } finally {
    signal?.removeEventListener("abort", stop);
    // Not awaited: on a stream that stands still it may never resolve.
    pieces.return?.().then(undefined, () => undefined);
  }
}
