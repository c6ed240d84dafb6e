import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import fc from "fast-check";
import type { ObjectId } from "../../ids.ts";
import { decodeConfig, encodeConfig } from "./config.ts";
import { everyCutIsDamage, everyFlipIsDamageOrDecodes, nonsenseIsDamage } from "../hostile.contract.ts";
import { decodeKeyFile, decodeMasterKeys, encodeKeyFile, encodeMasterKeys } from "./key-file.ts";
import { decodeLock, encodeLock } from "./lock-file.ts";
import { decodeSnapshot, encodeSnapshot, type Snapshot } from "./snapshot.ts";

function golden(name: string): Buffer {
  return readFileSync(new URL(`../../../test/vectors/restic/${name}`, import.meta.url));
}

/** Compact JSON with the escapes that Go writes and JSON.stringify does not. */
function compact(json: Buffer): string {
  return JSON.stringify(JSON.parse(json.toString()))
    .replaceAll("<", "\\u003c")
    .replaceAll(">", "\\u003e")
    .replaceAll("&", "\\u0026");
}

test("decoding and encoding restic's snapshot, config and key file returns the same bytes", () => {
  const snapshot = golden("snapshot.json");
  assert.equal(Buffer.from(encodeSnapshot(decodeSnapshot(snapshot))).toString(), compact(snapshot));
  const config = golden("config.json");
  assert.equal(Buffer.from(encodeConfig(decodeConfig(config))).toString(), compact(config));
  const key = golden("key.json");
  assert.equal(Buffer.from(encodeKeyFile(decodeKeyFile(key))).toString(), key.toString());
});

test("decodeKeyFile accepts rustic's key file without time, user and host", () => {
  const {
    created: _created,
    username: _username,
    hostname: _hostname,
    ...rest
  } = JSON.parse(golden("key.json").toString()) as Record<string, unknown>;
  const key = decodeKeyFile(Buffer.from(JSON.stringify(rest)));
  assert.deepEqual([key.created, key.username, key.hostname], [null, "", ""]);
});

const id = (digit: string) => digit.repeat(64) as ObjectId;

const full: Snapshot = {
  time: "2026-11-20T09:15:19.123456789Z",
  parent: id("1"),
  tree: id("2"),
  paths: ["/a <b> & \u2028"],
  hostname: "host",
  username: "user",
  uid: 1000,
  gid: 4294967295,
  excludes: ["*.tmp"],
  tags: ["cairn:00", "x"],
  original: id("3"),
  program_version: "cairn 0.1.0",
  summary: { backup_start: "2026-11-20T09:15:20Z", files_new: 3, unknown: [1] },
  extra: { later: { a: "<" } },
};

test("encodeSnapshot writes all members in restic's order of keys", () => {
  const bytes = encodeSnapshot(full);
  assert.deepEqual(decodeSnapshot(bytes), full);
  const keys = Object.keys(JSON.parse(Buffer.from(bytes).toString()) as object).join(" ");
  const order = "time parent tree paths hostname username uid gid excludes tags original program_version summary later";
  assert.equal(keys, order);
  assert.ok(!/[<>&\u2028]/.test(Buffer.from(bytes).toString()));
});

test("decodeSnapshot returns any text in the host name, paths and tags unchanged", () => {
  const text = fc.string({ unit: "binary" });
  fc.assert(
    fc.property(text, fc.array(text), fc.array(text, { minLength: 1 }), (hostname, paths, tags) => {
      const snapshot = { ...full, hostname, paths, tags };
      assert.deepEqual(decodeSnapshot(encodeSnapshot(snapshot)), snapshot);
    }),
  );
});

test("decodeSnapshot reads null and missing members as empty, like Go", () => {
  const text = `{"time":"2026-11-20T10:15:19+01:00","tree":"${id("2")}","paths":null,"parent":null,"tags":null}`;
  const time = "2026-11-20T10:15:19+01:00";
  const wanted = { time, tree: id("2"), paths: [], hostname: "", username: "", uid: 0, gid: 0 };
  assert.deepEqual(decodeSnapshot(Buffer.from(text)), wanted);
});

test("decodeConfig throws newer_version for a newer format, and keeps unknown members", () => {
  const config = { version: 2, id: id("4"), chunker_polynomial: "30fa0996867b4b", extra: { later: 1 } };
  assert.deepEqual(decodeConfig(encodeConfig(config)), config);
  const appendOnly = { ...config, append_only: true };
  assert.deepEqual(decodeConfig(encodeConfig(appendOnly)), appendOnly);
  assert.throws(() => decodeConfig(encodeConfig({ ...config, extra: { append_only: "yes" } })), /append_only/);
  assert.throws(() => decodeConfig(encodeConfig({ ...config, version: 3 })), {
    code: "newer_version",
    hint: "a newer Cairn or restic made this repository: open it with that version or a later one",
  });
  assert.throws(() => decodeConfig(encodeConfig({ ...config, version: 0 })), { code: "damaged" });
  assert.throws(() => decodeConfig(encodeConfig({ ...config, chunker_polynomial: "xyz" })), /chunker_polynomial/);
});

test("decodeKeyFile refuses invalid or too expensive scrypt parameters", () => {
  const key = decodeKeyFile(golden("key.json"));
  for (const wrong of [
    { N: 3 },
    { N: 0 },
    { N: 2 ** 30 },
    { N: 2 ** 20, r: 9 },
    { p: 2 ** 20 },
    { r: 0 },
    { p: 0 },
    { N: 1.5 },
  ]) {
    assert.throws(() => decodeKeyFile(encodeKeyFile({ ...key, ...wrong })), { code: "damaged" }, JSON.stringify(wrong));
  }
  assert.throws(() => decodeKeyFile(encodeKeyFile({ ...key, salt: new Uint8Array(63) })), /salt/);
  assert.throws(() => decodeKeyFile(encodeKeyFile({ ...key, data: new Uint8Array(31) })), /data/);
  const cheap = { ...key, N: 1024, r: 8, p: 1, extra: { note: "kept" } };
  assert.deepEqual(decodeKeyFile(encodeKeyFile(cheap)), cheap);
});

test("encodeMasterKeys writes restic's JSON, and a decoding error contains no key", () => {
  const keys = { encrypt: Buffer.alloc(32, 1), macK: Buffer.alloc(16, 2), macR: Buffer.alloc(16, 3) };
  const bytes = encodeMasterKeys(keys);
  const b64 = (b: Buffer) => b.toString("base64");
  assert.equal(
    Buffer.from(bytes).toString(),
    `{"mac":{"k":"${b64(keys.macK)}","r":"${b64(keys.macR)}"},"encrypt":"${b64(keys.encrypt)}"}`,
  );
  assert.deepEqual(decodeMasterKeys(bytes), keys);
  const secret = b64(Buffer.alloc(31, 1));
  assert.throws(
    () => decodeMasterKeys(Buffer.from(JSON.stringify({ mac: { k: "", r: "" }, encrypt: secret }))),
    (error: Error) => !error.message.includes(secret.slice(0, 8)),
  );
});

test("decodeLock returns the encoded lock, which omits uid and gid if they are 0", () => {
  const lock = { time: full.time, exclusive: true, hostname: "h", username: "u", pid: 5, uid: 0, gid: 0 };
  assert.deepEqual(decodeLock(encodeLock(lock)), lock);
  assert.ok(!Buffer.from(encodeLock(lock)).toString().includes("uid"));
  const other = { ...lock, exclusive: false, uid: 7, gid: 8, extra: { later: true } };
  assert.deepEqual(decodeLock(encodeLock(other)), other);
});

const decoders: [string, (bytes: Uint8Array) => unknown, Uint8Array][] = [
  ["snapshot", decodeSnapshot, encodeSnapshot(full)],
  ["config", decodeConfig, golden("config.json")],
  ["key file", decodeKeyFile, golden("key.json")],
  [
    "lock",
    decodeLock,
    encodeLock({ time: full.time, exclusive: true, hostname: "h", username: "u", pid: 5, uid: 1, gid: 2 }),
  ],
  [
    "master key",
    decodeMasterKeys,
    encodeMasterKeys({ encrypt: Buffer.alloc(32), macK: Buffer.alloc(16), macR: Buffer.alloc(16) }),
  ],
];

for (const [name, decode, bytes] of decoders) {
  test(`decoding a truncated or changed ${name} throws no error other than damaged or newer_version`, () => {
    const tail = bytes.length - Buffer.from(bytes).toString().trimEnd().length;
    everyCutIsDamage(decode, bytes, { optionalTail: tail });
    everyFlipIsDamageOrDecodes(decode, bytes);
    nonsenseIsDamage(decode);
  });
}
