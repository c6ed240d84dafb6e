import { CairnError } from "../errors.ts";
import { bindNative, newArena } from "../native.ts";
import type { Arena, NativeFunction } from "../native.ts";
import { clampR } from "./clamp.ts";
import { givesKnownAnswers } from "./known-answers.ts";
import type { MasterKeys, MessageCipher, Primitives } from "./contract.ts";

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

function bindAll(): Calls | null {
  const calls: Partial<Calls> = {};
  for (const [name, signature] of Object.entries(SIGNATURES)) {
    const bound = bindNative(signature);
    if (bound === null) return null;
    calls[name as keyof Calls] = bound;
  }
  return calls as Calls;
}

function check(ok: number, what: string): void {
  if (ok !== 1) throw new CairnError("internal", `${what} was refused by the crypto library`);
}

const released = new FinalizationRegistry<() => void>((release) => release());

/** Everything of one cipher that native code reads or writes, in one arena that lives as long as the cipher. */
const ONE_TIME_KEY = 0;
const OUT_LENGTH = 32;
const POLY_CONTEXT = 64;
const MAX_UPDATE = 0x4000_0000;

class NativeCipher implements MessageCipher {
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
    name: "native",
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

/** Binds what Node exports of libcrypto, and tries known answers. Throws `unsupported` for a missing symbol or a wrong answer. */
export function provenPrimitives(): Primitives {
  const calls = bindAll();
  if (calls === null) throw new CairnError("unsupported", "this Node exports no libcrypto: use one from nodejs.org");
  const found = nativePrimitives(calls);
  if (!givesKnownAnswers(found))
    throw new CairnError("unsupported", "this Node's libcrypto gives a wrong known answer");
  return found;
}
