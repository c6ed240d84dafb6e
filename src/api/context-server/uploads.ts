import { randomBytes } from "node:crypto";
import { createWriteStream, mkdirSync, readdirSync, rmSync, statSync, type WriteStream } from "node:fs";
import { once } from "node:events";
import type { IncomingMessage } from "node:http";
import { join } from "node:path";
import { finished } from "node:stream/promises";
import { Busboy } from "@fastify/busboy";
import { CairnError, toCairnError } from "../../errors.ts";
import { pidIsAlive } from "../../fs/lock-owner.ts";
import { clearAway } from "../../fs/remove-all.ts";

const MOST = 16;
const KEPT_MS = 12 * 3_600_000;
/** Milliseconds for writing the received bytes. */
const END_MS = 10_000;
/**
 * Milliseconds without a new file after which the folder of an invisible program, perhaps on another host, is removed.
 */
const IDLE_MS = 3_600_000;

/** Files that clients sent, until they are imported or too old. The process keeps them in its own folder beside the store's index. */
export class Uploads implements Disposable {
  readonly #folder: string;
  readonly #limit: number;
  /** Arrival times, the oldest first. */
  readonly #received = new Map<string, number>();
  #coming = 0;

  /** `limit`: most bytes of a file. Removes folders of programs that have ended. */
  constructor(parent: string, limit: number) {
    mkdirSync(parent, { recursive: true, mode: 0o700 });
    for (const name of readdirSync(parent))
      if (
        !pidIsAlive({ pid: Number(name.split("-", 1)[0]), start_time: "" }) &&
        Date.now() - statSync(join(parent, name)).mtimeMs > IDLE_MS
      )
        clearAway(join(parent, name));
    this.#folder = join(parent, `${process.pid}-${randomBytes(8).toString("hex")}`);
    mkdirSync(this.#folder, { mode: 0o700 });
    this.#limit = limit;
  }

  [Symbol.dispose](): void {
    clearAway(this.#folder);
  }

  /** Returns a path for a file of this server. The caller who makes the file removes it. */
  place(): string {
    mkdirSync(this.#folder, { recursive: true, mode: 0o700 });
    return join(this.#folder, `made_${randomBytes(16).toString("hex")}.ovpack`);
  }

  /** Stores the part `file` of a form. Returns its id. Throws `usage` for another form, or a file that is too long; `no_space`. */
  async receive(request: IncomingMessage, signal: AbortSignal): Promise<string> {
    this.#sweep(MOST - 1);
    if (this.#coming >= MOST) throw new CairnError("busy", `${MOST} files are being uploaded already`);
    this.#coming++;
    const id = `upload_${randomBytes(16).toString("hex")}.ovpack`;
    try {
      await this.#write(request, join(this.#folder, id), signal);
    } catch (error) {
      rmSync(join(this.#folder, id), { force: true });
      throw error;
    } finally {
      this.#coming--;
    }
    this.#received.set(id, Date.now());
    return id;
  }

  async #write(request: IncomingMessage, place: string, signal: AbortSignal): Promise<void> {
    mkdirSync(this.#folder, { recursive: true, mode: 0o700 });
    const type = request.headers["content-type"];
    if (type === undefined || !/^multipart\/form-data;/i.test(type))
      throw new CairnError("usage", "expected a form (multipart/form-data) with a part `file`", {
        details: { field: "file" },
      });
    const limits = { files: 1, fields: 20, fieldSize: 4096, fileSize: this.#limit, parts: 21 };
    const form = openForm(request, type, limits);
    let out: WriteStream | undefined;
    let isCut = false;
    const failed = new Promise<never>((_, reject) => {
      form.once("error", (error) => reject(unreadable(error as Error)));
      form.on("file", (name, file) => {
        if (name !== "file" || out !== undefined) return void file.resume();
        out = createWriteStream(place, { flags: "wx", mode: 0o600 });
        file.once("limit", () => (isCut = true));
        file.once("error", (error) => reject(unreadable(error)));
        out.once("error", (error) => reject(toCairnError(error, "store the uploaded file")));
        file.pipe(out);
      });
    });
    failed.catch(() => undefined);
    const gone = (of: AbortSignal): Promise<never> =>
      new Promise((_, reject) => {
        const leave = (): void => reject(unreadable(new Error("it is incomplete")));
        if (of.aborted) leave();
        else of.addEventListener("abort", leave, { once: true });
      });
    const left = gone(signal);
    left.catch(() => undefined);
    try {
      for await (const piece of request.iterator({ destroyOnReturn: false }))
        if (!form.write(piece)) await Promise.race([once(form, "drain"), failed, left]);
      form.end();
      // The form parser would wait for the end of an unfinished part even after the request has ended.
      const late = gone(AbortSignal.timeout(END_MS));
      late.catch(() => undefined);
      await Promise.race([once(form, "finish"), failed, left, late]);
      if (out !== undefined) await Promise.race([finished(out), failed, left, late]);
    } catch (error) {
      throw error instanceof CairnError ? error : unreadable(error as Error);
    } finally {
      form.destroy();
      // A file that is still being created would appear after its removal.
      if (out !== undefined) await closed(out);
    }
    if (out === undefined) throw new CairnError("usage", "the form has no part `file`", { details: { field: "file" } });
    if (isCut)
      throw new CairnError("usage", `a file may have at most ${this.#limit} bytes`, {
        details: { limit: this.#limit },
      });
  }

  /** Returns the path of an upload. Throws `permission` for an unknown id or an upload that is too old. */
  find(id: string): string {
    this.#sweep(MOST);
    if (!this.#received.has(id))
      throw new CairnError("permission", "there is no such upload", { details: { temp_file_id: id } });
    return join(this.#folder, id);
  }

  remove(id: string): void {
    this.#received.delete(id);
    rmSync(join(this.#folder, id), { force: true });
  }

  /** Removes uploads that are too old, and the oldest if there are too many. */
  #sweep(most: number): void {
    const now = Date.now();
    for (const [id, at] of this.#received) if (now - at > KEPT_MS || this.#received.size > most) this.remove(id);
  }
}

function closed(out: WriteStream): Promise<void> {
  return new Promise((done) => {
    if (out.closed) done();
    else out.once("close", done).destroy();
  });
}

function openForm(request: IncomingMessage, type: string, limits: object): InstanceType<typeof Busboy> {
  try {
    return new Busboy({ headers: { ...request.headers, "content-type": type }, limits });
  } catch (error) {
    throw unreadable(error as Error);
  }
}

function unreadable(error: Error): CairnError {
  return new CairnError("usage", `the form cannot be read: ${error.message}`, { cause: error });
}
