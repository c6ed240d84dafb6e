/** Bytes of a JSON string that are kept: 64 KiB, of which each may be written as `\u0041`. */
const MOST_BYTES = 6 * (64 << 10);
const MOST_KEY_BYTES = 256;
/** Objects and lists in which strings are looked for, one in the other. */
const MOST_LEVELS = 3;

const [QUOTE, COMMA, COLON, BACKSLASH] = [0x22, 0x2c, 0x3a, 0x5c];
const [LIST, LIST_END, OBJECT, OBJECT_END] = [0x5b, 0x5d, 0x7b, 0x7d];

/**
 * Reads named strings of a JSON object as its bytes arrive, for example `prompt` and `tool_input.command`. Cuts long ones and skips
 * all else, so an input of 100 MB needs no memory, and one that ends early still has its first members.
 */
export class JsonStrings {
  readonly #wanted: ReadonlySet<string>;
  readonly #found = new Map<string, string>();
  readonly #open: { path: string; isList: boolean }[] = [];
  /** Open objects and lists below `MOST_LEVELS`. */
  #below = 0;
  #key = "";
  #isKeyNext = false;
  #inString = false;
  #isEscaped = false;
  #pieces: Buffer[] = [];
  #room = 0;

  constructor(wanted: readonly string[]) {
    this.#wanted = new Set(wanted);
  }

  /** Returns a string, or the strings of a list, joined by spaces. */
  get(path: string): string | undefined {
    return this.#found.get(path);
  }

  get isEmpty(): boolean {
    return this.#found.size === 0;
  }

  push(chunk: Buffer): void {
    let at = 0;
    while (at < chunk.length) {
      if (this.#inString) at = this.#through(chunk, at);
      else if (chunk[at] === QUOTE) {
        this.#inString = true;
        this.#begin();
        at++;
      } else this.#between(chunk[at++]!);
    }
  }

  /** Reads a string from the index `from` on. Returns the index after the string, or the length of `chunk`. */
  #through(chunk: Buffer, from: number): number {
    let at = this.#isEscaped ? from + 1 : from;
    while (at < chunk.length && chunk[at] !== QUOTE) at += chunk[at] === BACKSLASH ? 2 : 1;
    this.#isEscaped = at > chunk.length;
    this.#keep(chunk.subarray(from, at));
    if (at >= chunk.length) return chunk.length;
    this.#inString = false;
    this.#end();
    return at + 1;
  }

  /** Ends the input, perhaps in the middle of a string. */
  end(): this {
    if (this.#inString) this.#end();
    return this;
  }

  #between(byte: number): void {
    if (byte === OBJECT || byte === LIST) {
      if (this.#open.length === MOST_LEVELS) this.#below++;
      else this.#open.push({ path: this.#path(), isList: byte === LIST });
      this.#isKeyNext = byte === OBJECT;
    } else if (byte === OBJECT_END || byte === LIST_END) {
      if (this.#below > 0) this.#below--;
      else this.#open.pop();
      this.#isKeyNext = false;
    } else if (byte === COMMA) this.#isKeyNext = this.#open.at(-1)?.isList === false;
    else if (byte === COLON) this.#isKeyNext = false;
  }

  /** The path of a value that begins here. */
  #path(): string {
    const { path = "", isList = true } = this.#open.at(-1) ?? {};
    return isList ? path : path === "" ? this.#key : `${path}.${this.#key}`;
  }

  #begin(): void {
    this.#pieces = [];
    if (this.#below > 0 || this.#open.length === 0) this.#room = 0;
    else if (this.#isKeyNext) this.#room = MOST_KEY_BYTES;
    else this.#room = this.#wanted.has(this.#path()) ? MOST_BYTES : 0;
  }

  #keep(bytes: Buffer): void {
    if (this.#room === 0) return;
    const piece = bytes.subarray(0, this.#room);
    this.#pieces.push(piece);
    this.#room -= piece.length;
  }

  #end(): void {
    if (this.#below > 0 || this.#open.length === 0) return;
    if (this.#isKeyNext) this.#key = decoded(Buffer.concat(this.#pieces));
    else if (this.#wanted.has(this.#path())) {
      const [path, text] = [this.#path(), decoded(Buffer.concat(this.#pieces))];
      const before = this.#open.at(-1)!.isList ? this.#found.get(path) : undefined;
      if (before === undefined) this.#found.set(path, text);
      else if (before.length < MOST_BYTES) this.#found.set(path, `${before} ${text}`);
    }
  }
}

/** Decodes the inside of a JSON string that may end in the middle of an escape. */
function decoded(bytes: Buffer): string {
  const text = bytes.toString("utf8").replaceAll(/\p{Cc}/gu, " ");
  for (let cut = 0; cut <= Math.min(6, text.length); cut++)
    try {
      return JSON.parse(`"${text.slice(0, text.length - cut)}"`) as string;
    } catch {
      // The next try is shorter.
    }
  return "";
}
