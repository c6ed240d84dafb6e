import { createPrivateKey, createPublicKey, generateKeyPairSync, sign, verify, type KeyObject } from "node:crypto";
import { CairnError } from "../errors.ts";

/** ed25519: keys as 32 raw bytes, signatures as 64. */

const PRIVATE_PREFIX = Buffer.from("302e020100300506032b657004220420", "hex");
const PUBLIC_PREFIX = Buffer.from("302a300506032b6570032100", "hex");

export interface SigningKey {
  /** 32 bytes. Anyone who has them can sign. */
  readonly secret: Uint8Array;
  /** 32 bytes. */
  readonly publicKey: Uint8Array;
}

export function newSigningKey(): SigningKey {
  const { privateKey } = generateKeyPairSync("ed25519");
  return signingKeyOf(privateKey.export({ format: "der", type: "pkcs8" }).subarray(PRIVATE_PREFIX.length));
}

/** Returns the key with these 32 secret bytes. Throws `damaged` for another length. */
export function signingKeyOf(secret: Uint8Array): SigningKey {
  if (secret.length !== 32) throw new CairnError("damaged", `a signing key has 32 bytes, this one ${secret.length}`);
  const publicDer = createPublicKey(privateKeyOf(secret)).export({ format: "der", type: "spki" });
  return { secret: Uint8Array.from(secret), publicKey: Uint8Array.from(publicDer.subarray(PUBLIC_PREFIX.length)) };
}

export function signBytes(key: SigningKey, bytes: Uint8Array): Uint8Array {
  return sign(null, bytes, privateKeyOf(key.secret));
}

/** True if the signature is by this key over exactly these bytes. False also for malformed input. */
export function isSignedBy(publicKey: Uint8Array, bytes: Uint8Array, signature: Uint8Array): boolean {
  if (publicKey.length !== 32 || signature.length !== 64) return false;
  try {
    const key = createPublicKey({ key: Buffer.concat([PUBLIC_PREFIX, publicKey]), format: "der", type: "spki" });
    return verify(null, bytes, key, signature);
  } catch {
    return false;
  }
}

function privateKeyOf(secret: Uint8Array): KeyObject {
  return createPrivateKey({ key: Buffer.concat([PRIVATE_PREFIX, secret]), format: "der", type: "pkcs8" });
}
