import { Fields, goJsonText, parseJson, type JsonObject } from "../fields.ts";

/** A key file: the master keys, sealed with a key that scrypt derives from a password. */
export interface KeyFile {
  /** Null if the file does not have it; rustic writes it only on request. */
  created: string | null;
  username: string;
  hostname: string;
  kdf: "scrypt";
  N: number;
  r: number;
  p: number;
  /** 64 bytes. */
  salt: Uint8Array;
  /** The sealed JSON of the master key. */
  data: Uint8Array;
  extra?: JsonObject;
}

/** The three keys of a repository, as inside `data`: 32, 16 and 16 bytes. */
export interface MasterKeyParts {
  encrypt: Uint8Array;
  macK: Uint8Array;
  macR: Uint8Array;
}

const SALT_SIZE = 64;
const MAX_DATA = 64 * 1024;
/** scrypt needs 128 · N · r bytes; the limit is 1 GiB. */
const MAX_MEMORY = 2 ** 30;
/** Limit of N · r · p, the work; restic's own keys have 2¹⁸ to 2²¹. */
const MAX_WORK = 2 ** 28;

function base64(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("base64");
}

export function encodeKeyFile(key: KeyFile): Uint8Array {
  const { created, username, hostname, kdf, N, r, p, extra } = key;
  const salt = base64(key.salt);
  const data = base64(key.data);
  const when = created === null ? {} : { created };
  return Buffer.from(goJsonText({ ...when, username, hostname, kdf, N, r, p, salt, data, ...extra }), "utf8");
}

/**
 * Throws `damaged`, naming the field. Limits scrypt's parameters, so that a hostile file cannot exhaust the machine.
 */
export function decodeKeyFile(bytes: Uint8Array): KeyFile {
  const fields = new Fields(parseJson(bytes, "key file"), "key file");
  if (fields.text("kdf") !== "scrypt") throw fields.wrong("kdf", "scrypt");
  const key: KeyFile = {
    created: fields.has("created") ? fields.time("created") : null,
    username: fields.optionalText("username") ?? "",
    hostname: fields.optionalText("hostname") ?? "",
    kdf: "scrypt",
    N: fields.integer("N", 2 ** 30, 2),
    r: fields.integer("r", 2 ** 20, 1),
    p: fields.integer("p", 2 ** 20, 1),
    salt: fields.base64("salt"),
    data: fields.base64("data", MAX_DATA * 2),
  };
  if ((key.N & (key.N - 1)) !== 0) throw fields.wrong("N", "a power of two");
  if (128 * key.N * key.r > MAX_MEMORY) throw fields.wrong("N", "small enough: it needs more than 1 GiB");
  if (key.N * key.r * key.p > MAX_WORK) throw fields.wrong("p", "small enough: it takes too long");
  if (key.salt.length !== SALT_SIZE) throw fields.wrong("salt", `${SALT_SIZE} bytes`);
  if (key.data.length < 32 || key.data.length > MAX_DATA) throw fields.wrong("data", "of a possible length");
  const extra = fields.rest();
  if (Object.keys(extra).length > 0) key.extra = extra;
  return key;
}

/** Returns the JSON that a key file seals. */
export function encodeMasterKeys(keys: MasterKeyParts): Uint8Array {
  const mac = { k: base64(keys.macK), r: base64(keys.macR) };
  return Buffer.from(JSON.stringify({ mac, encrypt: base64(keys.encrypt) }), "utf8");
}

/** Throws `damaged`. Messages have no key bytes. */
export function decodeMasterKeys(bytes: Uint8Array): MasterKeyParts {
  const fields = new Fields(parseJson(bytes, "master key"), "master key");
  const mac = fields.object("mac");
  const keys = { encrypt: fields.base64("encrypt"), macK: mac.base64("k"), macR: mac.base64("r") };
  if (keys.encrypt.length !== 32) throw fields.wrong("encrypt", "32 bytes");
  if (keys.macK.length !== 16) throw mac.wrong("k", "16 bytes");
  if (keys.macR.length !== 16) throw mac.wrong("r", "16 bytes");
  return keys;
}
