import { randomBytes } from "node:crypto";
import net from "node:net";
import { CairnError, throwIfAborted, toCairnError } from "../../errors.ts";
import { parseJson } from "../../formats/fields.ts";

/**
 * A client of Cairn's service in a guest: docs/formats/machine.md describes the protocol. The guest is not trusted: lines,
 * skipped bytes and waits have limits.
 */

/** Longest line of an answer, which has at most 32 KiB in base64. */
const LINE = 64 << 10;
/** Bytes that are skipped: a saved state may have parts of answers to an earlier request. */
const SKIPPED = 4 << 20;
/** Longest request, so that the service accepts it. */
const REQUEST = 96 << 10;
const PIECE = 32 << 10;
/** Bytes of an input that may be on their way. */
const WINDOW = 256 << 10;
/** Milliseconds in which the service begins with a request, also in a busy guest under software emulation. */
const BEGIN_MS = 15_000;
/** Milliseconds between two questions whether the service still works on a request. */
const STILL_MS = 5000;
/** Milliseconds without an answer to these questions after which a request fails. A pause while a large memory is saved is shorter. */
const SILENT_MS = 600_000;

export type Answer = Readonly<Record<string, unknown>>;

interface Input {
  pieces: AsyncIterable<Uint8Array>;
  /** Members of the message after the last piece. */
  end?: () => object;
}

interface Asked {
  /** Called with each answer but the last. The next one is read afterwards. */
  hear?: (answer: Answer) => Promise<void> | void;
  input?: Input;
  /** Milliseconds between two answers; absent: as long as the service says that it still works on the request. */
  quietMs?: number;
  /** Milliseconds until the last answer; absent: no limit. */
  totalMs?: number;
  signal?: AbortSignal | undefined;
}

/**
 * Sends one request to the service at a socket. Returns the content of its last answer. Throws `io` if the guest does
 * not answer in time, sends no valid answer, or says that the request failed; `usage` for a request that is too long.
 */
export async function ask(place: string, request: object, asked: Asked = {}): Promise<Answer> {
  const { hear, input, quietMs, totalMs, signal } = asked;
  throwIfAborted(signal);
  const id = randomBytes(12).toString("hex");
  const text = JSON.stringify({ id, ...request });
  if (text.length > REQUEST) throw new CairnError("usage", `a command for a guest has at most ${REQUEST} bytes`);
  const socket = net.connect(place);
  const end = (error: Error): void => void socket.destroy(error);
  const late = (ms: number): NodeJS.Timeout =>
    setTimeout(() => end(new CairnError("io", `the guest's service did not answer within ${ms / 1000} s`)), ms);
  const total = totalMs === undefined ? undefined : late(totalMs);
  let quiet: NodeJS.Timeout | undefined = late(BEGIN_MS);
  let asking: NodeJS.Timeout | undefined;
  let hasBegun = false;
  const stopped = (): void => end(new CairnError("interrupted", "stopped"));
  signal?.addEventListener("abort", stopped, { once: true });
  const sent = new Sent(socket, id);
  try {
    // The service may hold the beginning of a line of an earlier client.
    socket.write(`\n${text}\n`);
    let skipped = 0;
    for await (const line of linesOf(socket)) {
      const answer = answerIn(line, id);
      if (answer === null) {
        skipped += line.length + 1;
        if (skipped > SKIPPED) throw new CairnError("io", "the guest's service sends lines without a meaning");
        continue;
      }
      clearTimeout(quiet);
      if (answer["began"] !== undefined && !hasBegun) {
        hasBegun = true;
        if (input !== undefined) void sent.all(input).catch(end);
        // A service that starts again, as at a reboot, knows nothing of the request. Version 1 does not know the question.
        if (Number(answer["began"]) > 1) asking = setInterval(() => sent.message({ still: true }), STILL_MS);
      }
      if (answer["done"] !== undefined) return answer["done"] as Answer;
      if (answer["failed"] !== undefined)
        throw new CairnError("io", `the guest's service: ${shown(answer["failed"])}`, { details: { refused: true } });
      sent.took(answer["took"]);
      await hear?.(answer);
      quiet = quietMs === undefined && asking === undefined ? undefined : late(quietMs ?? SILENT_MS);
    }
    throw new CairnError("io", "the guest's service closed the connection");
  } catch (error) {
    throwIfAborted(signal);
    if (error instanceof CairnError) throw error;
    throw toCairnError(error, "speak with the guest's service");
  } finally {
    for (const timer of [total, quiet, asking]) clearTimeout(timer);
    signal?.removeEventListener("abort", stopped);
    sent.stop();
    socket.destroy();
  }
}

/** A text of a guest, for people: in one line, without control characters. */
export const shown = (text: unknown): string =>
  String(text)
    .slice(0, 200)
    .replaceAll(/[^\x20-\x7e]/g, "?");

/** The bytes in a member of an answer; null without the member. */
export const bytesOf = (answer: Answer, member: string): Buffer | null =>
  typeof answer[member] === "string" ? Buffer.from(answer[member], "base64") : null;

async function* linesOf(socket: net.Socket): AsyncGenerator<string> {
  let rest = Buffer.alloc(0);
  for await (const piece of socket as AsyncIterable<Buffer>) {
    let bytes = rest.length === 0 ? piece : Buffer.concat([rest, piece]);
    for (let at = bytes.indexOf(10); at >= 0; at = bytes.indexOf(10)) {
      yield bytes.toString("utf8", 0, at);
      bytes = bytes.subarray(at + 1);
    }
    if (bytes.length > LINE) throw new CairnError("io", "the guest's service sends a line that is too long");
    rest = Buffer.from(bytes);
  }
}

/** The answer in a line; null if it answers another request, or nothing. */
function answerIn(line: string, id: string): Answer | null {
  try {
    const answer = parseJson(Buffer.from(line), "an answer") as Answer | null;
    return typeof answer === "object" && answer?.["id"] === id ? answer : null;
  } catch {
    return null;
  }
}

/** The input of a request, which waits while the guest does not take it. */
class Sent {
  readonly #socket: net.Socket;
  readonly #id: string;
  #away = 0;
  #isStopped = false;
  #wake: () => void = () => undefined;

  constructor(socket: net.Socket, id: string) {
    this.#socket = socket;
    this.#id = id;
  }

  async all({ pieces, end }: Input): Promise<void> {
    for await (const piece of pieces)
      for (let at = 0; at < piece.length; at += PIECE) {
        const part = Buffer.from(piece.subarray(at, at + PIECE));
        while (this.#away + part.length > WINDOW && !this.#isStopped)
          await new Promise<void>((wake) => (this.#wake = wake));
        if (this.#isStopped) return;
        this.#away += part.length;
        this.message({ in: part.toString("base64") });
      }
    this.message({ in: null, ...end?.() });
  }

  took(bytes: unknown): void {
    if (typeof bytes !== "number" || !(bytes > 0)) return;
    this.#away = Math.max(0, this.#away - bytes);
    this.#wake();
  }

  stop(): void {
    this.#isStopped = true;
    this.#wake();
  }

  message(message: object): void {
    if (!this.#isStopped) this.#socket.write(`${JSON.stringify({ id: this.#id, ...message })}\n`);
  }
}
