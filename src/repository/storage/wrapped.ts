import type {
  ByteRange,
  FileKind,
  SaveOptions,
  Storage,
  StorageCall,
  StorageOperation,
  StoredFile,
} from "./storage.ts";

/** A call: its operation, its file or kind of files, and its caller. */
export interface AskedCall<Call extends StorageCall = StorageCall> {
  readonly operation: StorageOperation;
  readonly kind: FileKind;
  readonly name?: string;
  readonly call: Call | undefined;
}

/** Runs a call on the inner storage. */
export type RunCall<T, Call extends StorageCall> = (call: Call | undefined) => Promise<T>;

/**
 * A storage around another storage, to which it passes all calls. An optional method exists only if the inner storage
 * has it.
 */
export class WrappedStorage implements Storage {
  protected readonly inner: Storage;
  readonly temporaryDirectory?: string;
  localPath?: (kind: FileKind, name: string) => string;
  now?: NonNullable<Storage["now"]>;
  clearTemporaries?: NonNullable<Storage["clearTemporaries"]>;
  close?: () => Promise<void>;

  constructor(inner: Storage) {
    this.inner = inner;
    if (inner.temporaryDirectory !== undefined) this.temporaryDirectory = inner.temporaryDirectory;
    if (inner.localPath !== undefined) this.localPath = (kind, name) => inner.localPath!(kind, name);
    if (inner.now !== undefined)
      this.now = (own) => this.through({ operation: "exists", kind: "config", call: own }, (call) => inner.now!(call));
    if (inner.clearTemporaries !== undefined) this.clearTemporaries = (...given) => inner.clearTemporaries!(...given);
    if (inner.close !== undefined) this.close = () => inner.close!();
  }

  get location(): string {
    return this.inner.location;
  }

  /** Passes a call on. Subclasses that change all calls override this method. */
  protected through<T, Call extends StorageCall>(asked: AskedCall<Call>, run: RunCall<T, Call>): Promise<T> {
    return run(asked.call);
  }

  async save(kind: FileKind, name: string, bytes: Uint8Array, options?: SaveOptions): Promise<void> {
    const asked = { operation: "save", kind, name, call: options } as const;
    await this.through(asked, (call) => this.inner.save(kind, name, bytes, call));
  }

  async saveFile(kind: FileKind, name: string, temporaryPath: string, options?: SaveOptions): Promise<void> {
    const asked = { operation: "saveFile", kind, name, call: options } as const;
    await this.through(asked, (call) => this.inner.saveFile(kind, name, temporaryPath, call));
  }

  async load(kind: FileKind, name: string, range?: ByteRange, own?: StorageCall): Promise<Uint8Array> {
    const asked = { operation: "load", kind, name, call: own } as const;
    return this.through(asked, (call) => this.inner.load(kind, name, range, call));
  }

  async list(kind: FileKind, own?: StorageCall): Promise<StoredFile[]> {
    return this.through({ operation: "list", kind, call: own }, (call) => this.inner.list(kind, call));
  }

  async exists(kind: FileKind, name: string, own?: StorageCall): Promise<boolean> {
    return this.through({ operation: "exists", kind, name, call: own }, (call) => this.inner.exists(kind, name, call));
  }

  async remove(kind: FileKind, name: string, own?: StorageCall): Promise<void> {
    await this.through({ operation: "remove", kind, name, call: own }, (call) => this.inner.remove(kind, name, call));
  }

  async sync(kinds: readonly FileKind[], own?: StorageCall): Promise<void> {
    const [kind] = kinds;
    if (kind === undefined) return;
    await this.through({ operation: "sync", kind, call: own }, (call) => this.inner.sync(kinds, call));
  }
}
