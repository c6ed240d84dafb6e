import { CairnError } from "../errors.ts";

/** A terminal: stdin, except in tests. */
export interface TerminalInput extends NodeJS.ReadableStream {
  setRawMode?(raw: boolean): unknown;
  unshift(chunk: Uint8Array): void;
}

const [LINE_FEED, RETURN] = [0x0a, 0x0d];
const ENTER = new Set([LINE_FEED, RETURN]);
/** Terminals whose last line ended with a carriage return: a following line feed, as in pasted text, belongs to that line. */
const AFTER_RETURN = new WeakSet<TerminalInput>();
const ERASE = new Set([0x08, 0x7f]);
const [INTERRUPT, END, ERASE_LINE, ESCAPE] = [0x03, 0x04, 0x15, 0x1b];
const ENDS = ["end", "close", "error"] as const;
/** Milliseconds after an escape character within which the rest of its sequence comes. */
const ESCAPE_MS = 500;

/** Reads a line of bytes from the terminal without showing it; bytes that are not UTF-8 stay. Throws `interrupted`. */
export async function readHiddenLine(input: TerminalInput, signal?: AbortSignal): Promise<Uint8Array> {
  const { promise, resolve, reject } = Promise.withResolvers<Uint8Array>();
  const stop = (): void =>
    reject(new CairnError("interrupted", "stopped at the password prompt", { hint: "nothing was done" }));
  const line = new HiddenLine();
  const onData = (chunk: Uint8Array): void => {
    for (const [i, byte] of chunk.entries()) {
      const isOfLastLine = AFTER_RETURN.delete(input) && byte === LINE_FEED;
      const done = isOfLastLine ? null : line.take(byte);
      if (done === null) continue;
      if (byte === RETURN) AFTER_RETURN.add(input);
      input.pause();
      input.removeListener("data", onData);
      // The rest belongs to the next question.
      if (i + 1 < chunk.length) input.unshift(chunk.subarray(i + 1));
      if (done === "stopped") stop();
      else resolve(line.bytes);
      return;
    }
  };
  for (const event of ENDS) input.once(event, stop);
  signal?.addEventListener("abort", stop, { once: true });
  if (signal?.aborted === true) stop();
  input.setRawMode?.(true);
  input.on("data", onData);
  input.resume();
  try {
    return await promise;
  } finally {
    input.pause();
    input.setRawMode?.(false);
    input.removeListener("data", onData);
    for (const event of ENDS) input.removeListener(event, stop);
    signal?.removeEventListener("abort", stop);
  }
}

class HiddenLine {
  #bytes: number[] = [];
  /** State of an escape sequence, for example of an arrow key. */
  #escape: { kind: "begun" | "long" | "short"; at: number } | null = null;

  get bytes(): Uint8Array {
    return Uint8Array.from(this.#bytes);
  }

  /** Takes a byte. Returns a result if the byte ends the line. */
  take(byte: number): "done" | "stopped" | null {
    if (byte === INTERRUPT) return "stopped";
    if (ENTER.has(byte)) return "done";
    if (this.#isOfEscape(byte)) return null;
    if (byte === END) return this.#bytes.length === 0 ? "stopped" : null;
    if (ERASE.has(byte)) this.#eraseCharacter();
    else if (byte === ERASE_LINE) this.#bytes = [];
    else if (byte >= 0x20 || byte === 0x09) this.#bytes.push(byte);
    return null;
  }

  #isOfEscape(byte: number): boolean {
    const now = performance.now();
    const escape = this.#escape;
    this.#escape = byte === ESCAPE ? { kind: "begun", at: now } : null;
    if (byte === ESCAPE) return true;
    if (escape === null || now - escape.at > ESCAPE_MS) return false;
    if (escape.kind === "begun" && byte === 0x5b) this.#escape = { kind: "long", at: now };
    else if (escape.kind === "begun" && byte === 0x4f) this.#escape = { kind: "short", at: now };
    else if (escape.kind === "long" && byte < 0x40) this.#escape = { kind: "long", at: now };
    return true;
  }

  /** Removes the bytes of the last UTF-8 character, else one byte. */
  #eraseCharacter(): void {
    const bytes = this.#bytes;
    let start = bytes.length - 1;
    while (start > 0 && bytes.length - start < 4 && (bytes[start]! & 0xc0) === 0x80) start--;
    const tail = Buffer.from(bytes.slice(start));
    const text = tail.toString("utf8");
    const units = (text.codePointAt(0) ?? 0) > 0xffff ? 2 : 1;
    const isCharacter = text.length === units && Buffer.from(text).equals(tail);
    bytes.length = Math.max(isCharacter ? start : bytes.length - 1, 0);
  }
}
