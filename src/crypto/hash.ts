import { createHash, hash } from "node:crypto";

/** The 32 bytes of SHA-256. */
export function sha256(bytes: Uint8Array): Uint8Array {
  return hash("sha256", bytes, "buffer");
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
