import { createHash } from "node:crypto";
import fs from "node:fs";
import { putName, syscalls } from "../../fs/linux/syscalls.ts";
import { newArena } from "../../native.ts";

/**
 * Computes the two digests of a folder from the rules of the format alone, with node:fs: the expected result of a scan.
 * Extended attributes need native calls.
 */
export function walkDigests(root: string | Buffer): { state: string; meta: string } {
  const fd = fs.openSync(root, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY);
  try {
    const groups = new Map<string, Buffer[]>();
    findLinks(fd, Buffer.alloc(0), groups);
    const { state, meta } = digestDirectory(fd, groups);
    return { state: state.toString("hex"), meta: meta.toString("hex") };
  } finally {
    fs.closeSync(fd);
  }
}

function entryPath(fd: number, name: Buffer): Buffer {
  return Buffer.concat([Buffer.from(`/proc/self/fd/${fd}/`), name]);
}

function names(fd: number): Buffer[] {
  return fs.readdirSync(`/proc/self/fd/${fd}`, { encoding: "buffer" }).toSorted(Buffer.compare);
}

function inside<T>(path: Buffer, call: (fd: number) => T): T {
  const fd = fs.openSync(path, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY | fs.constants.O_NOFOLLOW);
  try {
    return call(fd);
  } finally {
    fs.closeSync(fd);
  }
}

function keyOf(stat: fs.BigIntStats): string {
  return `${stat.dev}:${stat.ino}`;
}

/** Finds the paths of each inode with several names, in the order of the walk. */
function findLinks(fd: number, path: Buffer, groups: Map<string, Buffer[]>): void {
  for (const name of names(fd)) {
    const at = entryPath(fd, name);
    const own = path.length === 0 ? name : Buffer.concat([path, Buffer.from("/"), name]);
    const stat = fs.lstatSync(at, { bigint: true });
    if (stat.isDirectory()) inside(at, (child) => findLinks(child, own, groups));
    else if (stat.nlink > 1n) groups.set(keyOf(stat), [...(groups.get(keyOf(stat)) ?? []), own]);
  }
}

function digestDirectory(fd: number, groups: ReadonlyMap<string, Buffer[]>): { state: Buffer; meta: Buffer } {
  const entries = names(fd);
  const state = createHash("sha256").update("cairn.state.v1\n").update(u32(entries.length));
  const meta = createHash("sha256").update("cairn.meta.v1\n").update(u32(entries.length));
  for (const name of entries) {
    const at = entryPath(fd, name);
    const stat = fs.lstatSync(at, { bigint: true });
    const [type, forState, forMeta] = contentOf(at, stat, groups);
    const head = Buffer.concat([Buffer.from(type), sized(name), u32(Number(stat.mode & 0o7777n))]);
    state.update(head).update(forState);
    const attributes = attributesOf(fd, name);
    meta
      .update(head)
      .update(forMeta)
      .update(metadataOf(stat, groups, attributes));
  }
  return { state: state.digest(), meta: meta.digest() };
}

function contentOf(at: Buffer, stat: fs.BigIntStats, groups: ReadonlyMap<string, Buffer[]>): [string, Buffer, Buffer] {
  const same = (type: string, bytes: Buffer): [string, Buffer, Buffer] => [type, bytes, bytes];
  if (stat.isDirectory()) {
    const nodes = inside(at, (fd) => digestDirectory(fd, groups));
    return ["d", nodes.state, nodes.meta];
  }
  if (stat.isFile()) {
    return same("f", Buffer.concat([i64(stat.size), createHash("sha256").update(fs.readFileSync(at)).digest()]));
  }
  if (stat.isSymbolicLink()) return same("l", sized(fs.readlinkSync(at, { encoding: "buffer" })));
  if (stat.isFIFO()) return same("p", Buffer.alloc(0));
  if (stat.isSocket()) return same("s", Buffer.alloc(0));
  const major = Number((stat.rdev >> 8n) & 0xfffn);
  const minor = Number((stat.rdev & 0xffn) | ((stat.rdev >> 12n) & 0xffffff00n));
  return same(stat.isCharacterDevice() ? "c" : "b", Buffer.concat([u32(major), u32(minor)]));
}

const NAMES = newArena(16384);
const VALUES = newArena(256 << 10);

/** The attributes that belong into the digest, sorted by name. */
function attributesOf(fd: number, name: Buffer): [Buffer, Buffer][] {
  const sys = syscalls();
  putName(NAMES, 0, name);
  const length = sys.llistxattr(fd, NAMES, 0, VALUES);
  if (length <= 0) return [];
  const found = Buffer.from(VALUES.bytes.slice(0, length)).toString("latin1").split("\0");
  return found
    .filter((each) => /^user\.|^system\.posix_acl_|^security\.capability$/.test(each))
    .map((each) => Buffer.from(each, "latin1"))
    .toSorted(Buffer.compare)
    .map((each) => {
      const size = sys.lgetxattr(fd, NAMES, 0, each, VALUES, 0);
      return [each, Buffer.from(VALUES.bytes.slice(0, Math.max(size, 0)))];
    });
}

function metadataOf(
  stat: fs.BigIntStats,
  groups: ReadonlyMap<string, Buffer[]>,
  attributes: readonly [Buffer, Buffer][],
): Buffer {
  const nanoseconds = ((stat.mtimeNs % 1_000_000_000n) + 1_000_000_000n) % 1_000_000_000n;
  const members = stat.isDirectory() ? undefined : groups.get(keyOf(stat));
  const linked = members !== undefined && members.length > 1;
  return Buffer.concat([
    i64((stat.mtimeNs - nanoseconds) / 1_000_000_000n),
    u32(Number(nanoseconds)),
    u32(Number(stat.uid)),
    u32(Number(stat.gid)),
    u32(attributes.length),
    ...attributes.flatMap(([name, value]) => [sized(name), sized(value)]),
    Buffer.from([linked ? 1 : 0]),
    linked ? sized(members[0]!) : Buffer.alloc(0),
  ]);
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

function i64(value: bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigInt64LE(value);
  return bytes;
}

function sized(bytes: Buffer): Buffer {
  return Buffer.concat([u32(bytes.length), bytes]);
}
