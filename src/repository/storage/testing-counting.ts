import type { ByteRange, FileKind, SaveOptions, StorageCall, StorageOperation, StoredFile } from "./storage.ts";
import { WrappedStorage } from "./wrapped.ts";

/** Counts calls by `operation kind`, and the bytes read and written. */
export class CountingStorage extends WrappedStorage {
  readonly counts = new Map<string, number>();
  /** Number of calls that started while no other call was running: a lower limit of the sequential round trips. */
  rounds = 0;
  bytesRead = 0;
  bytesWritten = 0;
  #underWay = 0;

  /** Returns the number of calls of an operation, for one kind of files or for all. */
  count(operation: StorageOperation, kind?: FileKind): number {
    if (kind !== undefined) return this.counts.get(`${operation} ${kind}`) ?? 0;
    let sum = 0;
    for (const [key, count] of this.counts) if (key.startsWith(`${operation} `)) sum += count;
    return sum;
  }

  override async save(kind: FileKind, name: string, bytes: Uint8Array, options?: SaveOptions): Promise<void> {
    this.bytesWritten += bytes.length;
    await this.#counted("save", kind, async () => this.inner.save(kind, name, bytes, options));
  }

  override async saveFile(kind: FileKind, name: string, temporaryPath: string, options?: SaveOptions): Promise<void> {
    await this.#counted("saveFile", kind, async () => this.inner.saveFile(kind, name, temporaryPath, options));
  }

  override async load(kind: FileKind, name: string, range?: ByteRange, call?: StorageCall): Promise<Uint8Array> {
    const bytes = await this.#counted("load", kind, async () => this.inner.load(kind, name, range, call));
    this.bytesRead += bytes.length;
    return bytes;
  }

  override async list(kind: FileKind, call?: StorageCall): Promise<StoredFile[]> {
    return this.#counted("list", kind, async () => this.inner.list(kind, call));
  }

  override async exists(kind: FileKind, name: string, call?: StorageCall): Promise<boolean> {
    return this.#counted("exists", kind, async () => this.inner.exists(kind, name, call));
  }

  override async remove(kind: FileKind, name: string, call?: StorageCall): Promise<void> {
    await this.#counted("remove", kind, async () => this.inner.remove(kind, name, call));
  }

  override async sync(kinds: readonly FileKind[], call?: StorageCall): Promise<void> {
    for (const kind of kinds) this.#note("sync", kind);
    await this.inner.sync(kinds, call);
  }

  async #counted<T>(operation: StorageOperation, kind: FileKind, call: () => Promise<T>): Promise<T> {
    this.#note(operation, kind);
    if (this.#underWay++ === 0) this.rounds++;
    try {
      return await call();
    } finally {
      this.#underWay--;
    }
  }

  #note(operation: StorageOperation, kind: FileKind): void {
    const key = `${operation} ${kind}`;
    this.counts.set(key, (this.counts.get(key) ?? 0) + 1);
  }
}
