import assert from "node:assert/strict";
import { hash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { ByteWriter, compareBytes } from "./bytes.ts";
import {
  appendMetadataEntry,
  appendStateEntry,
  beginMetadataNode,
  beginStateNode,
  isDigestedAttribute,
  type DigestEntry,
} from "./digest.ts";

const FOLDER = new URL("../../test/vectors/digest/", import.meta.url);

interface VectorEntry {
  type: DigestEntry["type"];
  name: string;
  mode: number;
  mtime: [string, number];
  uid: number;
  gid: number;
  xattrs: [string, string][];
  content?: string;
  content_zeros?: number;
  target?: string;
  device?: [number, number];
  group?: string;
  entries?: VectorEntry[];
}

interface Vector {
  root: { entries: VectorEntry[] };
  state_digest: string;
  metadata_digest: string;
  state_nodes: Record<string, string>;
  metadata_nodes: Record<string, string>;
}

function raw(text: string): Buffer {
  return Buffer.from(text, "base64");
}

function sorted(entries: VectorEntry[]): VectorEntry[] {
  return entries.toSorted((a, b) => compareBytes(raw(a.name), raw(b.name)));
}

function join(path: Uint8Array, name: Uint8Array): Buffer {
  return path.length === 0 ? Buffer.from(name) : Buffer.concat([path, Buffer.from("/"), name]);
}

/** The first member's path of each group of two or more. */
function groupsOf(entries: VectorEntry[]): Map<string, Buffer> {
  const firsts = new Map<string, Buffer>();
  const counts = new Map<string, number>();
  (function visit(level: VectorEntry[], path: Buffer) {
    for (const entry of sorted(level)) {
      const here = join(path, raw(entry.name));
      if (entry.group !== undefined) {
        if (!firsts.has(entry.group)) firsts.set(entry.group, here);
        counts.set(entry.group, (counts.get(entry.group) ?? 0) + 1);
      }
      if (entry.entries !== undefined) visit(entry.entries, here);
    }
  })(entries, Buffer.alloc(0));
  for (const [group, count] of counts) if (count < 2) firsts.delete(group);
  return firsts;
}

class Digester {
  readonly nodes: Record<string, string> = {};
  readonly #metadata: boolean;
  readonly #groups: Map<string, Buffer>;

  constructor(metadata: boolean, groups: Map<string, Buffer>) {
    this.#metadata = metadata;
    this.#groups = groups;
  }

  node(entries: VectorEntry[], path: Buffer): Uint8Array {
    const w = new ByteWriter(16);
    const children = sorted(entries).map((entry) => this.#entry(entry, path));
    if (this.#metadata) {
      beginMetadataNode(w, children.length);
      for (const child of children) appendMetadataEntry(w, child);
    } else {
      beginStateNode(w, children.length);
      for (const child of children) appendStateEntry(w, child);
    }
    const digest = hash("sha256", w.view(), "buffer");
    this.nodes[path.toString("base64")] = digest.toString("hex");
    return digest;
  }

  #entry(entry: VectorEntry, path: Buffer): DigestEntry {
    const name = raw(entry.name);
    const content = entry.content === undefined ? Buffer.alloc(entry.content_zeros ?? 0) : raw(entry.content);
    const linkedTo = entry.group === undefined ? undefined : this.#groups.get(entry.group);
    return {
      type: entry.type,
      name,
      mode: entry.mode,
      size: content.length,
      contentHash: hash("sha256", content, "buffer"),
      ...(entry.entries === undefined ? {} : { node: this.node(entry.entries, join(path, name)) }),
      ...(entry.target === undefined ? {} : { target: raw(entry.target) }),
      major: entry.device?.[0] ?? 0,
      minor: entry.device?.[1] ?? 0,
      mtimeSec: Number(entry.mtime[0]),
      mtimeNs: entry.mtime[1],
      uid: entry.uid,
      gid: entry.gid,
      xattrs: entry.xattrs.map(([n, v]) => ({ name: raw(n), value: raw(v) })),
      ...(linkedTo === undefined ? {} : { linkedTo }),
    };
  }
}

const files = readdirSync(FOLDER).filter((name) => name.endsWith(".json"));

test("the folder of digest vectors contains 15 files", () => {
  assert.equal(files.length, 15);
});

for (const file of files) {
  test(`the state digest and the metadata digest equal the vector ${file}`, () => {
    const vector = JSON.parse(readFileSync(new URL(file, FOLDER), "utf8")) as Vector;
    const groups = groupsOf(vector.root.entries);
    const state = new Digester(false, groups);
    const root = Buffer.from(state.node(vector.root.entries, Buffer.alloc(0)));
    assert.equal(root.toString("hex"), vector.state_digest);
    assert.deepEqual(state.nodes, vector.state_nodes);
    const metadata = new Digester(true, groups);
    const metadataRoot = Buffer.from(metadata.node(vector.root.entries, Buffer.alloc(0)));
    assert.equal(metadataRoot.toString("hex"), vector.metadata_digest);
    assert.deepEqual(metadata.nodes, vector.metadata_nodes);
  });
}

test("appendStateEntry throws for a file without a hash and for a directory with a short node digest", () => {
  const w = new ByteWriter();
  const entry = { name: Buffer.from("x"), mode: 0, size: 0, major: 0, minor: 0, mtimeSec: 0, mtimeNs: 0 };
  const rest = { uid: 0, gid: 0, xattrs: [] };
  assert.throws(() => appendStateEntry(w, { ...entry, ...rest, type: "f" }), TypeError);
  assert.throws(() => appendStateEntry(w, { ...entry, ...rest, type: "d", node: new Uint8Array(31) }), TypeError);
});

test("isDigestedAttribute is true only for user, ACL and capability attributes", () => {
  const yes = ["user.a", "user.", "system.posix_acl_access", "system.posix_acl_default", "security.capability"];
  const no = ["user", "trusted.user.a", "security.selinux", "security.capability2", "system.nfs4_acl", ""];
  for (const name of yes) assert.equal(isDigestedAttribute(Buffer.from(name)), true, name);
  for (const name of no) assert.equal(isDigestedAttribute(Buffer.from(name)), false, name);
});
