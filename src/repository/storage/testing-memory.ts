import { readFileSync, unlinkSync } from "node:fs";
import { CairnError, toCairnError } from "../../errors.ts";
import { isFileName, labelOf, type ByteRange, type FileKind, type Storage, type StoredFile } from "./storage.ts";

/** A repository that lives in this process only; for tests and for streams that never touch a disk. */
export class MemoryStorage implements Storage {
  readonly location = "memory";
  readonly #files = new Map<string, Uint8Array>();

  async save(kind: FileKind, name: string, bytes: Uint8Array): Promise<void> {
    const key = keyOf(kind, name);
    if (kind === "config" && this.#files.has(key))
      throw new CairnError("already_exists", "there is a repository here already");
    this.#files.set(key, Uint8Array.from(bytes));
  }

  async saveFile(kind: FileKind, name: string, temporaryPath: string): Promise<void> {
    let bytes: Uint8Array;
    try {
      bytes = readFileSync(temporaryPath);
    } catch (error) {
      throw toCairnError(error, `cannot take ${labelOf(kind, name)} over`);
    }
    await this.save(kind, name, bytes);
    unlinkSync(temporaryPath);
  }

  async load(kind: FileKind, name: string, range?: ByteRange): Promise<Uint8Array> {
    const bytes = this.#files.get(keyOf(kind, name));
    if (bytes === undefined) throw new CairnError("not_found", `no ${labelOf(kind, name)} in memory`);
    if (range === undefined) return Uint8Array.from(bytes);
    if (range.offset < 0 || range.length < 0 || range.offset + range.length > bytes.length) {
      throw new CairnError(
        "damaged",
        `the file has ${bytes.length} bytes; bytes ${range.offset} to ${range.offset + range.length} were wanted`,
      );
    }
    return Uint8Array.from(bytes.subarray(range.offset, range.offset + range.length));
  }

  async list(kind: FileKind): Promise<StoredFile[]> {
    const found: StoredFile[] = [];
    for (const [key, bytes] of this.#files) {
      if (key.startsWith(`${kind}/`)) found.push({ name: key.slice(kind.length + 1), size: bytes.length });
    }
    return found;
  }

  async exists(kind: FileKind, name: string): Promise<boolean> {
    return this.#files.has(keyOf(kind, name));
  }

  async remove(kind: FileKind, name: string): Promise<void> {
    if (!this.#files.delete(keyOf(kind, name)))
      throw new CairnError("not_found", `no ${labelOf(kind, name)} in memory`);
  }

  async sync(): Promise<void> {}
}

function keyOf(kind: FileKind, name: string): string {
  if (!isFileName(kind, name))
    throw new CairnError("invalid_id", `not a name of a file of ${kind}: ${JSON.stringify(name.slice(0, 80))}`);
  return `${kind}/${name}`;
}
