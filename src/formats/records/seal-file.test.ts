import assert from "node:assert/strict";
import { test } from "node:test";
import type { ObjectId, SavePointId, WorkspaceId } from "../../ids.ts";
import { decodeDescriptor, type Descriptor, encodeDescriptor } from "./descriptor.ts";
import { decodeSeal, encodeSeal, type SealFile, sealedDescriptor } from "./seal-file.ts";

const ID = "1".repeat(32) as SavePointId;
const TREE = "a".repeat(64) as ObjectId;
const ROOT = { mode: 0o755, uid: 0, gid: 0, user: "root", group: "root", mtime_sec: 1, mtime_ns: 2 };

const held: Descriptor = {
  save_point_id: ID,
  workspace_id: "2".repeat(32) as WorkspaceId,
  workspace_name: "main",
  sequence: 7,
  created_at: "2026-11-20T09:15:19.123Z",
  message: "held",
  tags: ["t"],
  engine: "btrfs-snapshot",
  effective_engine: "btrfs-snapshot",
  degraded: [],
  parent_id: null,
  restored_from: null,
  cause: { kind: "person" },
  content: {
    tree: "",
    snapshot_tree: "",
    snapshot: null,
    root: ROOT,
    held: { engine: "btrfs-snapshot", at: "2026-11-20T09:15:19.100Z" },
  },
  state_digest: null,
  metadata_digest: null,
  complete: true,
  entries: { files: 0, directories: 0, links: 0, other: 0 },
  bytes: 0,
  bytes_stored: 0,
  unchanged: false,
  labels: [],
  omitted: [],
  omitted_count: 0,
  rules: { ignore_file: true, exclude: [], ignored_count: 0, ignored_sample: [] },
  undo: false,
};

const seal: SealFile = {
  save_point_id: ID,
  sealed_at: "2026-11-20T09:16:00.000Z",
  content: { tree: TREE, snapshot_tree: TREE, snapshot: null },
  state_digest: "b".repeat(64),
  metadata_digest: "c".repeat(64),
  complete: false,
  entries: { files: 3, directories: 2, links: 1, other: 0 },
  bytes: 99,
  bytes_stored: 77,
  unchanged: true,
  labels: [],
  omitted: [{ path: "x", reason: "EACCES" }],
  omitted_count: 1,
  rules: { ignore_file: true, exclude: ["y"], ignored_count: 2, ignored_sample: [{ path: "y" }] },
};

test("a descriptor has version 2 if its point is not sealed yet, and otherwise version 1", () => {
  const bytes = encodeDescriptor(held);
  assert.match(Buffer.from(bytes).toString(), /^\{"format":"cairn\.descriptor","version":2,/);
  const {
    format: _format,
    version: _version,
    ...back
  } = decodeDescriptor(bytes) as Descriptor & Record<string, unknown>;
  assert.deepEqual(back, held);
  const { held: _held, ...content } = { ...held.content, tree: TREE, snapshot_tree: TREE };
  assert.match(Buffer.from(encodeDescriptor({ ...held, content })).toString(), /"version":1,/);
});

test("decodeDescriptor refuses an empty tree id unless the point is held and both tree ids are empty", () => {
  const broken = (more: object): (() => void) => {
    const text = JSON.stringify({ ...JSON.parse(Buffer.from(encodeDescriptor(held)).toString()), ...more });
    return () => decodeDescriptor(Buffer.from(text));
  };
  const { held: kept, ...bare } = held.content;
  assert.throws(broken({ content: bare }), { code: "damaged" });
  assert.throws(broken({ content: { ...held.content, snapshot_tree: TREE } }), { code: "damaged" });
  assert.throws(broken({ content: { ...held.content, held: { ...kept, at: "yesterday" } } }), { code: "damaged" });
  assert.throws(broken({ content: { ...held.content, held: { engine: "" } } }), { code: "damaged" });
});

test("a descriptor with databases by pages has version 3, and its seal version 2", () => {
  const { held: _held, ...content } = { ...held.content, tree: TREE, snapshot_tree: TREE, stored_tree: TREE };
  const bytes = encodeDescriptor({ ...held, content });
  assert.match(Buffer.from(bytes).toString(), /^\{"format":"cairn\.descriptor","version":3,/);
  assert.equal(decodeDescriptor(bytes).content.stored_tree, TREE);
  const sealed = encodeSeal({ ...seal, content: { ...seal.content, stored_tree: TREE } });
  assert.match(Buffer.from(sealed).toString(), /^\{"format":"cairn\.seal","version":2,/);
  assert.equal(decodeSeal(sealed).content.stored_tree, TREE);
  const broken = Buffer.from(Buffer.from(bytes).toString().replace(`"stored_tree":"${TREE}"`, '"stored_tree":"x"'));
  assert.throws(() => decodeDescriptor(broken), { code: "damaged" });
});

test("sealedDescriptor replaces only the fields that the seal contains", () => {
  const sealed = sealedDescriptor(held, decodeSeal(encodeSeal(seal)));
  const { save_point_id: _id, sealed_at: _at, content, ...state } = seal;
  assert.deepEqual(sealed, { ...held, ...state, content: { ...held.content, ...content } });
});

test("decodeSeal refuses a missing member, a member of the wrong type, and a newer version", () => {
  const value = JSON.parse(Buffer.from(encodeSeal(seal)).toString()) as Record<string, unknown>;
  const read =
    (more: object): (() => void) =>
    () =>
      decodeSeal(Buffer.from(JSON.stringify({ ...value, ...more })));
  for (const key of Object.keys(value)) assert.throws(read({ [key]: undefined }), { code: "damaged" }, key);
  assert.throws(read({ version: 3 }), { code: "newer_version" });
  assert.throws(read({ content: { ...seal.content, tree: "" } }), { code: "damaged" });
  assert.throws(read({ entries: { files: -1 } }), { code: "damaged" });
});
