import type { ServerResponse } from "node:http";
import { tellError } from "../contract/error-record.ts";
import { toWire } from "../contract/wire.ts";
import { CairnError, ERROR_TABLE } from "../errors.ts";

const VERSION = 1;
/** The content type of an answer in lines of JSON. */
export const LINES = "application/x-ndjson";
/** Bytes of progress and warnings that may wait for a slow reader. */
const MAX_WAITING = 8 << 20;
/** Milliseconds after which a reader who takes nothing is cut off. */
const SILENCE_MS = 60_000;

/** An answer in one object, or in lines while the call runs. */
export class Reply {
  readonly #response: ServerResponse;
  readonly #inLines: boolean;
  readonly #warnings: string[] = [];

  constructor(response: ServerResponse, inLines: boolean) {
    this.#response = response;
    this.#inLines = inLines;
    response.setHeader("x-content-type-options", "nosniff");
  }

  /** Sends a line to callers that accept lines. */
  line(value: unknown): void {
    if (!this.#inLines || this.#response.destroyed) return;
    this.open();
    if (this.#response.writableLength > MAX_WAITING) return void this.#response.destroy();
    this.#response.write(`${toWire(value)}\n`);
  }

  warn(message: string): void {
    if (this.#inLines) this.line({ warning: message });
    else this.#warnings.push(message);
  }

  /** Resolves when the reader has taken most of the written bytes. Cuts off a reader who takes nothing for long. */
  async item(item: unknown): Promise<void> {
    const response = this.#response;
    if (!this.#inLines)
      throw new CairnError("usage", "this call returns its answer in pieces", {
        hint: `send the header Accept: ${LINES}`,
      });
    if (response.destroyed) throw new CairnError("interrupted", "the caller went away");
    const wire = item instanceof Uint8Array ? `{"$b64":"${Buffer.from(item).toString("base64")}"}` : toWire(item);
    this.open();
    if (response.write(`{"item":${wire}}\n`)) return;
    const silence = setTimeout(() => response.destroy(), SILENCE_MS);
    await new Promise<void>((done) => {
      response.once("drain", done);
      response.once("close", done);
    });
    clearTimeout(silence);
  }

  /** Sends the head of an answer in lines: the daemon has accepted the call. */
  open(): void {
    if (!this.#inLines || this.#response.destroyed || this.#response.headersSent) return;
    this.#response.writeHead(200, { "content-type": LINES });
    this.#response.flushHeaders();
  }

  end(answered: unknown): void {
    this.#finish(200, { ok: true, data: answered ?? null, error: null });
  }

  /** Answers that the call continues as a job at `location`. */
  accept(location: string, answered: object): void {
    if (this.#response.destroyed) return;
    this.#response.setHeader("location", location).setHeader("preference-applied", "respond-async");
    this.#finish(202, { ok: true, data: answered, error: null });
  }

  fail(error: CairnError): void {
    this.#finish(ERROR_TABLE[error.code].http, { ok: false, data: null, error: tellError(error) });
  }

  /** Asks a caller without a valid token for one. */
  refuse(error: CairnError): void {
    const { details: _details, ...record } = tellError(error);
    if (!this.#response.headersSent) this.#response.setHeader("www-authenticate", "Bearer");
    this.#finish(401, { ok: false, data: null, error: record });
  }

  #finish(status: number, members: object): void {
    const response = this.#response;
    if (response.destroyed) return;
    const text = `${toWire({ schema_version: VERSION, ...members, warnings: this.#warnings })}\n`;
    if (!response.headersSent)
      response.writeHead(status, {
        "content-type": this.#inLines ? LINES : "application/json",
        "content-length": Buffer.byteLength(text),
      });
    response.end(text);
    // A reader who does not take the answer is cut off.
    response.setTimeout(SILENCE_MS);
  }
}
