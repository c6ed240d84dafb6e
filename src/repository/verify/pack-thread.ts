import fs from "node:fs";
import { Sha256Stream } from "../../crypto/hash.ts";
import { CairnError, toCairnError } from "../../errors.ts";
import { throwIfRanOut } from "../../fs/linux/errno.ts";
import type { IndexBlob } from "../../formats/restic/pack-header.ts";
import { objectIdOf } from "../../ids.ts";
import { BlobIndex, DATA_BLOB } from "../index/blob-index.ts";
import { type BlobPlace, BlobReader } from "../packs/blob-reader.ts";
import { type PackFiles, packFolder } from "../read/near-packs.ts";
import { type PackProblem, PackVerifier } from "./pack-verifier.ts";
import { type PackReport, V, type VerifyRequest, type VerifyTask } from "./verify-task.ts";

const WAIT_MS = 50;

/** Proves packs in one thread, one after the other, from the main thread's queue. */
class PackThread {
  readonly #task: VerifyTask;
  readonly #index: BlobIndex;
  readonly #files: PackFiles;
  readonly #verifier: PackVerifier;
  readonly #control: Int32Array;
  readonly #queue: Int32Array;
  readonly #proven: Uint8Array;
  /** Number of the pack that is being read. */
  #number = 0;
  /** bytes that are not in `KIB_DONE` yet */
  #uncounted = 0;
  #reader: BlobReader | undefined;

  constructor(task: VerifyTask) {
    this.#task = task;
    this.#index = BlobIndex.fromShared(task.index);
    this.#files = packFolder(task.packs);
    this.#verifier = new PackVerifier(task.keys);
    this.#control = new Int32Array(task.control);
    this.#queue = new Int32Array(task.queue);
    this.#proven = new Uint8Array(task.proven);
  }

  /** Takes packs until the queue is closed and empty. Returns reports of damage; throws only if it is stopped. */
  packs(): PackReport[] {
    const reports: PackReport[] = [];
    for (let at = this.#take(); at >= 0; at = this.#take()) {
      const report = this.#pack(this.#queue[at]!);
      if (report !== null) reports.push(report);
      Atomics.add(this.#control, V.PACKS_DONE, 1);
    }
    return reports;
  }

  /** Takes a position of the queue and waits until it is filled. Returns -1 if the queue is closed. */
  #take(): number {
    const control = this.#control;
    const at = Atomics.add(control, V.NEXT, 1);
    for (;;) {
      this.#checkStop();
      // Read in this order, so that no pack queued before the closing is missed.
      const signal = Atomics.load(control, V.SIGNAL);
      const closed = Atomics.load(control, V.CLOSED);
      if (at < Atomics.load(control, V.COUNT)) return at;
      if (closed !== 0) return -1;
      Atomics.wait(control, V.SIGNAL, signal, WAIT_MS);
    }
  }

  #checkStop(): void {
    if (Atomics.load(this.#control, V.STOP) !== 0) throw new CairnError("interrupted", "the verification was stopped");
  }

  #pack(number: number): PackReport | null {
    const id = this.#index.table.packId(number);
    let descriptor: number;
    try {
      descriptor = this.#files.open(objectIdOf(id));
    } catch (error) {
      const { cause, details, message } = toCairnError(error);
      throwIfRanOut(cause);
      return details?.["missing_pack"] === undefined
        ? { pack: number, kind: "unreadable", message, blobs: [] }
        : { pack: number, kind: "missing", message: "the file is missing", blobs: [] };
    }
    try {
      const { size } = fs.fstatSync(descriptor);
      this.#number = number;
      return this.#report(number, this.#verifier.verify({ descriptor, size, id, onBlob: this.#onBlob }));
    } catch (error) {
      throwIfRanOut(error);
      const { code, message } = toCairnError(error);
      if (code === "interrupted") throw error;
      return { pack: number, kind: "unreadable", message, blobs: [] };
    } finally {
      fs.closeSync(descriptor);
    }
  }

  /** One function for all packs: V8 optimizes a call of always the same function better. */
  readonly #onBlob = (blob: IndexBlob): void => {
    const entry = this.#entryAt(this.#number, blob);
    if (entry >= 0) this.#proven[entry] = 1;
    Atomics.add(this.#control, V.BLOBS_DONE, 1);
    // Small blobs count once they add up to a KiB.
    this.#uncounted += blob.length;
    Atomics.add(this.#control, V.KIB_DONE, Math.floor(this.#uncounted / 1024));
    this.#uncounted %= 1024;
    this.#checkStop();
  };

  /**
   * Returns the entry that the index reads from this place; -1 if the index reads the blob from another place, or does
   * not have it.
   */
  #entryAt(pack: number, blob: IndexBlob): number {
    const { table } = this.#index;
    const entry = this.#index.entryOf(blob);
    if (entry < 0 || table.packOf[entry] !== pack || table.offsetOf[entry] !== blob.offset) return -1;
    return table.lengthOf[entry] === blob.length && table.plainOf[entry] === blob.uncompressedLength ? entry : -1;
  }

  #report(pack: number, problems: readonly PackProblem[]): PackReport | null {
    if (problems.length === 0) return null;
    const report: PackReport = { pack, kind: null, message: "", blobs: [] };
    for (const { kind, message, blob } of problems) {
      const entry = blob === undefined ? -1 : this.#entryAt(pack, blob);
      if (entry >= 0) report.blobs.push({ entry, message });
      // A wrong name follows from other damage, so it is reported only without that.
      if (kind !== "blob" && (report.kind === null || report.kind === "name")) {
        report.kind = kind;
        report.message = message;
      }
    }
    if (report.kind === "header") this.#byIndex(report);
    return report;
  }

  /** Without a header, the index tells the places of the blobs. */
  #byIndex(report: PackReport): void {
    const { table } = this.#index;
    const entries: number[] = [];
    for (let entry = 0; entry < table.count; entry++) if (table.packOf[entry] === report.pack) entries.push(entry);
    entries.sort((a, b) => table.offsetOf[a]! - table.offsetOf[b]!);
    const places = entries.map((entry): BlobPlace => ({ ...this.#index.place(entry), id: this.#index.idOf(entry) }));
    const reader = this.#blobReader();
    reader.readWindow(
      places,
      (i) => {
        this.#proven[entries[i]!] = 1;
        this.#checkStop();
      },
      (i, error) => void report.blobs.push({ entry: entries[i]!, message: reasonOf(error) }),
    );
    reader.close();
  }

  #blobReader(): BlobReader {
    return (this.#reader ??= new BlobReader({ keys: this.#task.keys, openPack: (pack) => this.#files.open(pack) }));
  }

  /** Returns the SHA-256 of a file's blobs, one after the other; null if one of them cannot be read. */
  hashFile(content: Uint8Array): Uint8Array | null {
    const hash = new Sha256Stream();
    const reader = this.#blobReader();
    try {
      for (let at = 0; at < content.length; at += 32) {
        this.#checkStop();
        const entry = this.#index.lookup(content, at, DATA_BLOB);
        if (entry < 0) return null;
        hash.update(reader.view({ ...this.#index.place(entry), id: this.#index.idOf(entry) }));
      }
    } catch (error) {
      if (toCairnError(error).code === "interrupted") throw error;
      throwIfRanOut(error);
      return null;
    }
    return Uint8Array.from(hash.digest());
  }

  close(): void {
    this.#reader?.close();
  }
}

function reasonOf(error: CairnError): string {
  return typeof error.details?.["reason"] === "string" ? error.details["reason"] : error.message;
}

/** Handles the requests to a verifying thread. */
export class VerifyRunner {
  #thread: PackThread | null = null;

  handle(request: VerifyRequest): unknown {
    switch (request.kind) {
      case "verify-packs":
        this.#thread?.close();
        this.#thread = new PackThread(request.task);
        return this.#thread.packs();
      case "verify-file":
        return this.#thread!.hashFile(request.content);
      case "verify-end":
        this.#thread?.close();
        this.#thread = null;
        return null;
    }
  }
}
