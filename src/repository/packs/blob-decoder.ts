import { hashAt } from "../../crypto/primitives.ts";
import { BlobOpener, SEAL_OVERHEAD } from "../../crypto/seal.ts";
import type { MasterKeys } from "../../crypto/seal.ts";
import { newArena } from "../../native.ts";
import type { Arena } from "../../native.ts";
import { Decompressor, MAX_PLAIN_LENGTH } from "./compression.ts";

const IV_LENGTH = SEAL_OVERHEAD / 2;
const ID_LENGTH = 32;
/** Beyond this an arena is given back after use, so that one huge blob does not stay in memory. */
const KEEP = 16 * 1024 * 1024;

/** Says why a stated place cannot be one, or null. Checked before any memory is reserved for it. */
export function placeProblem(length: number, uncompressedLength: number): string | null {
  if (!(length > SEAL_OVERHEAD && length <= MAX_PLAIN_LENGTH + SEAL_OVERHEAD))
    return `stored length ${length} is out of bounds`;
  if (!(uncompressedLength >= 0 && uncompressedLength <= MAX_PLAIN_LENGTH))
    return `plain length ${uncompressedLength} is out of bounds`;
  return null;
}

/** Lengths of a blob as a pack lists them. */
interface StoredLengths {
  readonly length: number;
  /** 0 when stored as it is. */
  readonly uncompressedLength: number;
}

/**
 * Sealed bytes to plaintext with reused contexts and memory. `contentProblem` leaves its result in `arena`,
 * `offset`, `length`, valid until the next call.
 */
export class BlobDecoder {
  readonly #opener: BlobOpener;
  readonly #decompressor = new Decompressor();
  readonly #digest = newArena(ID_LENGTH);
  #plain = newArena(1024 * 1024);
  #arena: Arena;
  offset = 0;
  length = 0;

  constructor(keys: MasterKeys) {
    this.#opener = new BlobOpener(keys);
    this.#arena = this.#plain;
  }

  get arena(): Arena {
    return this.#arena;
  }

  /** Tells whether the encrypted blob carries the right MAC. */
  authentic(sealed: Arena, at: number, length: number): boolean {
    return this.#opener.verify(sealed, at, length);
  }

  /**
   * Says why an encrypted blob at `at` of an arena is not what was written; `found`: bytes that were read into it, below 0 where
   * the disk cannot read them. Null: its MAC is right, and `contentProblem` may be asked.
   */
  storedProblem(
    sealed: Arena,
    at: number,
    found: number,
    { length, uncompressedLength }: StoredLengths,
  ): string | null {
    const problem = placeProblem(length, uncompressedLength);
    if (problem !== null) return problem;
    if (at + length > found) return found < 0 ? "a sector of it cannot be read" : "the pack ends before it";
    return this.authentic(sealed, at, length) ? null : "other bytes were read than were written";
  }

  /** Decodes what `storedProblem` has accepted and says why it is not the blob of this id; without one that is not compared. */
  contentProblem(sealed: Arena, at: number, lengths: StoredLengths, id: Uint8Array | undefined): string | null {
    if (!this.#decode(sealed, at, lengths.length, lengths.uncompressedLength))
      return "it does not decompress to its stated length";
    return id === undefined || this.#matches(id) ? null : "its content has another SHA-256";
  }

  /** Decrypts in place and decompresses. False when the zstd frame is broken or of another length. */
  #decode(sealed: Arena, at: number, length: number, uncompressedLength: number): boolean {
    const stored = this.#opener.decrypt(sealed, at, length, sealed, at + IV_LENGTH);
    if (uncompressedLength === 0) {
      this.#arena = sealed;
      this.offset = at + IV_LENGTH;
      this.length = stored;
      return true;
    }
    if (uncompressedLength > this.#plain.bytes.length) {
      this.#plain = newArena(uncompressedLength);
    } else if (this.#plain.bytes.length > KEEP && uncompressedLength <= KEEP) {
      this.#plain = newArena(1024 * 1024 > uncompressedLength ? 1024 * 1024 : uncompressedLength);
    }
    this.#arena = this.#plain;
    this.offset = 0;
    this.length = uncompressedLength;
    return this.#decompressor.decompress(sealed, at + IV_LENGTH, stored, this.#plain, 0, uncompressedLength);
  }

  #matches(id: Uint8Array): boolean {
    const digest = this.#digest;
    hashAt(this.#arena, this.offset, this.length, digest, 0);
    for (let index = 0; index < ID_LENGTH; index++) if (digest.bytes[index] !== id[index]) return false;
    return true;
  }
}
