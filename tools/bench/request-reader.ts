/** Finds the requests in a client's bytes on one HTTP/1.1 connection, and reports the first line of each. */
export class RequestReader {
  readonly #say: (line: string) => void;
  #head: Buffer = Buffer.alloc(0);
  /** Bytes of a body that are still to come. */
  #body = 0;
  #isLost = false;

  constructor(say: (line: string) => void) {
    this.#say = say;
  }

  take(piece: Buffer): void {
    let rest = piece;
    while (rest.length > 0 && !this.#isLost) {
      const skipped = Math.min(this.#body, rest.length);
      this.#body -= skipped;
      rest = this.#takeHead(rest.subarray(skipped));
    }
  }

  /** Returns the bytes after the head, if the head ends in `bytes`. */
  #takeHead(bytes: Buffer): Buffer {
    if (bytes.length === 0) return bytes;
    this.#head = Buffer.concat([this.#head, bytes]);
    const end = this.#head.indexOf("\r\n\r\n");
    if (end < 0) return Buffer.alloc(0);
    const [line = "", ...fields] = this.#head.toString("latin1", 0, end).split("\r\n");
    const rest = this.#head.subarray(end + 4);
    this.#head = Buffer.alloc(0);
    this.#say(line);
    const valueOf = (name: string): string | undefined =>
      fields
        .find((field) => field.toLowerCase().startsWith(`${name}:`))
        ?.slice(name.length + 1)
        .trim();
    this.#body = Number(valueOf("content-length") ?? 0);
    if (valueOf("transfer-encoding") !== undefined) {
      // Counted on it would be wrong; the count says so.
      this.#isLost = true;
      this.#say("UNCOUNTED a body of unknown length");
    }
    return rest;
  }
}
