import { CairnError, toCairnError } from "../errors.ts";
import { newArena } from "../native.ts";
import type { Arena } from "../native.ts";
import { type MasterKeys, type MessageCipher, type Primitives, primitives } from "./primitives.ts";

export type { MasterKeys } from "./primitives.ts";

/** Bytes that encryption adds to a message: 16 of IV before it, 16 of MAC after it. */
export const SEAL_OVERHEAD = 32;
const IV_LENGTH = 16;
const MAC_LENGTH = 16;
const BLOCK = 16;
/** A stage has fewer blocks, so that no blob's counter carries out of its last four bytes. */
const MAX_BLOCKS = 2 ** 31;

function fault(message: string): CairnError {
  return new CairnError("internal", `sealing rule: ${message}`);
}

/** Compares 16 bytes without an early exit. */
function sameMac(a: Uint8Array, aOffset: number, b: Uint8Array, bOffset: number): boolean {
  let difference = 0;
  for (let index = 0; index < MAC_LENGTH; index++) difference |= a[aOffset + index]! ^ b[bOffset + index]!;
  return difference === 0;
}

/** Returns IV ‖ ciphertext ‖ MAC of one message, with a random IV from the kernel. The message must not be empty. */
export function sealMessage(keys: MasterKeys, plain: Uint8Array): Uint8Array {
  if (plain.length === 0) throw fault("an empty message is never sealed");
  const using = primitives();
  const cipher = using.newCipher(keys);
  const sealed = newArena(plain.length + SEAL_OVERHEAD);
  const nonce = newArena(IV_LENGTH);
  using.fillRandom(nonce, 0, IV_LENGTH);
  sealed.bytes.set(nonce.bytes, 0);
  sealed.bytes.set(plain, IV_LENGTH);
  cipher.counter(nonce, 0, sealed, IV_LENGTH, sealed, IV_LENGTH, plain.length);
  cipher.nonces(nonce, 1);
  cipher.authenticate(nonce, 0, sealed, IV_LENGTH, plain.length, sealed, IV_LENGTH + plain.length);
  return sealed.bytes;
}

/** The openers of this thread. Each has native contexts that only the collector frees, so one serves all messages. */
const openers = new WeakMap<MasterKeys, BlobOpener>();

/** Decrypts a sealed message. Throws `damaged` if it is too short or its MAC is wrong. */
export function openMessage(keys: MasterKeys, sealed: Uint8Array): Uint8Array {
  let opener = openers.get(keys);
  if (opener === undefined) openers.set(keys, (opener = new BlobOpener(keys)));
  const arena = newArena(sealed.length);
  arena.bytes.set(sealed);
  const length = opener.open(arena, 0, sealed.length, arena, IV_LENGTH);
  return arena.bytes.subarray(IV_LENGTH, IV_LENGTH + length);
}

/**
 * Decrypts a message; null if it is damaged or encrypted with other keys. Throws other errors, e.g. a lack of memory.
 */
export function openedOrNull(keys: MasterKeys, sealed: Uint8Array): Uint8Array | null {
  try {
    return openMessage(keys, sealed);
  } catch (error) {
    const known = toCairnError(error);
    if (known.code === "damaged") return null;
    throw known;
  }
}

/** Decrypts sealed blobs in arenas, with reused contexts. One per thread. */
export class BlobOpener {
  readonly #cipher: MessageCipher;
  /** Nonce of the current blob, then its expected MAC. */
  readonly #scratch = newArena(IV_LENGTH + MAC_LENGTH);

  /** `using` is for tests; default: this thread's implementation. */
  constructor(keys: MasterKeys, using: Primitives = primitives()) {
    this.#cipher = using.newCipher(keys);
  }

  /** True if the `length` bytes at `offset` have a valid MAC. Decrypts nothing. */
  verify(sealed: Arena, offset: number, length: number): boolean {
    if (length < SEAL_OVERHEAD) return false;
    const scratch = this.#scratch;
    const from = sealed.bytes;
    for (let index = 0; index < IV_LENGTH; index++) scratch.bytes[index] = from[offset + index]!;
    this.#cipher.nonces(scratch, 1);
    this.#cipher.authenticate(scratch, 0, sealed, offset + IV_LENGTH, length - SEAL_OVERHEAD, scratch, IV_LENGTH);
    return sameMac(scratch.bytes, IV_LENGTH, from, offset + length - MAC_LENGTH);
  }

  /** Decrypts a blob that `verify` accepted. `target` may be `sealed` itself. Returns the plaintext's length. */
  decrypt(sealed: Arena, offset: number, length: number, target: Arena, targetOffset: number): number {
    const plain = length - SEAL_OVERHEAD;
    this.#cipher.counter(sealed, offset, sealed, offset + IV_LENGTH, target, targetOffset, plain);
    return plain;
  }

  /**
   * Verifies and decrypts. Throws `damaged`, and writes nothing, if the MAC is wrong. Returns the plaintext's length.
   */
  open(sealed: Arena, offset: number, length: number, target: Arena, targetOffset: number): number {
    if (!this.verify(sealed, offset, length)) {
      throw new CairnError(
        "damaged",
        `${length} encrypted bytes have a wrong MAC: they are damaged, or encrypted with another repository's keys`,
      );
    }
    return this.decrypt(sealed, offset, length, target, targetOffset);
  }
}

/** Adds a block count to a counter in place. The caller guarantees that the last four bytes do not overflow. */
function writeCounter(target: Uint8Array, offset: number, base: Uint8Array, blocks: number): void {
  for (let index = 0; index < 12; index++) target[offset + index] = base[index]!;
  const low = ((base[12]! << 24) | (base[13]! << 16) | (base[14]! << 8) | base[15]!) + blocks;
  target[offset + 12] = low >>> 24;
  target[offset + 13] = low >>> 16;
  target[offset + 14] = low >>> 8;
  target[offset + 15] = low;
}

function wordsOf(arena: Arena): Uint32Array {
  return new Uint32Array(arena.bytes.buffer, arena.bytes.byteOffset, arena.bytes.length >>> 2);
}

/**
 * Encrypts many blobs with one AES-CTR pass. A stage has one random base; a blob's IV is base + offset / 16. Write a
 * blob at `reserve()`'s offset, then call `commit()`. `seal()` encrypts all, adds IVs and MACs in the free 16 bytes
 * before and after each blob, and moves the blobs together.
 */
export class StageSealer {
  readonly #primitives: Primitives;
  readonly #cipher: MessageCipher;
  readonly #base = newArena(IV_LENGTH);
  #arena: Arena;
  #arenaWords: Uint32Array;
  #nonces: Arena;
  #nonceWords: Uint32Array;
  #offsets = new Uint32Array(1024);
  #lengths = new Uint32Array(1024);
  #count = 0;
  #next = BLOCK;
  #sealedBytes = 0;
  #reserved = 0;
  #usable = true;

  /** `using` is for tests; default: this thread's implementation. */
  constructor(keys: MasterKeys, capacity: number, using: Primitives = primitives()) {
    this.#primitives = using;
    this.#cipher = using.newCipher(keys);
    this.#arena = newArena(capacity);
    this.#arenaWords = wordsOf(this.#arena);
    this.#nonces = newArena(1024 * IV_LENGTH);
    this.#nonceWords = wordsOf(this.#nonces);
  }

  /** Memory for the blobs. `reserve` may replace it. */
  get arena(): Arena {
    return this.#arena;
  }

  get count(): number {
    return this.#count;
  }

  /** Bytes that `seal()` would return now. */
  get sealedBytes(): number {
    return this.#sealedBytes;
  }

  /** Bytes of the stage that are in use. */
  get used(): number {
    return this.#next - BLOCK;
  }

  /**
   * Returns the offset for a blob of up to `length` bytes, or -1 if the stage must be sealed first. The stage grows for
   * a blob that is larger.
   */
  reserve(length: number): number {
    if (this.#next + length + BLOCK > this.#arena.bytes.length) {
      if (this.#count > 0) return -1;
      const size = Math.ceil((length + 2 * BLOCK) / 0x10_0000) * 0x10_0000;
      if (size / BLOCK >= MAX_BLOCKS) throw fault(`a blob of ${length} bytes is too large for a stage`);
      this.#arena = newArena(size);
      this.#arenaWords = wordsOf(this.#arena);
    }
    this.#reserved = length;
    return this.#next;
  }

  /** Adds the blob at the reserved offset, with `length` bytes. */
  commit(length: number): void {
    if (!this.#usable) throw fault("a stage that failed is never sealed again");
    if (length < 1) throw fault("an empty blob is never sealed");
    // Without a new reservation the place may hold sealed bytes, which must never be sealed again.
    if (length > this.#reserved) throw fault("a blob is longer than was reserved for it");
    this.#reserved = 0;
    const offset = this.#next;
    const end = offset + length + MAC_LENGTH;
    if (this.#count === this.#offsets.length) this.#grow();
    this.#offsets[this.#count] = offset;
    this.#lengths[this.#count] = length;
    this.#count += 1;
    this.#sealedBytes += length + SEAL_OVERHEAD;
    this.#next = (end + IV_LENGTH + BLOCK - 1) & -BLOCK;
  }

  #grow(): void {
    const size = this.#offsets.length * 2;
    const offsets = new Uint32Array(size);
    const lengths = new Uint32Array(size);
    offsets.set(this.#offsets);
    lengths.set(this.#lengths);
    this.#offsets = offsets;
    this.#lengths = lengths;
    this.#nonces = newArena(size * IV_LENGTH);
    this.#nonceWords = wordsOf(this.#nonces);
  }

  /**
   * Seals all committed blobs and empties the stage. Returns the number of sealed bytes, which lie at the start of the
   * arena until the next `reserve`. After an error the stage is unusable.
   */
  seal(): number {
    if (!this.#usable) throw fault("a stage that failed is never sealed again");
    this.#usable = false;
    const base = this.#base;
    this.#primitives.fillRandom(base, 0, IV_LENGTH);
    base.bytes[12] = base.bytes[12]! & 0x7f;
    const end = this.#writeCounters();
    const { bytes } = this.#arena;
    this.#cipher.counter(base, 0, this.#arena, 0, this.#arena, 0, Math.min(end, bytes.length));
    this.#writeIvs();
    this.#cipher.nonces(this.#nonces, this.#count);
    const length = this.#authenticateAndCompact();
    this.#count = 0;
    this.#next = BLOCK;
    this.#sealedBytes = 0;
    this.#usable = true;
    return length;
  }

  /**
   * Writes the IVs of all blobs into the nonce arena, and checks the conditions of the sealing rule. Returns the end of
   * the last blob.
   */
  #writeCounters(): number {
    const base = this.#base.bytes;
    if ((base[12]! & 0x80) !== 0) throw fault("the base's counter may overflow");
    let free = 0;
    for (let index = 0; index < this.#count; index++) {
      const offset = this.#offsets[index]!;
      const block = offset / BLOCK;
      if (offset % BLOCK !== 0 || block < free) throw fault("two blobs share counter blocks");
      free = block + Math.ceil(this.#lengths[index]! / BLOCK);
      if (free >= MAX_BLOCKS) throw fault("the stage has too many blocks");
      writeCounter(this.#nonces.bytes, index * IV_LENGTH, base, block);
    }
    return free * BLOCK;
  }

  /**
   * Writes the IVs before their blobs, over bytes that the counter pass has changed. Whole words: both sides are
   * 16-byte aligned.
   */
  #writeIvs(): void {
    const from = this.#nonceWords;
    const to = this.#arenaWords;
    for (let index = 0; index < this.#count; index++) {
      const source = index * 4;
      const target = (this.#offsets[index]! - IV_LENGTH) / 4;
      to[target] = from[source]!;
      to[target + 1] = from[source + 1]!;
      to[target + 2] = from[source + 2]!;
      to[target + 3] = from[source + 3]!;
    }
  }

  #authenticateAndCompact(): number {
    const arena = this.#arena;
    const { bytes } = arena;
    let target = 0;
    for (let index = 0; index < this.#count; index++) {
      const offset = this.#offsets[index]!;
      const length = this.#lengths[index]!;
      this.#cipher.authenticate(this.#nonces, index, arena, offset, length, arena, offset + length);
      bytes.copyWithin(target, offset - IV_LENGTH, offset + length + MAC_LENGTH);
      target += length + SEAL_OVERHEAD;
    }
    return target;
  }
}
