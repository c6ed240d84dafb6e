import { canBeOne, linkedInode, type NodeType, type TreeNode } from "../restic/tree.ts";

/** Tar archives in the pax format of POSIX, as used by GNU tar, bsdtar and restic. */

const BLOCK = 512;
const NAME_BYTES = 100;
const OWNER_BYTES = 31;
/** The largest number in 7 octal digits, and in 11. */
const MOST_OF_7 = 0o7777777;
const MOST_OF_11 = 0o77777777777;
const TYPES: Partial<Record<NodeType, string>> = {
  file: "0",
  symlink: "2",
  chardev: "3",
  dev: "4",
  dir: "5",
  fifo: "6",
};
const SLASH = Buffer.from("/");
const NOTHING = new Uint8Array(0);

/** The two blocks of zeros that end an archive. */
export const TAR_END = new Uint8Array(2 * BLOCK);

/** Returns the zeros that follow a file's content of `size` bytes. */
export function tarPadding(size: number): Uint8Array {
  return TAR_END.subarray(0, (BLOCK - (size % BLOCK)) % BLOCK);
}

/** Remembers files with several names, so that later names become hard links to the first. */
export class TarLinks {
  readonly #first = new Map<string, { path: Uint8Array; node: TreeNode }>();

  /** Returns the path of an earlier name of the same file. Null if there is none, or if the earlier entry differs. */
  before(path: Uint8Array, node: TreeNode): Uint8Array | null {
    const group = node.type === "file" ? linkedInode(node) : null;
    if (group === null) return null;
    const first = this.#first.get(group);
    if (first === undefined) this.#first.set(group, { path, node });
    return first !== undefined && canBeOne(first.node, node) ? first.path : null;
  }
}

/**
 * Returns the header of an entry, i.e. all bytes before a file's content; null for a socket, which archives cannot
 * hold. `linkTo`: path of the entry to which this one is a hard link. Values that do not fit into the old fields are in
 * a pax header before it.
 */
export function tarHeader(path: Uint8Array, node: TreeNode, linkTo: Uint8Array | null): Uint8Array | null {
  const type = linkTo === null ? TYPES[node.type] : "1";
  if (type === undefined) return null;
  const records: Buffer[] = [];
  const add = (key: string | Uint8Array, value: string | Uint8Array): void => void records.push(record(key, value));
  const name = node.type === "dir" ? Buffer.concat([path, SLASH]) : path;
  const target = linkTo ?? node.linktarget ?? NOTHING;
  const size = type === "0" ? node.size : 0;
  if (name.length > NAME_BYTES) add("path", name);
  if (target.length > NAME_BYTES) add("linkpath", target);
  if (size > MOST_OF_11) add("size", String(size));
  for (const id of ["uid", "gid"] as const) if (node[id] > MOST_OF_7) add(id, String(node[id]));
  const [user, group] = [Buffer.from(node.user), Buffer.from(node.group)];
  if (user.length > OWNER_BYTES) add("uname", user);
  if (group.length > OWNER_BYTES) add("gname", group);
  const { mtimeSec: seconds, mtimeNs } = node;
  if (mtimeNs !== 0 || seconds < 0 || seconds > MOST_OF_11) add("mtime", timeOf(seconds, mtimeNs));
  // Escapes % and = as GNU tar does: a = would end the name.
  const escaped = (text: string): string => text.replaceAll("%", "%25").replaceAll("=", "%3D");
  if (linkTo === null)
    for (const { name: attribute, value } of node.xattrs)
      add(Buffer.from(`SCHILY.xattr.${escaped(Buffer.from(attribute).toString("latin1"))}`, "latin1"), value);
  const field = (number: number, most: number): number => (number >= 0 && number <= most ? number : 0);
  const own = block({
    name,
    mode: node.mode,
    uid: field(node.uid, MOST_OF_7),
    gid: field(node.gid, MOST_OF_7),
    size: field(size, MOST_OF_11),
    mtime: field(seconds, MOST_OF_11),
    type,
    target,
    user,
    group,
    ...(type === "3" || type === "4" ? deviceOf(node.device) : {}),
  });
  if (records.length === 0) return own;
  const pax = Buffer.concat(records);
  const last = path.subarray(path.lastIndexOf(0x2f) + 1);
  const lead = block({
    name: Buffer.concat([Buffer.from("PaxHeaders/"), last]),
    mode: 0o644,
    size: pax.length,
    type: "x",
  });
  return Buffer.concat([lead, pax, tarPadding(pax.length), own]);
}

interface Fields {
  name: Uint8Array;
  mode: number;
  uid?: number;
  gid?: number;
  size: number;
  mtime?: number;
  type: string;
  target?: Uint8Array;
  user?: Uint8Array;
  group?: Uint8Array;
  major?: number;
  minor?: number;
}

function block(fields: Fields): Buffer {
  const {
    uid = 0,
    gid = 0,
    mtime = 0,
    target = NOTHING,
    user = NOTHING,
    group = NOTHING,
    major = 0,
    minor = 0,
  } = fields;
  const header = Buffer.alloc(BLOCK);
  const octal = (number: number, at: number, digits: number): number =>
    header.write(number.toString(8).padStart(digits, "0"), at, "latin1");
  header.set(fields.name.subarray(0, NAME_BYTES), 0);
  octal(fields.mode, 100, 7);
  octal(uid, 108, 7);
  octal(gid, 116, 7);
  octal(fields.size, 124, 11);
  octal(mtime, 136, 11);
  header.fill(" ", 148, 156);
  header.write(fields.type, 156, "latin1");
  header.set(target.subarray(0, NAME_BYTES), 157);
  header.write("ustar\x0000", 257, "latin1");
  header.set(user.subarray(0, OWNER_BYTES), 265);
  header.set(group.subarray(0, OWNER_BYTES), 297);
  octal(major, 329, 7);
  octal(minor, 337, 7);
  octal(
    header.reduce((sum, byte) => sum + byte, 0),
    148,
    6,
  );
  header[154] = 0;
  return header;
}

/** Returns `LENGTH KEY=VALUE` and a line break. The length counts its own digits too. */
function record(key: string | Uint8Array, value: string | Uint8Array): Buffer {
  const parts = [
    Buffer.from(" "),
    Buffer.from(key as string),
    Buffer.from("="),
    Buffer.from(value as string),
    Buffer.from("\n"),
  ];
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  let whole = length + String(length).length;
  if (String(whole).length > String(length).length) whole = length + String(whole).length;
  return Buffer.concat([Buffer.from(String(whole)), ...parts]);
}

/** Formats seconds with a fraction. The nanoseconds count upwards even before 1970. */
function timeOf(seconds: number, nanoseconds: number): string {
  const isBefore = seconds < 0 && nanoseconds > 0;
  const [whole, rest] = isBefore ? [seconds + 1, 1e9 - nanoseconds] : [seconds, nanoseconds];
  const fraction = rest === 0 ? "" : `.${String(rest).padStart(9, "0").replace(/0+$/, "")}`;
  return `${isBefore && whole === 0 ? "-" : ""}${whole}${fraction}`;
}

/** Splits Linux' 64-bit device number into major and minor. */
function deviceOf(device: bigint): { major: number; minor: number } {
  return {
    major: Number(((device >> 8n) & 0xfffn) | ((device >> 32n) & ~0xfffn & 0xffffffffn)) & MOST_OF_7,
    minor: Number((device & 0xffn) | ((device >> 12n) & 0xffffff00n)) & MOST_OF_7,
  };
}
