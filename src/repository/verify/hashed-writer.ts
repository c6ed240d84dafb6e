import { ByteWriter } from "../../formats/bytes.ts";
import { type Arena, arenaOver } from "../../native.ts";
import { Sha256Stream } from "../../crypto/hash.ts";
import { hashAt } from "../../crypto/primitives.ts";

/** Number of written bytes from which on `letGo` hashes and drops the bytes. */
const PART = 1 << 20;

/** A writer whose bytes are hashed, for repeated use. Its arena is renewed only after the writer has grown. */
export class HashedWriter {
  readonly writer = new ByteWriter(64 * 1024);
  #arena: Arena | undefined;
  /** The running hash of the dropped bytes. */
  #hash: Sha256Stream | null = null;

  arena(): Arena {
    if (this.#arena?.bytes !== this.writer.bytes) this.#arena = arenaOver(this.writer.bytes);
    return this.#arena;
  }

  /** Hashes and drops the written bytes if there are many: afterwards only the hash is available. */
  letGo(): void {
    if (this.writer.length < PART) return;
    this.#hash ??= new Sha256Stream();
    this.#hash.update(this.writer.view());
    this.writer.reset();
  }

  /** Writes the SHA-256 of all written bytes at `offset` of `target`: 32 bytes. */
  hash(target: Arena, offset: number): void {
    if (this.#hash === null) return hashAt(this.arena(), 0, this.writer.length, target, offset);
    this.#hash.update(this.writer.view());
    target.bytes.set(this.#hash.digest(), offset);
    this.#hash = null;
  }
}
