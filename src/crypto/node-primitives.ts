import { createCipheriv, createHash, hash, randomBytes } from "node:crypto";
import type { Cipheriv } from "node:crypto";
import { closeSync, openSync, readSync } from "node:fs";
import { createRequire } from "node:module";
import type { Arena } from "../native.ts";
import { clampR } from "./clamp.ts";
import type { MasterKeys, MessageCipher, Primitives } from "./contract.ts";

interface Sodium {
  crypto_onetimeauth(out: Uint8Array, message: Uint8Array, key: Uint8Array): void;
}

let sodium: Sodium | undefined;

/** Loaded on first use only: where native calls work it is never needed, and it costs start-up time. */
function loadSodium(): Sodium {
  sodium ??= createRequire(import.meta.url)("sodium-native") as Sodium;
  return sodium;
}

class NodeCipher implements MessageCipher {
  readonly #encrypt: Uint8Array;
  readonly #nonceCipher: Cipheriv;
  readonly #oneTimeKey = Buffer.alloc(32);
  readonly #mac = Buffer.alloc(16);

  constructor(keys: MasterKeys) {
    this.#encrypt = new Uint8Array(keys.encrypt);
    this.#nonceCipher = createCipheriv("aes-128-ecb", keys.macK, null).setAutoPadding(false);
    this.#oneTimeKey.set(clampR(keys.macR), 0);
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
    const cipher = createCipheriv("aes-256-ctr", this.#encrypt, iv.bytes.subarray(ivOffset, ivOffset + 16));
    target.bytes.set(cipher.update(source.bytes.subarray(offset, offset + length)), targetOffset);
  }

  nonces(blocks: Arena, count: number): void {
    blocks.bytes.set(this.#nonceCipher.update(blocks.bytes.subarray(0, count * 16)), 0);
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
    this.#oneTimeKey.set(nonces.bytes.subarray(index * 16, index * 16 + 16), 16);
    loadSodium().crypto_onetimeauth(this.#mac, source.bytes.subarray(offset, offset + length), this.#oneTimeKey);
    target.bytes.set(this.#mac, targetOffset);
  }
}

let randomDevice: number | null | undefined;

/** The kernel's device rather than OpenSSL's generator, whose pool would repeat in a cloned machine. */
function fillFromKernel(target: Arena, offset: number, length: number): void {
  if (randomDevice === undefined) {
    try {
      const descriptor = openSync("/dev/urandom", "r");
      randomDevice = descriptor;
      process.once("exit", () => closeSync(descriptor));
    } catch {
      randomDevice = null;
    }
  }
  let done = 0;
  while (randomDevice !== null && done < length) {
    const count = readSync(randomDevice, target.bytes, offset + done, length - done, null);
    if (count <= 0) break;
    done += count;
  }
  if (done < length) target.bytes.set(randomBytes(length - done), offset + done);
}

function sha256(source: Arena, offset: number, length: number, target: Arena, targetOffset: number): void {
  target.bytes.set(hash("sha256", source.bytes.subarray(offset, offset + length), "buffer"), targetOffset);
}

/** Everything through node:crypto and sodium-native: the slow way that works without koffi. */
export function nodePrimitives(): Primitives {
  return { name: "node", fillRandom: fillFromKernel, sha256, newCipher: (keys) => new NodeCipher(keys) };
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
