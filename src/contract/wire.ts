import type { ErrorRecord } from "./error-record.ts";
import type { Progress, ServiceEvent } from "./index.ts";

/** Values of calls as JSON between processes, and how a client reads answers. Bytes are objects with one member; other values are plain JSON. */

/** The only member of an object that stands for bytes, in base64. */
const BYTES = "$b64";

/** Base64 on Node, which makes a `Buffer`. A page has its own. */
const OF_NODE = {
  encode: (bytes: Uint8Array): string => Buffer.from(bytes).toString("base64"),
  decode: (text: string): Uint8Array => Buffer.from(text, "base64"),
};

/** The JSON of a value on one line. */
export function toWire(value: unknown, { encode } = OF_NODE): string {
  return JSON.stringify(value, (_key, each: unknown) => {
    if (each instanceof Uint8Array) return { [BYTES]: encode(each) };
    // At this point JSON.stringify has already turned a Buffer into an object.
    const { type, data } = (each ?? {}) as { type?: unknown; data?: unknown };
    return type === "Buffer" && Array.isArray(data) ? { [BYTES]: encode(Uint8Array.from(data as number[])) } : each;
  });
}

/** Parses such JSON. Throws `SyntaxError`. */
export function fromWire(text: string, { decode } = OF_NODE): unknown {
  return JSON.parse(text, (_key, each: unknown) => {
    if (typeof each !== "object" || each === null) return each;
    const { [BYTES]: bytes } = each as Record<string, unknown>;
    return typeof bytes === "string" && Object.keys(each).length === 1 ? decode(bytes) : each;
  }) as unknown;
}

type Line = { progress: Progress } | { warning: string } | { item: unknown } | Last;
interface Last {
  data: unknown;
  error: ErrorRecord | null;
}

/** Yields the lines of a text. Drops a last line that has no end. */
export async function* linesOf(pieces: AsyncIterable<string>): AsyncGenerator<string, void> {
  let begun: string[] = [];
  for await (const piece of pieces) {
    const [first, ...rest] = piece.split("\n");
    begun.push(first!);
    for (const each of rest) {
      yield begun.join("");
      begun = [each];
    }
  }
}

/** Reports progress and warnings of an answer, yields its items, and returns its data. `failed` gets null if the answer is cut off. */
export async function* answersIn(
  lines: AsyncIterable<string>,
  parse: (line: string) => unknown,
  failed: (told: ErrorRecord | null) => Error,
  options: { onProgress?: (progress: Progress) => void; onWarning?: (message: string) => void },
): AsyncGenerator<unknown, unknown> {
  let last: Last | undefined;
  for await (const text of lines) {
    const line = parse(text) as Line;
    if ("progress" in line) options.onProgress?.(line.progress);
    else if ("warning" in line) options.onWarning?.(line.warning);
    else if ("item" in line) yield line.item;
    else last = line;
  }
  if (last === undefined || last.error !== null) throw failed(last?.error ?? null);
  return last.data;
}

/** Returns the data of an answer, and drops its items. */
export async function dataOf(answers: AsyncGenerator<unknown, unknown>): Promise<unknown> {
  for (;;) {
    const { done, value } = await answers.next();
    if (done === true) return value;
  }
}

/** Yields the number and the event of each message of a stream of events, null if a message has none. */
export async function* eventsIn(
  lines: AsyncIterable<string>,
  failed: (told: ErrorRecord) => Error,
): AsyncGenerator<{ id: string | null; event: ServiceEvent | null }, void> {
  let [id, event]: [string | null, ServiceEvent | null] = [null, null];
  for await (const line of lines) {
    // An answer that is no stream is one object, with an error.
    if (line.startsWith("{")) throw failed((JSON.parse(line) as { error: ErrorRecord }).error);
    if (line.startsWith("id: ")) id = line.slice(4);
    else if (line.startsWith("data: ")) event = JSON.parse(line.slice(6)) as ServiceEvent;
    else if (line === "") {
      yield { id, event };
      [id, event] = [null, null];
    }
  }
}

/** Milliseconds without even a heartbeat after which a stream of events counts as gone. */
export const SILENCE_MS = 45_000;
