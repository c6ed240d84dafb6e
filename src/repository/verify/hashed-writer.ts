import { ByteWriter } from "../../formats/bytes.ts";
import { type Arena, arenaOver } from "../../native.ts";
import { Sha256Stream } from "../../crypto/hash.ts";
import { hashAt } from "../../crypto/primitives.ts";

/** From so many bytes on they are hashed as they come, where nobody wants them whole. */
const PART = 1 << 20;

/** Bytes that are written to be hashed, again and again; their arena is made anew only when the writer has grown. */
export class HashedWriter {
  readonly writer = new ByteWriter(64 * 1024);
  #arena: Arena | undefined;
  /** The hash of what was written and let go. */
  #hash: Sha256Stream | null = null;

  arena(): Arena {
    if (this.#arena?.bytes !== this.writer.bytes) this.#arena = arenaOver(this.writer.bytes);
    return this.#arena;
  }

  /** Lets go of what was written so far, where it is much: only its hash will be asked for. */
  letGo(): void {
    if (this.writer.length < PART) return;
    this.#hash ??= new Sha256Stream();
    this.#hash.update(this.writer.view());
    this.writer.reset();
  }

  /** Writes the SHA-256 of all that was written, 32 bytes, at `offset` of `target`. */
  hash(target: Arena, offset: number): void {
    if (this.#hash === null) return hashAt(this.arena(), 0, this.writer.length, target, offset);
    this.#hash.update(this.writer.view());
    target.bytes.set(this.#hash.digest(), offset);
    this.#hash = null;
  }
}
