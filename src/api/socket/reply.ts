import type { ServerResponse } from "node:http";
import { tellError } from "../../contract/error-record.ts";
import { toWire } from "../../contract/wire.ts";
import { CairnError, ERROR_TABLE } from "../../errors.ts";

const VERSION = 1;
/** The type of an answer in lines of JSON. */
export const LINES = "application/x-ndjson";
/** Bytes of progress and warnings that may wait for a slow reader. */
const MAX_WAITING = 8 << 20;
/** Milliseconds for which a reader may take nothing. */
const SILENCE_MS = 60_000;

/** An answer in one object, or in lines as it comes. */
export class Reply {
  readonly #response: ServerResponse;
  readonly #inLines: boolean;
  readonly #warnings: string[] = [];

  constructor(response: ServerResponse, inLines: boolean) {
    this.#response = response;
    this.#inLines = inLines;
    response.setHeader("x-content-type-options", "nosniff");
  }

  /** A line for callers that take lines; others miss it. */
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

  /** Resolves when the reader has taken most of what was written; one that takes nothing for long loses the connection. */
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

  /** The head of an answer in lines goes out: the call was taken. */
  open(): void {
    if (!this.#inLines || this.#response.destroyed || this.#response.headersSent) return;
    this.#response.writeHead(200, { "content-type": LINES });
    this.#response.flushHeaders();
  }

  end(answered: unknown): void {
    this.#finish(200, { ok: true, data: answered ?? null, error: null });
  }

  /** The call goes on as what is at that place. */
  accept(location: string, answered: object): void {
    if (this.#response.destroyed) return;
    this.#response.setHeader("location", location).setHeader("preference-applied", "respond-async");
    this.#finish(202, { ok: true, data: answered, error: null });
  }

  fail(error: CairnError): void {
    this.#finish(ERROR_TABLE[error.code].http, { ok: false, data: null, error: tellError(error) });
  }

  /** Tells somebody whom nobody knows to send a token. */
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
    // Whoever does not take it loses the connection.
    response.setTimeout(SILENCE_MS);
  }
}
