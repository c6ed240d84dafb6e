import { CairnError } from "../errors.ts";
import { bindNative, newArena } from "../native.ts";
import type { Arena, NativeFunction } from "../native.ts";

/** The three secret keys of a repository, exactly as in restic: AES-256 key, AES-128 key for nonces, Poly1305 key. */
export interface MasterKeys {
  readonly encrypt: Uint8Array;
  readonly macK: Uint8Array;
  readonly macR: Uint8Array;
}

/** The native calls for encryption. Positional arguments, so that a call on a hot path allocates nothing. */
export interface Primitives {
  /** Fills with bytes from the kernel's generator, never from a pool in this process. */
  fillRandom(target: Arena, offset: number, length: number): void;
  /** Writes the SHA-256 of `length` bytes, 32 bytes, to `target`. */
  sha256(source: Arena, offset: number, length: number, target: Arena, targetOffset: number): void;
  newCipher(keys: MasterKeys): MessageCipher;
}

/** The calls of a cipher; a test may replace them. */
export type MessageCipher = Pick<NativeCipher, "counter" | "nonces" | "authenticate">;

const SIGNATURES = {
  newContext: "uint64_t EVP_CIPHER_CTX_new()",
  freeContext: "void EVP_CIPHER_CTX_free(uint64_t context)",
  aes256ctr: "uint64_t EVP_aes_256_ctr()",
  aes128ecb: "uint64_t EVP_aes_128_ecb()",
  cipherInit: "int EVP_EncryptInit_ex(uint64_t context, uint64_t type, uint64_t engine, uint64_t key, uint64_t iv)",
  cipherPadding: "int EVP_CIPHER_CTX_set_padding(uint64_t context, int padding)",
  cipherUpdate: "int EVP_EncryptUpdate(uint64_t context, uint64_t out, uint64_t outLength, uint64_t in, int inLength)",
  polyInit: "void Poly1305_Init(uint64_t context, uint64_t key)",
  polyUpdate: "void Poly1305_Update(uint64_t context, uint64_t in, uint64_t length)",
  polyFinal: "void Poly1305_Final(uint64_t context, uint64_t mac)",
  polySize: "uint64_t Poly1305_ctx_size()",
  shaInit: "int SHA256_Init(uint64_t context)",
  shaUpdate: "int SHA256_Update(uint64_t context, uint64_t in, uint64_t length)",
  shaFinal: "int SHA256_Final(uint64_t digest, uint64_t context)",
  getrandom: "int64_t getrandom(uint64_t target, uint64_t length, unsigned int flags)",
} as const;

type Calls = Record<keyof typeof SIGNATURES, NativeFunction>;

function check(ok: number, what: string): void {
  if (ok !== 1) throw new CairnError("internal", `${what} was refused by the crypto library`);
}

const released = new FinalizationRegistry<() => void>((release) => release());

const CLAMP = [0xff, 0xff, 0xff, 0x0f, 0xfc, 0xff, 0xff, 0x0f, 0xfc, 0xff, 0xff, 0x0f, 0xfc, 0xff, 0xff, 0x0f];

/** Returns a copy of Poly1305's `r` with the bits cleared that the algorithm requires to be 0. */
export function clampR(r: Uint8Array): Uint8Array {
  return r.map((byte, index) => byte & CLAMP[index]!);
}

/** Offsets in the arena that native code of one cipher uses; the arena lives as long as the cipher. */
const ONE_TIME_KEY = 0;
const OUT_LENGTH = 32;
const POLY_CONTEXT = 64;
const MAX_UPDATE = 0x4000_0000;

/** The ciphers of one set of keys, with reused contexts. Do not share it between threads. */
class NativeCipher {
  readonly #calls: Calls;
  readonly #scratch: Arena;
  readonly #oneTimeKey: Uint32Array;
  readonly #counter: number;
  readonly #nonce: number;
  #nonceSource: Uint8Array | undefined;
  #nonceWords: Uint32Array = new Uint32Array(0);

  constructor(calls: Calls, keys: MasterKeys) {
    const scratch = newArena(POLY_CONTEXT + Math.max(512, calls.polySize()));
    const counter = calls.newContext();
    const nonce = calls.newContext();
    this.#calls = calls;
    this.#scratch = scratch;
    this.#counter = counter;
    this.#nonce = nonce;
    released.register(this, () => {
      calls.freeContext(counter);
      calls.freeContext(nonce);
    });
    const key = newArena(32);
    key.bytes.set(keys.encrypt);
    check(calls.cipherInit(counter, calls.aes256ctr(), 0, key.address, scratch.address), "AES-256-CTR");
    key.bytes.set(keys.macK);
    check(calls.cipherInit(nonce, calls.aes128ecb(), 0, key.address, 0), "AES-128-ECB");
    check(calls.cipherPadding(nonce, 0), "AES without padding");
    key.bytes.fill(0);
    scratch.bytes.set(clampR(keys.macR), ONE_TIME_KEY);
    this.#oneTimeKey = new Uint32Array(scratch.bytes.buffer, scratch.bytes.byteOffset + ONE_TIME_KEY, 8);
  }

  /** AES-256-CTR of `length` bytes; the 16-byte counter is at `iv`. Source and target may be the same place. */
  counter(
    iv: Arena,
    ivOffset: number,
    source: Arena,
    offset: number,
    target: Arena,
    targetOffset: number,
    length: number,
  ): void {
    const calls = this.#calls;
    const outLength = this.#scratch.address + OUT_LENGTH;
    let ok = calls.cipherInit(this.#counter, 0, 0, 0, iv.address + ivOffset);
    for (let done = 0; ok === 1 && done < length; done += MAX_UPDATE) {
      const part = Math.min(length - done, MAX_UPDATE);
      ok = calls.cipherUpdate(
        this.#counter,
        target.address + targetOffset + done,
        outLength,
        source.address + offset + done,
        part,
      );
    }
    check(ok, "AES-256-CTR");
  }

  /** AES-128-ECB in place over `count` 16-byte blocks from the start of the arena: IVs become Poly1305 nonces. */
  nonces(blocks: Arena, count: number): void {
    check(
      this.#calls.cipherUpdate(
        this.#nonce,
        blocks.address,
        this.#scratch.address + OUT_LENGTH,
        blocks.address,
        count * 16,
      ),
      "AES-128-ECB",
    );
  }

  /** Poly1305 of `length` bytes with nonce number `index` of `nonces`; 16 bytes go to `target`. */
  authenticate(
    nonces: Arena,
    index: number,
    source: Arena,
    offset: number,
    length: number,
    target: Arena,
    targetOffset: number,
  ): void {
    if (this.#nonceSource !== nonces.bytes) {
      this.#nonceSource = nonces.bytes;
      this.#nonceWords = new Uint32Array(nonces.bytes.buffer, nonces.bytes.byteOffset, nonces.bytes.byteLength >> 2);
    }
    const key = this.#oneTimeKey;
    const words = this.#nonceWords;
    key[4] = words[index * 4]!;
    key[5] = words[index * 4 + 1]!;
    key[6] = words[index * 4 + 2]!;
    key[7] = words[index * 4 + 3]!;
    const calls = this.#calls;
    const context = this.#scratch.address + POLY_CONTEXT;
    calls.polyInit(context, this.#scratch.address + ONE_TIME_KEY);
    calls.polyUpdate(context, source.address + offset, length);
    calls.polyFinal(context, target.address + targetOffset);
  }
}

function nativePrimitives(calls: Calls): Primitives {
  const context = newArena(256);
  return {
    fillRandom(target, offset, length) {
      let done = 0;
      for (let refused = 0; done < length;) {
        const count = calls.getrandom(target.address + offset + done, length - done, 0);
        if (count > 0) done += count;
        else if (++refused > 100) throw new CairnError("io", "the kernel gives no random bytes");
      }
    },
    sha256(source, offset, length, target, targetOffset) {
      calls.shaInit(context.address);
      calls.shaUpdate(context.address, source.address + offset, length);
      calls.shaFinal(target.address + targetOffset, context.address);
    },
    newCipher: (keys) => new NativeCipher(calls, keys),
  };
}

const COUNT = 100;

/** Returns the key bytes 0, 1, 2 …; the cipher clamps `macR`. */
export function knownKeys(): MasterKeys {
  const bytes = Uint8Array.from({ length: 64 }, (_, index) => index);
  return { encrypt: bytes.slice(0, 32), macK: bytes.slice(32, 48), macR: bytes.slice(48, 64) };
}

/** 100 bytes 7·i + 1, sealed with `knownKeys` and this IV, whose counter carries through three bytes. */
const IV = Buffer.from("f0f1f2f3f4f5f6f7f8f9fafb00fffffe", "hex");
const EXPECTED = {
  sha256: "4303a0db0805657f94896cbe70712284dd3d74b1324a92b677b792b63b5d7538",
  ciphertext:
    "e45b45707919eab603c395950d129048c503e23c73cc8936c572fb21231d44c9a8200c45155abb38885816b9ab4a3876a585ea87b5bc8691bed939c18eb66ad52c8d288a9263a5afc349340a2308d9edecf0219de823a28b59dfdc738d2c4110920ed2de",
  mac: "3dad7d4aa948c9386ce782150936710e",
};

/** True if the implementation computes the published values. A wrong symbol or layout must never seal data. */
export function givesKnownAnswers(candidate: Primitives): boolean {
  const data = newArena(COUNT + 16);
  const out = newArena(64);
  const iv = newArena(16);
  for (let index = 0; index < COUNT; index++) data.bytes[index] = (7 * index + 1) & 0xff;
  candidate.sha256(data, 0, COUNT, out, 0);
  if (Buffer.from(out.bytes.subarray(0, 32)).toString("hex") !== EXPECTED.sha256) return false;
  const cipher = candidate.newCipher(knownKeys());
  iv.bytes.set(IV);
  cipher.counter(iv, 0, data, 0, data, 0, COUNT);
  if (Buffer.from(data.bytes.subarray(0, COUNT)).toString("hex") !== EXPECTED.ciphertext) return false;
  cipher.nonces(iv, 1);
  cipher.authenticate(iv, 0, data, 0, COUNT, data, COUNT);
  if (Buffer.from(data.bytes.subarray(COUNT, COUNT + 16)).toString("hex") !== EXPECTED.mac) return false;
  candidate.fillRandom(out, 0, 32);
  return out.bytes.subarray(0, 32).some((byte) => byte !== 0);
}

/** Binds Node's exports of libcrypto and tests them with known answers. */
function provenPrimitives(): Primitives {
  const calls: Partial<Calls> = {};
  for (const [name, signature] of Object.entries(SIGNATURES)) {
    const bound = bindNative(signature);
    if (bound === null) throw new CairnError("unsupported", "this Node exports no libcrypto: use one from nodejs.org");
    calls[name as keyof Calls] = bound;
  }
  const found = nativePrimitives(calls as Calls);
  if (!givesKnownAnswers(found))
    throw new CairnError("unsupported", "this Node's libcrypto failed its self-test (known answer)");
  return found;
}

let chosen: Primitives | undefined;

/**
 * Returns this thread's functions for encryption and hashes, tested once with known answers. Throws `unsupported` if a
 * symbol is missing or an answer is wrong.
 */
export function primitives(): Primitives {
  return (chosen ??= provenPrimitives());
}

/** Writes the SHA-256 of `length` bytes at `offset` of an arena, 32 bytes, to `target`. Allocates nothing. */
export function hashAt(source: Arena, offset: number, length: number, target: Arena, targetOffset: number): void {
  primitives().sha256(source, offset, length, target, targetOffset);
}
