import { randomBytes } from "node:crypto";
import { createWriteStream, mkdtempSync, rmSync, statSync } from "node:fs";
import type { IncomingMessage } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { Busboy } from "@fastify/busboy";
import { CairnError } from "../../errors.ts";

/** Files that clients sent, in a folder of this process's own, until they are imported or too old. */
export class Uploads implements Disposable {
  readonly #folder = mkdtempSync(join(tmpdir(), "cairn-context-"));
  readonly #limit: number;
  readonly #received = new Map<string, number>();
  #coming = 0;

  /** `limit`: most bytes of a file. */
  constructor(limit: number) {
    this.#limit = limit;
  }

  [Symbol.dispose](): void {
    rmSync(this.#folder, { recursive: true, force: true });
  }

  /** A name for a file of ours, which whoever makes it removes. */
  place(): string {
    return join(this.#folder, `made_${randomBytes(16).toString("hex")}.ovpack`);
  }

  /** Takes the part `file` of a form. Answers its id. Throws `usage` for what is no such form, or too long. */
  async receive(request: IncomingMessage): Promise<string> {
    this.#sweep();
    if (this.#received.size + this.#coming >= MOST)
      throw new CairnError("busy", `${MOST} files wait to be imported; import them, or wait until they are too old`);
    this.#coming++;
    try {
      return await this.#receive(request);
    } finally {
      this.#coming--;
    }
  }

  async #receive(request: IncomingMessage): Promise<string> {
    const type = request.headers["content-type"];
    if (type === undefined || !/^multipart\/form-data;/i.test(type))
      throw new CairnError("usage", "a form is wanted (multipart/form-data) with a part `file`", {
        details: { field: "file" },
      });
    const id = `upload_${randomBytes(16).toString("hex")}.ovpack`;
    const place = join(this.#folder, id);
    let written: Promise<void> | undefined;
    let isCut = false;
    try {
      const limits = { files: 1, fields: 20, fieldSize: 4096, fileSize: this.#limit, parts: 21 };
      const form = new Busboy({ headers: { ...request.headers, "content-type": type }, limits });
      form.on("file", (name, file) => {
        if (name !== "file" || written !== undefined) return void file.resume();
        file.on("limit", () => (isCut = true));
        written = pipeline(file, createWriteStream(place, { flags: "wx", mode: 0o600 }));
        written.catch(() => undefined);
      });
      await pipeline(request, form);
      await written;
    } catch (error) {
      rmSync(place, { force: true });
      const { code } = error as NodeJS.ErrnoException;
      if (code === "ENOSPC" || code === "EDQUOT") throw error;
      throw new CairnError("usage", `the form cannot be read: ${(error as Error).message}`, { cause: error });
    }
    if (written === undefined)
      throw new CairnError("usage", "the form has no part `file`", { details: { field: "file" } });
    if (isCut) {
      rmSync(place, { force: true });
      throw new CairnError("usage", `a file may have ${this.#limit} bytes here`, { details: { limit: this.#limit } });
    }
    this.#received.set(id, Date.now());
    return id;
  }

  /** Throws `permission` for an id that was not given, or is too old. */
  find(id: string): string {
    this.#sweep();
    if (!this.#received.has(id))
      throw new CairnError("permission", "there is no such upload", { details: { temp_file_id: id } });
    return join(this.#folder, id);
  }

  remove(id: string): void {
    this.#received.delete(id);
    rmSync(join(this.#folder, id), { force: true });
  }

  #sweep(): void {
    const now = Date.now();
    for (const [id, at] of this.#received)
      if (now - at > KEPT_MS || statSync(join(this.#folder, id), { throwIfNoEntry: false }) === undefined)
        this.remove(id);
  }
}

const MOST = 64;
const KEPT_MS = 12 * 3_600_000;
