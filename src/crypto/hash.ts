import { createHash, hash } from "node:crypto";
import type { Arena } from "../native.ts";
import { primitives } from "./primitives.ts";

/** The 32 bytes of SHA-256. */
export function sha256(bytes: Uint8Array): Uint8Array {
  return hash("sha256", bytes, "buffer");
}

/** SHA-256 of `length` bytes at `offset` of an arena; 32 bytes are written to `target`. Allocates nothing. */
export function hashAt(source: Arena, offset: number, length: number, target: Arena, targetOffset: number): void {
  primitives().sha256(source, offset, length, target, targetOffset);
}

/** Running SHA-256, for packs and whole files. */
export class Sha256Stream {
  readonly #hash = createHash("sha256");

  update(bytes: Uint8Array): void {
    this.#hash.update(bytes);
  }

  /** The 32 bytes; the stream is used up. */
  digest(): Uint8Array {
    return this.#hash.digest();
  }
}
