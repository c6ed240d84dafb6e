import type { ByteRange, FileKind, SaveOptions, Storage, StorageCall, StoredFile } from "./storage.ts";
import { WrappedStorage } from "./wrapped.ts";

/**
 * A storage as it is for one operation: each call is made with its signal and tells it of retries. Connections, limits and
 * caches are those of the storage, for all operations together, and so is closing it.
 */
export class CallStorage extends WrappedStorage {
  readonly #call: StorageCall;

  constructor(inner: Storage, call: StorageCall) {
    super(inner);
    this.#call = call;
    delete this.close;
    if (inner.clearTemporaries !== undefined) this.clearTemporaries = (ageMs) => inner.clearTemporaries!(ageMs, call);
  }

  override async save(kind: FileKind, name: string, bytes: Uint8Array, options?: SaveOptions): Promise<void> {
    await this.inner.save(kind, name, bytes, { ...options, ...this.#call });
  }

  override async saveFile(kind: FileKind, name: string, temporaryPath: string, options?: SaveOptions): Promise<void> {
    await this.inner.saveFile(kind, name, temporaryPath, { ...options, ...this.#call });
  }

  override async load(kind: FileKind, name: string, range?: ByteRange): Promise<Uint8Array> {
    return this.inner.load(kind, name, range, this.#call);
  }

  override async list(kind: FileKind): Promise<StoredFile[]> {
    return this.inner.list(kind, this.#call);
  }

  override async exists(kind: FileKind, name: string): Promise<boolean> {
    return this.inner.exists(kind, name, this.#call);
  }

  override async remove(kind: FileKind, name: string): Promise<void> {
    await this.inner.remove(kind, name, this.#call);
  }

  override async sync(kinds: readonly FileKind[]): Promise<void> {
    await this.inner.sync(kinds, this.#call);
  }
}
