import { ByteWriter } from "../../formats/bytes.ts";
import { type Arena, arenaOver } from "../../native.ts";
import { hashAt } from "../../crypto/primitives.ts";

/** Bytes that are written to be hashed, again and again; their arena is made anew only when the writer has grown. */
export class HashedWriter {
  readonly writer = new ByteWriter(64 * 1024);
  #arena: Arena | undefined;

  arena(): Arena {
    if (this.#arena?.bytes !== this.writer.bytes) this.#arena = arenaOver(this.writer.bytes);
    return this.#arena;
  }

  /** Writes the SHA-256 of all that was written, 32 bytes, at `offset` of `target`. */
  hash(target: Arena, offset: number): void {
    hashAt(this.arena(), 0, this.writer.length, target, offset);
  }
}
