import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { CairnError } from "../../errors.ts";
import type { ControlId, ObjectId, SavePointId, WorkspaceId } from "../../ids.ts";
import { decodeUnfreed, encodeUnfreed } from "./cleanup.ts";
import * as control from "./control.ts";
import { decodeDescriptor, encodeDescriptor, MAX_OMITTED, omittedOf, type Descriptor } from "./descriptor.ts";
import { everyCutIsDamage, everyFlipIsDamageOrDecodes, nonsenseIsDamage } from "../hostile.contract.ts";
import { rawPath, recordPath } from "./record.ts";
import { EARLIER_FORMATS, type UnfinishedWork, WORK_KINDS, workOf } from "./unfinished.ts";
import { decodeView, encodeView } from "./view.ts";

const point = (digit: string) => digit.repeat(32) as SavePointId;
const workspace = "b".repeat(32) as WorkspaceId;
const object = (digit: string) => digit.repeat(64) as ObjectId;
const at = "2026-11-20T09:15:19.123Z";

const descriptor: Descriptor = {
  save_point_id: point("a"),
  workspace_id: workspace,
  workspace_name: "main",
  sequence: 7,
  created_at: at,
  message: "before the <change> \u2028",
  tags: ["turn", "x"],
  engine: "copy",
  effective_engine: "copy",
  degraded: ["no_native"],
  parent_id: point("c"),
  restored_from: null,
  cause: { kind: "run", command: ["make", "all"], exit_code: 2, nested: { later: [1] } },
  content: {
    tree: object("1"),
    snapshot_tree: object("2"),
    snapshot: null,
    root: { mode: 0o1777, uid: 0, gid: 0, user: "root", group: "", mtime_sec: -5, mtime_ns: 999_999_999 },
  },
  state_digest: object("3"),
  metadata_digest: null,
  complete: false,
  entries: { files: 3, directories: 2, links: 1, other: 0 },
  bytes: 9_007_199_254_740_991,
  bytes_stored: 0,
  unchanged: false,
  labels: [{ path: "a.db", label: "torn", seen: 3 }],
  omitted: [{ path: "\ufffd", path_b64: "/w==", reason: "permission" }],
  omitted_count: 5,
  rules: { ignore_file: true, exclude: ["*.o"], ignored_count: 2, ignored_sample: [{ path: "x.o" }] },
  undo: false,
};

function parse(bytes: Uint8Array): Record<string, unknown> {
  return JSON.parse(Buffer.from(bytes).toString()) as Record<string, unknown>;
}

function withoutHead<T>(record: T): T {
  const { format: _format, version: _version, ...rest } = record as Record<string, unknown>;
  return rest as T;
}

test("a decoded descriptor equals the original and encodes to the same bytes", () => {
  const bytes = encodeDescriptor(descriptor);
  assert.equal(Buffer.from(bytes).toString().slice(0, 45), '{"format":"cairn.descriptor","version":1,"sav');
  const decoded = decodeDescriptor(bytes);
  assert.deepEqual(withoutHead(decoded), descriptor);
  assert.deepEqual(Buffer.from(encodeDescriptor(decoded)), Buffer.from(bytes));
});

test("a descriptor keeps any text in its message, tags, workspace name and cause", () => {
  const text = fc.string({ unit: "binary", maxLength: 20 });
  const cause = fc.dictionary(text, fc.jsonValue()).map((more) => ({ ...more, kind: "tool" }));
  fc.assert(
    fc.property(text, fc.array(text), text, cause, (message, tags, workspace_name, cause) => {
      const made = {
        ...descriptor,
        message,
        tags,
        workspace_name,
        cause: JSON.parse(JSON.stringify(cause)) as typeof cause,
      };
      assert.deepEqual(withoutHead(decodeDescriptor(encodeDescriptor(made))), made);
    }),
  );
});

test("a descriptor keeps unknown fields at any depth", () => {
  const value = parse(encodeDescriptor(descriptor));
  value["later"] = { a: [1, { b: null }] };
  (value["content"] as Record<string, unknown>)["clone"] = "x";
  (value["rules"] as Record<string, unknown>)["mounts"] = true;
  const text = `${JSON.stringify(value)}\n`;
  assert.equal(Buffer.from(encodeDescriptor(decodeDescriptor(Buffer.from(text)))).toString(), text);
  const proto = text.replace('"later":', '"__proto__":{"polluted":1},"later":');
  assert.equal(Buffer.from(encodeDescriptor(decodeDescriptor(Buffer.from(proto)))).toString(), proto);
});

/** Every path to a required field, by keys and indexes. */
function requiredPaths(value: unknown, path: (string | number)[] = []): (string | number)[][] {
  if (typeof value !== "object" || value === null) return [];
  const free = path.includes("cause") || path.includes("settings");
  return Object.entries(value).flatMap(([key, child]) => {
    const here = [...path, Array.isArray(value) ? Number(key) : key];
    const below = requiredPaths(child, here);
    return Array.isArray(value) || free || key === "seen" || key === "path_b64" ? below : [here, ...below];
  });
}

function change(
  value: unknown,
  path: (string | number)[],
  apply: (holder: Record<string, unknown>, key: string) => void,
): string {
  const copy = JSON.parse(JSON.stringify(value)) as Record<string, unknown>;
  let holder = copy;
  for (const key of path.slice(0, -1)) holder = holder[key] as Record<string, unknown>;
  apply(holder, String(path.at(-1)));
  return JSON.stringify(copy);
}

test("decodeDescriptor names the field that is missing or has the wrong type", () => {
  const value = parse(encodeDescriptor(descriptor));
  const paths = requiredPaths(value);
  assert.ok(paths.length > 40);
  for (const path of paths) {
    const key = String(path.at(-1));
    const named = (error: unknown) =>
      error instanceof CairnError && error.code === "damaged" && error.message.includes(`"${key}"`);
    const missing = change(value, path, (holder, last) => delete holder[last]);
    assert.throws(() => decodeDescriptor(Buffer.from(missing)), named, `missing ${path.join(".")}`);
    for (const wrong of [{ not: "this" }, 1.5, -1, "\u0000"]) {
      const original = path.reduce((at: unknown, k) => (at as Record<string, unknown>)[k], value);
      if (typeof wrong === typeof original && !(typeof wrong === "number" && key !== "mtime_sec")) continue;
      const changed = change(value, path, (holder, last) => (holder[last] = wrong));
      if (path.length === 1 && (key === "cause" || key === "content") && typeof wrong === "object") continue;
      assert.throws(
        () => decodeDescriptor(Buffer.from(changed)),
        named,
        `${path.join(".")} = ${JSON.stringify(wrong)}`,
      );
    }
  }
});

test("acl_group of a descriptor is an integer from 0 to 7", () => {
  const withBits = (bits: unknown): Uint8Array => {
    const value = parse(encodeDescriptor(descriptor)) as { content: { root: object } };
    value.content.root = { ...value.content.root, acl_group: bits };
    return Buffer.from(JSON.stringify(value));
  };
  assert.equal(decodeDescriptor(withBits(7)).content.root.acl_group, 7);
  for (const wrong of [8, -1, "7"])
    assert.throws(() => decodeDescriptor(withBits(wrong)), { code: "damaged" }, JSON.stringify(wrong));
});

test("decodeDescriptor throws newer_version for a newer version, and damaged for another format", () => {
  const value = parse(encodeDescriptor(descriptor));
  const text = (more: object) => Buffer.from(JSON.stringify({ ...value, ...more }));
  assert.throws(() => decodeDescriptor(text({ version: 4 })), { code: "newer_version" });
  assert.throws(() => decodeDescriptor(text({ version: 4, sequence: null })), { code: "newer_version" });
  assert.throws(() => decodeDescriptor(text({ version: 0 })), { code: "damaged" });
  assert.throws(() => decodeDescriptor(text({ version: "1" })), { code: "damaged" });
  assert.throws(() => decodeDescriptor(text({ format: "cairn.pin" })), /format/);
});

test("encodeDescriptor refuses a descriptor that decodeDescriptor would refuse", () => {
  const wrong: Partial<Descriptor>[] = [
    { bytes: Number.NaN },
    { sequence: 0 },
    { created_at: "yesterday" },
    { save_point_id: "../x" as SavePointId },
    { omitted_count: 0 },
    { omitted: Array.from({ length: MAX_OMITTED + 1 }, () => ({ path: "p", reason: "r" })), omitted_count: 2000 },
  ];
  for (const more of wrong) assert.throws(() => encodeDescriptor({ ...descriptor, ...more }), { code: "internal" });
});

test("a descriptor lists only the first omitted entries, and counts all of them", () => {
  const entries = Array.from({ length: MAX_OMITTED + 5 }, (_, i) => ({
    path: Buffer.from(`f${10_000 + i}`),
    reason: "r",
  }));
  const { omitted, omitted_count: count } = decodeDescriptor(
    encodeDescriptor({ ...descriptor, ...omittedOf(entries), complete: false }),
  );
  assert.deepEqual([omitted.length, count, omitted.at(-1)?.path], [MAX_OMITTED, MAX_OMITTED + 5, "f10999"]);
});

const works: UnfinishedWork = {
  cleanup: {
    drop: [{ id: point("a"), sequence: 3, checksum: object("2") }],
    thorough: true,
    forced: true,
  },
  "removed-paths": {
    at,
    paths: [{ path: "\ufffd", path_b64: "/w==" }],
    points: [{ workspace_name: "main", ids: [point("a")] }],
  },
  conversion: {
    name: ".cairn-original-0123456789abcdef",
    uuid: "c".repeat(32),
    since: "1152921504606846976",
    made: "0",
  },
  dumps: { made: "1.2.3" },
  exchange: {
    target: point("a"),
    undo_id: point("b"),
    kind: "undo",
    staging: ".cairn-restore-0123456789abcdef",
    uuid: "c".repeat(32),
  },
  "fork-removal": {
    owner: { host: "h", machine_id: "", boot_id: "b", pid_namespace: "", pid: 7, start_time: "1" },
    workspace: { id: workspace, name: "try" },
    target: { path: "/w/\ufffd", path_b64: "L3cv/w==" },
    aside: ".cairn-removing-0123456789abcdef",
    inode: "18446744073709551615",
    made: "1152921504606846976",
    save_point_id: point("a"),
  },
  "missing-folder": { aside: ".cairn-tmp-1-0123456789abcdef", made: "1.2.3" },
  "context-change": { replaced: ["a/b"], has_records: true },
  "machine-restore": { generation: "0a1b", ran: true },
  "new-folder": {
    purpose: "fork",
    staging: { path: "/w/\ufffd.cairn-partial-e", path_b64: "L3cv/y5jYWlybi1wYXJ0aWFsLWU=" },
    target: { path: "/w/\ufffd", path_b64: "L3cv/w==" },
    owner: { host: "h", machine_id: "", boot_id: "b", pid_namespace: "", pid: 7, start_time: "1", nonce: "n" },
    content: "c",
    workspace: { id: workspace, point: point("a"), inode: "7" },
    control: { path: "/c", id: "d".repeat(32) },
    moving: true,
    closing: true,
  } as unknown as UnfinishedWork["new-folder"],
  restore: {
    target: point("a"),
    undo_id: point("b"),
    kind: "restore",
    paths: [{ path: "\ufffd", path_b64: "/w==" }],
    staging: "/control/tmp/.cairn-restore-e",
    root: { mode: 0o1777, uid: 0, gid: 0, mtime_sec: 5, mtime_ns: 0 },
    at,
  },
  seal: { id: point("a") },
};

const files = {
  control: {
    encode: control.encodeControl,
    decode: control.decodeControl,
    record: { id: "d".repeat(32) as ControlId, name: "n", created_at: at, engine: "copy", self_contained: true },
  },
  workspace: {
    encode: control.encodeWorkspace,
    decode: control.decodeWorkspace,
    record: {
      id: workspace,
      name: "main",
      path: "/w/\ufffd",
      path_b64: "L3cv/w==",
      root_inode: "18446744073709551615",
      device: "65024",
      filesystem_uuid: "u",
      root_made: "1152921504606846976",
      registered_at: at,
      origin: { save_point_id: point("a"), workspace_id: workspace },
      settings: { exclude: ["x"] },
    },
  },
  state: {
    encode: control.encodeState,
    decode: control.decodeState,
    newest: 2,
    record: {
      head: point("a"),
      operations: [{ kind: "undo", undo_id: point("b"), restored_to: point("c"), paths: [{ path: "p" }], at }],
      recovered: [{ at, detail: "d" }],
    },
  },
  pin: { encode: control.encodePin, decode: control.decodePin, record: { at, reason: "" } },
  tags: { encode: control.encodeTags, decode: control.decodeTags, record: { tags: ["a", "b"] } },
  verification: {
    encode: control.encodeVerification,
    decode: control.decodeVerification,
    record: { at, ok: false, problems: [{ kind: "digest", path: "p", detail: "d" }] },
  },
  view: {
    encode: encodeView,
    decode: decodeView,
    record: {
      view_id: "e".repeat(16),
      save_point_id: point("a"),
      workspace_id: workspace,
      path: "/control/views/e",
      opened_at: at,
      method: "copy",
    },
  },
  unfreed: {
    encode: encodeUnfreed,
    decode: decodeUnfreed,
    record: { points: [point("a"), point("b")], thorough: true },
  },
  ...Object.fromEntries(WORK_KINDS.map((kind) => [`unfinished ${kind}`, { ...workOf(kind), record: works[kind] }])),
} as unknown as Record<
  string,
  { encode: (r: object) => Uint8Array; decode: (b: Uint8Array) => object; record: object; newest?: number }
>;

for (const [name, { encode, decode, record, newest = 1 }] of Object.entries(files)) {
  test(`the ${name} file keeps all fields including unknown ones, and an error names the wrong field`, () => {
    const bytes = encode(record);
    assert.deepEqual(withoutHead(decode(bytes)), record);
    const more = Buffer.from(`${JSON.stringify({ ...parse(bytes), later: { x: 1 } })}\n`);
    assert.deepEqual(Buffer.from(encode(decode(more))), more);
    const newer = Buffer.from(JSON.stringify({ format: parse(bytes)["format"], version: newest + 1 }));
    assert.throws(() => decode(newer), { code: "newer_version" });
    for (const key of Object.keys(record)) {
      const named = (error: unknown) =>
        error instanceof CairnError && error.code === "damaged" && error.message.includes(`"${key}"`);
      const changed = Buffer.from(JSON.stringify({ ...parse(bytes), [key]: 1.5 }));
      assert.throws(() => decode(changed), named, key);
    }
  });

  test(`decoding a truncated or changed ${name} file throws no error other than damaged or newer_version`, () => {
    const bytes = encode(record);
    everyCutIsDamage(decode, bytes, { optionalTail: 1 });
    everyFlipIsDamageOrDecodes(decode, bytes);
    nonsenseIsDamage(decode);
  });
}

test("decoding a truncated or changed descriptor throws no error other than damaged or newer_version", () => {
  const bytes = encodeDescriptor(descriptor);
  everyCutIsDamage(decodeDescriptor, bytes, { optionalTail: 1 });
  everyFlipIsDamageOrDecodes(decodeDescriptor, bytes);
  nonsenseIsDamage(decodeDescriptor);
});

test("decodeState accepts a state without a restore and without a head", () => {
  const empty = { head: null, operations: [], recovered: [] };
  assert.deepEqual(withoutHead(control.decodeState(control.encodeState(empty))), empty);
  const whole = {
    ...empty,
    operations: [{ kind: "restore" as const, undo_id: point("b"), restored_to: point("c"), paths: null, at }],
  };
  assert.deepEqual(withoutHead(control.decodeState(control.encodeState(whole))), whole);
});

test("rawPath returns the bytes of any path that recordPath recorded", () => {
  fc.assert(
    fc.property(fc.uint8Array(), (raw) => {
      const recorded = recordPath(raw);
      assert.deepEqual(Buffer.from(rawPath(recorded)), Buffer.from(raw));
    }),
  );
  assert.deepEqual(recordPath(Buffer.from("a/é")), { path: "a/é" });
  assert.deepEqual(recordPath(Buffer.from([0xff])), { path: "\ufffd", path_b64: "/w==" });
});

test("a record of unfinished work of an earlier build is refused, and the hint names both ways out", () => {
  for (const format of EARLIER_FORMATS)
    assert.throws(
      () => workOf("cleanup", "go there").decode(Buffer.from(JSON.stringify({ format, version: 1, drop: [] }))),
      (error) =>
        error instanceof CairnError &&
        error.code === "refused" &&
        error.message.includes(`${format} 1`) &&
        /^run the build that began it, .*; without that build: go there$/.test(String(error.hint)),
    );
});
