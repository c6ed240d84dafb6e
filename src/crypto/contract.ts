import type { Arena } from "../native.ts";

/** The three secrets of a repository, exactly restic's: AES-256 key, AES-128 key of the nonce, Poly1305 key. */
export interface MasterKeys {
  readonly encrypt: Uint8Array;
  readonly macK: Uint8Array;
  readonly macR: Uint8Array;
}

/**
 * The ciphers of one set of keys, with contexts that are reused. Not to be shared between threads.
 * Hot paths: arguments are positional so that a call allocates nothing.
 */
export interface MessageCipher {
  /** AES-256-CTR of `length` bytes; the 16-byte counter lies at `iv`. Source and target may be the same place. */
  counter(
    iv: Arena,
    ivOffset: number,
    source: Arena,
    offset: number,
    target: Arena,
    targetOffset: number,
    length: number,
  ): void;
  /** AES-128-ECB in place over `count` 16-byte blocks from the start of the arena: IVs become Poly1305 nonces. */
  nonces(blocks: Arena, count: number): void;
  /** Poly1305 of `length` bytes with nonce number `index` of `nonces`; 16 bytes go to `target`. */
  authenticate(
    nonces: Arena,
    index: number,
    source: Arena,
    offset: number,
    length: number,
    target: Arena,
    targetOffset: number,
  ): void;
}

/** One implementation of what sealing needs. Both give the same bytes. */
export interface Primitives {
  readonly name: "native" | "node";
  /** Bytes from the kernel's generator, never from a pool in this process. */
  fillRandom(target: Arena, offset: number, length: number): void;
  /** SHA-256 of `length` bytes; 32 bytes go to `target`. */
  sha256(source: Arena, offset: number, length: number, target: Arena, targetOffset: number): void;
  newCipher(keys: MasterKeys): MessageCipher;
}
