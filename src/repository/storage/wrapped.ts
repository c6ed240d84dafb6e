import type { ByteRange, FileKind, SaveOptions, Storage, StorageCall, StoredFile } from "./storage.ts";

/** A storage around a storage. It passes everything on as it is; what only some have is there where the inner one has it. */
export class WrappedStorage implements Storage {
  protected readonly inner: Storage;
  readonly temporaryDirectory?: string;
  localPath?: (kind: FileKind, name: string) => string;
  clearTemporaries?: NonNullable<Storage["clearTemporaries"]>;
  close?: () => Promise<void>;

  constructor(inner: Storage) {
    this.inner = inner;
    if (inner.temporaryDirectory !== undefined) this.temporaryDirectory = inner.temporaryDirectory;
    if (inner.localPath !== undefined) this.localPath = (kind, name) => inner.localPath!(kind, name);
    if (inner.clearTemporaries !== undefined) this.clearTemporaries = (...given) => inner.clearTemporaries!(...given);
    if (inner.close !== undefined) this.close = () => inner.close!();
  }

  get location(): string {
    return this.inner.location;
  }

  async save(kind: FileKind, name: string, bytes: Uint8Array, options?: SaveOptions): Promise<void> {
    await this.inner.save(kind, name, bytes, options);
  }

  async saveFile(kind: FileKind, name: string, temporaryPath: string, options?: SaveOptions): Promise<void> {
    await this.inner.saveFile(kind, name, temporaryPath, options);
  }

  async load(kind: FileKind, name: string, range?: ByteRange, call?: StorageCall): Promise<Uint8Array> {
    return this.inner.load(kind, name, range, call);
  }

  async list(kind: FileKind, call?: StorageCall): Promise<StoredFile[]> {
    return this.inner.list(kind, call);
  }

  async exists(kind: FileKind, name: string, call?: StorageCall): Promise<boolean> {
    return this.inner.exists(kind, name, call);
  }

  async remove(kind: FileKind, name: string, call?: StorageCall): Promise<void> {
    await this.inner.remove(kind, name, call);
  }

  async sync(kinds: readonly FileKind[], call?: StorageCall): Promise<void> {
    await this.inner.sync(kinds, call);
  }
}
