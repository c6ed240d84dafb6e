import { scrypt } from "node:crypto";
import { CairnError } from "../errors.ts";
import { newArena } from "../native.ts";
import { clampR, type MasterKeys, primitives } from "./primitives.ts";

/** scrypt's cost numbers, named as in restic's key file. */
export interface ScryptParameters {
  readonly N: number;
  readonly r: number;
  readonly p: number;
}

/** Parameters of new keys: 32 MiB, as in restic, and about 0.2 s. */
export const DEFAULT_SCRYPT: ScryptParameters = { N: 32_768, r: 8, p: 2 };

const MAX_MEMORY = 1024 * 1024 * 1024;
const MAX_WORK = 2 ** 28;

function checkParameters({ N, r, p }: ScryptParameters): void {
  const whole = Number.isInteger(N) && Number.isInteger(r) && Number.isInteger(p);
  const powerOfTwo = N > 1 && N <= 2 ** 30 && (N & (N - 1)) === 0;
  if (
    !whole ||
    !powerOfTwo ||
    r < 1 ||
    p < 1 ||
    128 * N * r > MAX_MEMORY ||
    128 * r * p > MAX_MEMORY ||
    N * r * p > MAX_WORK
  ) {
    throw new CairnError("damaged", `scrypt parameters out of bounds: N=${N} r=${r} p=${p}`);
  }
}

/** Splits 64 bytes as restic does: 32 for AES-256, 16 for the nonce, 16 for Poly1305. */
export function splitKeys(bytes: Uint8Array): MasterKeys {
  if (bytes.length !== 64) throw new CairnError("internal", `a master key has 64 bytes, this one ${bytes.length}`);
  const copy = new Uint8Array(bytes);
  return { encrypt: copy.subarray(0, 32), macK: copy.subarray(32, 48), macR: copy.subarray(48, 64) };
}

/** Derives the keys that open a key file from a password. Throws `damaged` if the parameters are out of bounds. */
export function deriveKeys(
  password: Uint8Array | string,
  salt: Uint8Array,
  parameters: ScryptParameters,
): Promise<MasterKeys> {
  return new Promise((resolve, reject) => {
    checkParameters(parameters);
    const { N, r, p } = parameters;
    scrypt(password, salt, 64, { N, r, p, maxmem: 128 * r * (N + p + 2) + 1024 * 1024 }, (error, derived) => {
      if (error) reject(new CairnError("internal", "scrypt failed", { cause: error }));
      else resolve(splitKeys(derived));
    });
  });
}

/** Returns new master keys from the kernel's generator, with `macR` clamped as in restic. */
export function newMasterKeys(): MasterKeys {
  const arena = newArena(64);
  primitives().fillRandom(arena, 0, 64);
  const keys = splitKeys(arena.bytes);
  arena.bytes.fill(0);
  return { ...keys, macR: clampR(keys.macR) };
}
