import { readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { sha256 } from "../../crypto/hash.ts";
import { temporaryName } from "../../fs/durable.ts";
import { makeFolder } from "../../fs/make-folder.ts";
import { readRegular } from "../../fs/regular-file.ts";
import { objectIdOf } from "../../ids.ts";
import {
  isFileName,
  type ByteRange,
  type FileKind,
  type SaveOptions,
  type StorageCall,
  type StoredFile,
} from "./storage.ts";
import { WrappedStorage } from "./wrapped.ts";

/**
 * Keeps the sealed files of a remote storage's snapshots on this machine: every backup reads all snapshots, and
 * snapshots never change. Compares a kept file with its name, its digest. Lists always come from the storage. Skips a
 * cache that cannot be used, without an error.
 */
export class CachedStorage extends WrappedStorage {
  /** The folder of the kept files; null without a cache. */
  #directory: string | null = null;
  /** Above 0 the kept files are not used. */
  #bypassed = 0;

  /** Keeps files in this folder from now on. Only this repository may use the folder. */
  keepIn(directory: string): void {
    try {
      makeFolder(directory);
      this.#directory = directory;
    } catch {
      this.#directory = null;
    }
  }

  /** Runs work that must read from the storage itself. */
  async withoutCache<T>(work: () => Promise<T>): Promise<T> {
    this.#bypassed++;
    try {
      return await work();
    } finally {
      this.#bypassed--;
    }
  }

  override async load(kind: FileKind, name: string, range?: ByteRange, call?: StorageCall): Promise<Uint8Array> {
    if (kind !== "snapshots" || range !== undefined) return this.inner.load(kind, name, range, call);
    const kept = this.#kept(name);
    if (kept !== null) return kept;
    const bytes = await this.inner.load(kind, name, undefined, call);
    this.#keep(name, bytes);
    return bytes;
  }

  override async list(kind: FileKind, call?: StorageCall): Promise<StoredFile[]> {
    const files = await this.inner.list(kind, call);
    if (kind === "snapshots") this.#forgetOthers(files);
    return files;
  }

  override async save(kind: FileKind, name: string, bytes: Uint8Array, options?: SaveOptions): Promise<void> {
    await this.inner.save(kind, name, bytes, options);
    if (kind === "snapshots") this.#keep(name, bytes);
  }

  override async remove(kind: FileKind, name: string, call?: StorageCall): Promise<void> {
    await this.inner.remove(kind, name, call);
    if (kind === "snapshots") this.#drop(name);
  }

  #kept(name: string): Uint8Array | null {
    if (this.#directory === null || this.#bypassed > 0 || !isFileName("snapshots", name)) return null;
    try {
      const bytes = readRegular(join(this.#directory, name));
      return objectIdOf(sha256(bytes)) === name ? bytes : null;
    } catch {
      return null;
    }
  }

  #keep(name: string, bytes: Uint8Array): void {
    if (this.#directory === null || !isFileName("snapshots", name) || objectIdOf(sha256(bytes)) !== name) return;
    const temporary = join(this.#directory, temporaryName());
    try {
      writeFileSync(temporary, bytes, { mode: 0o600 });
      renameSync(temporary, join(this.#directory, name));
    } catch {
      rmSync(temporary, { force: true });
    }
  }

  #drop(name: string): void {
    if (this.#directory !== null && isFileName("snapshots", name)) rmSync(join(this.#directory, name), { force: true });
  }

  /** Removes kept files of snapshots that the storage no longer has. */
  #forgetOthers(files: readonly StoredFile[]): void {
    if (this.#directory === null) return;
    const present = new Set(files.map(({ name }) => name));
    try {
      for (const name of readdirSync(this.#directory))
        if (isFileName("snapshots", name) && !present.has(name)) this.#drop(name);
    } catch {
      return;
    }
  }
}
