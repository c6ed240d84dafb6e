import assert from "node:assert/strict";
import { createDecipheriv, createHash, scryptSync } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { zstdDecompressSync } from "node:zlib";
import type { Entries, Entry } from "../fixtures/folder-state.ts";

/**
 * A reader of restic's format of its own, for local repositories: what a snapshot holds, with nothing of src/. It opens,
 * it hashes, and it authenticates nothing; https://restic.readthedocs.io/en/stable/100_references.html.
 */

interface Node {
  name: string;
  type: "dir" | "file" | "symlink" | "fifo" | "dev" | "chardev" | "socket";
  /** as Go's os.FileMode */
  mode?: number;
  mtime?: string;
  uid?: number;
  gid?: number;
  inode?: number;
  device_id?: number;
  device?: number;
  links?: number;
  linktarget?: string;
  linktarget_raw?: string;
  extended_attributes?: { name: string; value: string | null }[];
  content?: string[] | null;
  subtree?: string;
}

export interface ReadSnapshot {
  tree: string;
  paths: string[];
}

interface Place {
  pack: string;
  offset: number;
  length: number;
  isCompressed: boolean;
}

interface IndexFile {
  packs?: {
    id: string;
    blobs: { type: string; id: string; offset: number; length: number; uncompressed_length?: number }[];
  }[];
}

const IV_LENGTH = 16;
const MAC_LENGTH = 16;
const IS_COMPRESSED = 2;

/** Files never change: what was read of one stays true for as long as it is there. */
export class RepositoryReader {
  readonly #location: string;
  readonly #key: Buffer;
  readonly #blobs = new Map<string, Buffer>();

  constructor(location: string, password: string) {
    this.#location = location;
    this.#key = masterKey(location, password);
  }

  snapshotIds(): string[] {
    return this.#names("snapshots");
  }

  snapshot(id: string): ReadSnapshot {
    return this.#unpacked("snapshots", id) as ReadSnapshot;
  }

  /** As it is at this moment. */
  state(): RepositoryState {
    const places = new Map<string, Place[]>();
    const listed = new Set<string>();
    for (const name of this.#names("index")) {
      for (const { id: pack, blobs } of (this.#unpacked("index", name) as IndexFile).packs ?? []) {
        listed.add(pack);
        for (const { type, id, offset, length, uncompressed_length: plain } of blobs) {
          const key = `${type} ${id}`;
          places.set(key, [...(places.get(key) ?? []), { pack, offset, length, isCompressed: (plain ?? 0) > 0 }]);
        }
      }
    }
    return new RepositoryState({
      places,
      listed,
      packs: new Set(this.#packs()),
      read: (key, place) => this.#blob(key, place),
    });
  }

  #names(kind: string): string[] {
    return fs.readdirSync(path.join(this.#location, kind)).toSorted();
  }

  #packs(): string[] {
    return this.#names("data").flatMap((folder) => this.#names(`data/${folder}`));
  }

  #unpacked(kind: string, name: string): unknown {
    const plain = opened(this.#key, fs.readFileSync(path.join(this.#location, kind, name)));
    return JSON.parse((plain[0] === IS_COMPRESSED ? zstdDecompressSync(plain.subarray(1)) : plain).toString());
  }

  #blob(key: string, { pack, offset, length, isCompressed }: Place): Buffer {
    const at = `${pack} ${offset}`;
    const known = this.#blobs.get(at);
    if (known !== undefined) return known;
    const fd = fs.openSync(path.join(this.#location, "data", pack.slice(0, 2), pack), "r");
    const sealed = Buffer.alloc(length);
    fs.readSync(fd, sealed, 0, length, offset);
    fs.closeSync(fd);
    const plain = opened(this.#key, sealed);
    const bytes = isCompressed ? zstdDecompressSync(plain) : plain;
    assert.equal(createHash("sha256").update(bytes).digest("hex"), key.split(" ")[1], `${key} in pack ${pack}`);
    this.#blobs.set(at, bytes);
    return bytes;
  }
}

/** The indexes and packs of one moment. */
export class RepositoryState {
  /** `type id` → where it lies */
  readonly places: ReadonlyMap<string, readonly Place[]>;
  /** packs that some index lists */
  readonly listed: ReadonlySet<string>;
  /** packs that are there */
  readonly packs: ReadonlySet<string>;
  readonly #read: (key: string, place: Place) => Buffer;

  constructor(
    from: Pick<RepositoryState, "places" | "listed" | "packs"> & { read: (key: string, place: Place) => Buffer },
  ) {
    ({ places: this.places, listed: this.listed, packs: this.packs, read: this.#read } = from);
  }

  blob(type: "tree" | "data", id: string): Buffer {
    const key = `${type} ${id}`;
    const place = this.places.get(key)?.find(({ pack }) => this.packs.has(pack));
    assert.ok(place !== undefined, `${key} is in no pack that is there`);
    return this.#read(key, place);
  }

  nodes(tree: string): Node[] {
    return (JSON.parse(this.blob("tree", tree).toString()) as { nodes: Node[] | null }).nodes ?? [];
  }

  /** What lies in a folder of a snapshot; the root has no time of its own there. */
  entries({ tree }: ReadSnapshot, folder: string): Entries {
    const entries: Entries = new Map();
    let [at, root] = [tree, undefined as Node | undefined];
    for (const part of folder.split("/").filter((each) => each !== "")) {
      root = this.nodes(at).find(({ name }) => name === part);
      at = root!.subtree!;
    }
    entries.set("", this.#entry(root!, ""));
    this.#walk(at, "", entries);
    return entries;
  }

  #walk(tree: string, parent: string, entries: Entries): void {
    for (const node of this.nodes(tree)) {
      const name = `${parent}${unquoted(node.name)}`;
      entries.set(name, this.#entry(node, name));
      if (node.type === "dir") this.#walk(node.subtree!, `${name}/`, entries);
    }
  }

  #entry(node: Node, name: string): Entry {
    const isLinked = node.type !== "dir" && (node.links ?? 1) > 1;
    const type = TYPES[node.type];
    const bytes = type === "file" ? Buffer.concat((node.content ?? []).map((id) => this.blob("data", id))) : null;
    return {
      type,
      content:
        bytes === null
          ? contentOf(node)
          : `${bytes.length} ${createHash("sha256").update(bytes).digest("hex").slice(0, 24)}`,
      size: bytes?.length ?? 0,
      mtime: nanosecondsOf(node.mtime!),
      mode: modeOf(node.mode ?? 0),
      owner: `${node.uid ?? 0}:${node.gid ?? 0}`,
      xattrs: attributesOf(node),
      inode: isLinked ? `${node.device_id}:${node.inode}` : name,
    };
  }

  /** Every blob that those trees need, as `type id`. */
  needed(trees: readonly string[]): Set<string> {
    const needed = new Set<string>();
    const open = [...trees];
    for (let tree = open.pop(); tree !== undefined; tree = open.pop()) {
      if (needed.has(`tree ${tree}`)) continue;
      needed.add(`tree ${tree}`);
      for (const { subtree, content } of this.nodes(tree)) {
        if (subtree !== undefined) open.push(subtree);
        for (const id of content ?? []) needed.add(`data ${id}`);
      }
    }
    return needed;
  }
}

const TYPES: Record<Node["type"], Entry["type"]> = {
  dir: "dir",
  file: "file",
  symlink: "link",
  fifo: "fifo",
  dev: "block",
  chardev: "char",
  socket: "socket",
};

function masterKey(location: string, password: string): Buffer {
  for (const name of fs.readdirSync(path.join(location, "keys"))) {
    const file = JSON.parse(fs.readFileSync(path.join(location, "keys", name), "utf8")) as Record<
      "N" | "r" | "p",
      number
    > &
      Record<"salt" | "data", string>;
    const { N, r, p } = file;
    const user = scryptSync(password, Buffer.from(file.salt, "base64"), 64, { N, r, p, maxmem: 2 ** 30 });
    const plain = opened(user.subarray(0, 32), Buffer.from(file.data, "base64")).toString();
    if (plain.startsWith("{")) return Buffer.from((JSON.parse(plain) as { encrypt: string }).encrypt, "base64");
  }
  throw new Error(`no key of ${location} is opened by the password`);
}

function opened(key: Buffer, sealed: Buffer): Buffer {
  const cipher = createDecipheriv("aes-256-ctr", key, sealed.subarray(0, IV_LENGTH));
  return cipher.update(sealed.subarray(IV_LENGTH, sealed.length - MAC_LENGTH));
}

/** Go's os.FileMode has its high bits elsewhere. */
function modeOf(mode: number): number {
  const high = [
    [23, 0o4000],
    [22, 0o2000],
    [20, 0o1000],
  ] as const;
  return high.reduce((sum, [bit, value]) => sum + ((mode >>> bit) & 1) * value, mode & 0o777);
}

function nanosecondsOf(time: string): bigint {
  const [, seconds, fraction = "", zone] = /^(.*?:\d\d:\d\d)(?:\.(\d+))?(Z|[+-].*)$/.exec(time)!;
  return BigInt(Date.parse(`${seconds}${zone}`)) * 1_000_000n + BigInt(fraction.padEnd(9, "0"));
}

function contentOf({ type, linktarget, linktarget_raw: raw, device }: Node): string {
  if (type === "dev" || type === "chardev") return `${device ?? 0}`;
  if (type !== "symlink") return "";
  return (raw === undefined ? Buffer.from(linktarget ?? "") : Buffer.from(raw, "base64")).toString("latin1");
}

function attributesOf({ extended_attributes: all = [] }: Node): string {
  const shown = all.map(({ name, value }) => `${name}=${Buffer.from(value ?? "", "base64").toString("hex")}`);
  return shown.length === 0 ? "" : `xattrs ${shown.toSorted().join(" ")}`;
}

const ESCAPES: Record<string, string> = { a: "\x07", b: "\b", f: "\f", n: "\n", r: "\r", t: "\t", v: "\v" };

/** A name as Go's strconv.Quote writes it, in latin1 of its bytes. */
function unquoted(name: string): string {
  const bytes = Buffer.from(name).toString("latin1");
  return bytes.replaceAll(
    /\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8})|(.))/g,
    (_all, x, u, long, other: string) => {
      if (x !== undefined) return String.fromCharCode(Number.parseInt(x as string, 16));
      const point = (u ?? long) as string | undefined;
      if (point === undefined) return ESCAPES[other] ?? other;
      return Buffer.from(String.fromCodePoint(Number.parseInt(point, 16))).toString("latin1");
    },
  );
}
