import { createHash, type Hash } from "node:crypto";
import { lstatSync, renameSync } from "node:fs";
import { link, rm, type FileHandle } from "node:fs/promises";
import { dirname } from "node:path";
import { CairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { refusesLink } from "../../fs/durable.ts";
import { comesWithFolder, labelOf, type FileKind } from "../../repository/storage/storage.ts";
import { isAbsent, makeDirectory, syncDirectory } from "./folders.ts";

export interface UploadParts {
  kind: FileKind;
  name: string;
  temporary: string;
  handle: FileHandle;
  path: string;
  /** The group that shares the repository, or false. */
  group: number | false;
}

/**
 * An upload. Steps: the bytes go to a temporary file ‖ they are compared with the name and flushed ‖ ● a link gives the
 * file its name ‖ the temporary name is removed ‖ the folder is flushed. A kill before ● leaves an invisible temporary
 * file; a kill after it leaves the whole file, and perhaps the temporary name.
 */
export class Upload {
  readonly #parts: UploadParts;
  readonly #hash: Hash = createHash("sha256");
  #open = true;

  constructor(parts: UploadParts) {
    this.#parts = parts;
  }

  async write(bytes: Uint8Array): Promise<void> {
    this.#hash.update(bytes);
    for (let done = 0; done < bytes.length;) {
      const { bytesWritten } = await this.#parts.handle.write(bytes, done, bytes.length - done);
      if (bytesWritten === 0) throw new CairnError("io", "the operating system wrote nothing");
      done += bytesWritten;
    }
  }

  /** Gives the file its name, durably. `there`: the name is taken, and that file stays. Throws `damaged` if bytes and name differ. */
  async finish(): Promise<"saved" | "there"> {
    const { kind, name, handle, temporary, path } = this.#parts;
    const digest = this.#hash.digest("hex");
    if (kind !== "config" && digest !== name)
      throw new CairnError("damaged", `the bytes that arrived are not those of ${labelOf(kind, name)}`);
    failpoint("serve-received");
    await handle.sync();
    await this.#close();
    failpoint("serve-flushed");
    const outcome = await this.#giveName(kind, path);
    failpoint("serve-named");
    await rm(temporary, { force: true });
    failpoint("serve-single");
    await syncDirectory(dirname(path));
    return outcome;
  }

  /** Ends the upload and removes its file, unless it is finished. */
  async discard(): Promise<void> {
    await this.#close().catch(() => undefined);
    await rm(this.#parts.temporary, { force: true }).catch(() => undefined);
  }

  async #giveName(kind: FileKind, path: string): Promise<"saved" | "there"> {
    try {
      return await this.#link(path);
    } catch (error) {
      if (!isAbsent(error) || !comesWithFolder(kind)) throw error;
      await makeDirectory(dirname(path), this.#parts.group);
      await syncDirectory(dirname(dirname(path)));
      return this.#link(path);
    }
  }

  async #link(path: string): Promise<"saved" | "there"> {
    const { temporary } = this.#parts;
    try {
      await link(temporary, path);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "EEXIST") return "there";
      if (!refusesLink(error)) throw error;
      // Without links: no other code of this process runs between these two calls.
      if (lstatSync(path, { throwIfNoEntry: false }) !== undefined) return "there";
      renameSync(temporary, path);
    }
    return "saved";
  }

  async #close(): Promise<void> {
    if (!this.#open) return;
    this.#open = false;
    await this.#parts.handle.close();
  }
}
