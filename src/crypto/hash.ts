import { createHash, hash } from "node:crypto";

/** Returns the 32 bytes of SHA-256. */
export function sha256(bytes: Uint8Array): Uint8Array {
  return hash("sha256", bytes, "buffer");
}

/** Running SHA-256, for packs and whole files. */
export class Sha256Stream {
  readonly #hash = createHash("sha256");

  update(bytes: Uint8Array): void {
    this.#hash.update(bytes);
  }

  /** Returns the 32 bytes. The stream cannot be used again. */
  digest(): Uint8Array {
    return this.#hash.digest();
  }
}
