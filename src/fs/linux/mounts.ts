import {
  type BigIntStats,
  closeSync,
  existsSync,
  lstatSync,
  openSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  realpathSync,
  statSync,
  statfsSync,
} from "node:fs";
import { append } from "../../append.ts";
import { CairnError, toCairnError } from "../../errors.ts";
import { bindNative, bindNativeLater, type NativeFunction, newArena } from "../../native.ts";
import { isAtOrBelow, printablePath } from "../paths/safe-path.ts";
import type { RawPath } from "../paths/safe-path.ts";
import { AT_FDCWD } from "./syscall-abi.ts";

export interface Mount {
  readonly id: number;
  readonly parentId: number;
  /** `major:minor` of the file system, in the form of the kernel's lock table. */
  readonly device: string;
  /** The mounted directory of the file system; not `/` for bind mounts and subvolumes. */
  readonly root: Buffer;
  readonly mountPoint: Buffer;
  readonly options: readonly string[];
  /** Options of the file system, for all its mounts, in the kernel's form. */
  readonly fileSystemOptions: string;
  /** File system type, for example `ext4`, `fuse.juicefs`. */
  readonly type: string;
  readonly source: string;
}

/** The source of a mount that shows a save point at a folder's path, for the command of a bisect, begins with this. */
export const TESTED_POINT = "cairn-bisect:";

const BACKSLASH = 0x5c;
const UP = Buffer.from("/..");

/** Decodes octal escapes: the kernel writes blanks, tabs, newlines, backslashes and `#` as three octal digits. */
export function unescapeOctal(field: string): Buffer {
  const bytes = Buffer.from(field, "latin1");
  let length = 0;
  for (let at = 0; at < bytes.length; at++) {
    let byte = bytes[at]!;
    if (byte === BACKSLASH && /^[0-7]{3}$/.test(field.slice(at + 1, at + 4))) {
      byte = Number.parseInt(field.slice(at + 1, at + 4), 8) & 0xff;
      at += 3;
    }
    bytes[length++] = byte;
  }
  return bytes.subarray(0, length);
}

function parseLine(line: string): Mount | null {
  const fields = line.split(" ");
  const dash = fields.indexOf("-", 6);
  if (dash < 0 || fields.length < dash + 3) return null;
  return {
    id: Number(fields[0]),
    parentId: Number(fields[1]),
    device: fields[2]!,
    root: unescapeOctal(fields[3]!),
    mountPoint: unescapeOctal(fields[4]!),
    options: fields[5]!.split(","),
    fileSystemOptions: fields[dash + 3] ?? "",
    type: unescapeOctal(fields[dash + 1]!).toString("utf8"),
    source: unescapeOctal(fields[dash + 2]!).toString("utf8"),
  };
}

/** Parses the text of /proc/self/mountinfo (bytes read as latin1); skips lines that do not parse. */
export function parseMountinfo(text: string): Mount[] {
  const mounts: Mount[] = [];
  for (const line of text.split("\n")) {
    const mount = line === "" ? null : parseLine(line);
    if (mount !== null) mounts.push(mount);
  }
  return mounts;
}

let parsed: { text: string; mounts: readonly Mount[] } = { text: "", mounts: [] };

/** The mounts that this process sees; empty if the kernel has no mountinfo. */
export function readMounts(): readonly Mount[] {
  try {
    const text = readFileSync("/proc/self/mountinfo", "latin1");
    // A call asks several times, and the parsing takes longer than the reading.
    if (text !== parsed.text) parsed = { text, mounts: parseMountinfo(text) };
    return parsed.mounts;
  } catch {
    return [];
  }
}

const NO_LIST = {
  reason: "there is no /proc here, so Cairn cannot find out what is mounted inside",
  hint: "mount /proc: mount -t proc proc /proc",
};

/** Returns why the mounts in a folder are unknown, with a remedy; null if they are known. Scans detect mounts without the list. */
export function whyMountsUnknown(mounts: readonly Mount[] = readMounts()): typeof NO_LIST | null {
  return mounts.length === 0 ? NO_LIST : null;
}

function real(path: RawPath): Buffer {
  try {
    return realpathSync.native(path, "buffer");
  } catch (error) {
    throw toCairnError(error, `resolve ${printablePath(path)}`);
  }
}

/**
 * Returns the mount that a look-up of a real path ends in. Goes from the root mount to the child mount with the
 * shortest mount point on the way, which hides longer mount points on the same parent, because the look-up meets it
 * first.
 */
export function resolveMount(path: Uint8Array, mounts: readonly Mount[]): Mount | null {
  const onTheWay = mounts.filter((mount) => isAtOrBelow(path, mount.mountPoint));
  const known = new Set(mounts.map((mount) => mount.id));
  const roots = onTheWay.filter((mount) => !known.has(mount.parentId) || mount.parentId === mount.id);
  let current: Mount | null = shortest(roots);
  for (let depth = 0; current !== null && depth <= mounts.length; depth++) {
    const parent: Mount = current;
    const next = shortest(onTheWay.filter((mount) => mount.parentId === parent.id && mount !== parent));
    if (next === null) return parent;
    current = next;
  }
  return current;
}

/** A path's device, and the path from the root of its file system, which is equal for each mount of it; null if unknown. */
export function placeOnDevice(path: Buffer, mounts: readonly Mount[]): { device: string; inside: Buffer } | null {
  const mount = resolveMount(path, mounts);
  if (mount === null) return null;
  return { device: mount.device, inside: placeIn(mount, path) };
}

function shortest(mounts: readonly Mount[]): Mount | null {
  let best: Mount | null = null;
  for (const mount of mounts) {
    // Of two mounts on one point under one parent the later is on top.
    if (best === null || mount.mountPoint.length <= best.mountPoint.length) best = mount;
  }
  return best;
}

/** Returns the mount that holds `path` (links are followed); null without mountinfo. Throws `not_found` if the path is missing. */
export function mountOf(path: RawPath, mounts: readonly Mount[] = readMounts()): Mount | null {
  return resolveMount(real(path), mounts);
}

/** True if two existing paths are on one mount; without a list of mounts, on one device. Throws `not_found`. */
export function onSameMount(one: RawPath, other: RawPath, mounts: readonly Mount[] = readMounts()): boolean {
  if (mounts.length === 0) return statSync(real(one)).dev === statSync(real(other)).dev;
  return mountOf(one, mounts)?.id === mountOf(other, mounts)?.id;
}

/** True if `path` itself is a mount point; without a list of mounts, decided by its device. */
export function isMountPoint(path: RawPath, mounts: readonly Mount[] = readMounts()): boolean {
  const resolved = real(path);
  if (mounts.length === 0)
    return resolved.length === 1 || !onSameMount(resolved, Buffer.concat([resolved, UP]), mounts);
  return mounts.some((mount) => mount.mountPoint.equals(resolved));
}

/** Returns the visible mounts strictly below `path` (directories and bind-mounted files), sorted by mount point. */
export function mountsInside(path: RawPath, mounts: readonly Mount[] = readMounts()): Mount[] {
  const root = real(path);
  const inside = mounts.filter((mount) => mount.mountPoint.length > root.length && isAtOrBelow(mount.mountPoint, root));
  const visible = inside.filter((mount) => resolveMount(mount.mountPoint, mounts) === mount);
  return visible.sort((a, b) => a.mountPoint.compare(b.mountPoint));
}

/**
 * Returns the mounts below an open directory of the mount `own`, also those that are visible only through another mount
 * of the same file system: nobody can remove their mount points either.
 */
export function mountsBelow(fd: number, own: number | null, mounts: readonly Mount[] = readMounts()): Mount[] {
  const byId = new Map(mounts.map((mount) => [mount.id, mount]));
  const held = own === null ? undefined : byId.get(own);
  if (held === undefined) return [];
  const place = placeIn(held, readlinkSync(`/proc/self/fd/${fd}`, { encoding: "buffer" }));
  return mounts.filter(({ parentId, mountPoint }) => {
    const parent = byId.get(parentId);
    if (parent?.device !== held.device) return false;
    const at = placeIn(parent, mountPoint);
    return at.length > place.length && isAtOrBelow(at, place);
  });
}

/** Returns the path of an entry below the root of its file system, of which a part may be mounted. */
function placeIn({ root, mountPoint }: Mount, path: Buffer): Buffer {
  const below = mountPoint.length === 1 ? path : path.subarray(mountPoint.length);
  if (below.length <= 1) return root;
  return root.length === 1 ? below : Buffer.concat([root, below]);
}

export interface FilesystemKind {
  /** For example `ext4`; `unknown` for a magic number that is not in the table. */
  readonly name: string;
  readonly magic: number;
  /** The location of the data. Only on `local` and `memory` one kernel alone decides about locks. */
  readonly place: "local" | "memory" | "network" | "fuse" | "unknown";
  /** True for a union of layers: new content is lost with its container. */
  readonly overlay: boolean;
}

type Place = FilesystemKind["place"];

const MAGICS: readonly (readonly [magic: number, name: string, place: Place])[] = [
  [0xef53, "ext4", "local"],
  [0x58465342, "xfs", "local"],
  [0x9123683e, "btrfs", "local"],
  [0xf2f52010, "f2fs", "local"],
  [0x2fc12fc1, "zfs", "local"],
  [0xca451a4e, "bcachefs", "local"],
  [0x3153464a, "jfs", "local"],
  [0x52654973, "reiserfs", "local"],
  [0x3434, "nilfs2", "local"],
  [0xf15f, "ecryptfs", "local"],
  [0x4d44, "vfat", "local"],
  [0x2011bab0, "exfat", "local"],
  [0x7366746e, "ntfs3", "local"],
  [0x482b, "hfsplus", "local"],
  [0x9660, "iso9660", "local"],
  [0x73717368, "squashfs", "local"],
  [0xe0f5e1e2, "erofs", "local"],
  [0x794c7630, "overlay", "local"],
  [0x01021994, "tmpfs", "memory"],
  [0x858458f6, "ramfs", "memory"],
  [0x6969, "nfs", "network"],
  [0xff534d42, "cifs", "network"],
  [0xfe534d42, "smb2", "network"],
  [0x517b, "smb", "network"],
  [0x01021997, "9p", "network"],
  [0x00c36400, "ceph", "network"],
  [0x5346414f, "afs", "network"],
  [0x73757245, "coda", "network"],
  [0x0bd00bd0, "lustre", "network"],
  [0x47504653, "gpfs", "network"],
  [0x01161970, "gfs2", "network"],
  [0x7461636f, "ocfs2", "network"],
  [0x65735546, "fuse", "fuse"],
];

/** Returns the kind for a statfs magic number. */
export function kindOfMagic(magic: number): FilesystemKind {
  const row = MAGICS.find(([known]) => known === magic >>> 0);
  if (row === undefined) return { name: "unknown", magic, place: "unknown", overlay: false };
  return { name: row[1], magic, place: row[2], overlay: row[1] === "overlay" };
}

/** Returns the kind of the file system that holds an existing path. */
export function filesystemKind(path: RawPath): FilesystemKind {
  try {
    return kindOfMagic(statfsSync(path).type);
  } catch (error) {
    throw toCairnError(error, `ask for the file system of ${printablePath(path)}`);
  }
}

/**
 * File systems of this kernel that change a directory's times at once when a name in it is added, removed or renamed.
 * Network file systems and FUSE may change them late or never. An overlay's upper layer is one of these.
 */
const KEEPS_TIMES: ReadonlySet<string> = new Set([
  "ext4",
  "xfs",
  "btrfs",
  "tmpfs",
  "f2fs",
  "zfs",
  "bcachefs",
  "overlay",
]);

const KEEPS_INODES: ReadonlySet<string> = new Set(["ext4", "xfs", "btrfs", "f2fs", "zfs", "bcachefs", "tmpfs"]);

/** True if an entry keeps its inode number for its whole life, also after the kernel forgot it. */
export function keepsInodes(path: Uint8Array): boolean {
  return KEEPS_INODES.has(nameOfKind(path));
}

/** True if unchanged times of a directory prove that its names are unchanged. */
export function keepsDirectoryTimes(path: Uint8Array): boolean {
  return KEEPS_TIMES.has(nameOfKind(path));
}

/** False if an entry's extended attributes may change without a change of its times: JuiceFS, which is a FUSE. */
export function keepsAttributeTimes(path: Uint8Array): boolean {
  return nameOfKind(path) !== "fuse";
}

/**
 * False if a file's content may change without a change of its times. tmpfs and ramfs never write back, which is when a
 * write through a mapping changes the times.
 */
export function keepsContentTimes(path: Uint8Array): boolean {
  const name = nameOfKind(path);
  return name !== "tmpfs" && name !== "ramfs";
}

/** The kind's name, `unknown` if the kernel does not report one. */
function nameOfKind(path: Uint8Array): string {
  try {
    return filesystemKind(Buffer.from(path)).name;
  } catch {
    return "unknown";
  }
}

/** Numbers of the file systems mounted inside a folder whose files may change without a change of times, each in one word. */
export function devicesInMemory(folder: RawPath): number[] {
  const mounts = mountsInside(folder).filter(({ type }) => type === "tmpfs" || type === "ramfs");
  return [...new Set(mounts.map(({ device }) => device))].map((device) => {
    const [major, minor] = device.split(":").map(Number) as [number, number];
    return deviceNumber(major, minor);
  });
}

/** Returns a device number in one word. */
export function deviceNumber(major: number, minor: number): number {
  return ((major << 20) | minor) >>> 0;
}

/** File systems of Linux that give a new file exactly the requested mode, less the umask, under all mount options. */
const KEEP_MODES: ReadonlySet<string> = new Set(["ext4", "xfs", "btrfs", "tmpfs"]);

/** True if entries of a folder's file system keep the mode that they are given. */
export function keepsModes(folder: RawPath): boolean {
  return KEEP_MODES.has(filesystemKind(folder).name);
}

/** Reads the umask without changing it; all bits if it cannot be read. */
export function umaskNow(): number {
  try {
    const line = /^Umask:\s*([0-7]+)$/mu.exec(readFileSync("/proc/self/status", "latin1"));
    return line === null ? 0o777 : Number.parseInt(line[1]!, 8);
  } catch {
    return 0o777;
  }
}

/**
 * The permission bits that a new file below a folder surely gets if it asks for them, unless an access list is
 * inherited or the umask changes meanwhile.
 */
export function bitsOfNewFiles(folder: Buffer): number {
  return KEEP_MODES.has(filesystemKind(folder).name) ? 0o777 & ~umaskNow() : 0;
}

export interface FreeSpace {
  /** Bytes that this user may still write. */
  readonly freeBytes: number;
  /** Bytes in use. Space that is neither free nor used is reserved for other users. */
  readonly usedBytes: number;
  readonly totalBytes: number;
  /** Inodes left; null if the file system makes inodes as needed. */
  readonly freeInodes: number | null;
}

/** Space of the file system that holds an existing path. */
export function freeSpace(path: RawPath): FreeSpace {
  try {
    const facts = statfsSync(path);
    return {
      freeBytes: facts.bavail * facts.bsize,
      usedBytes: (facts.blocks - facts.bfree) * facts.bsize,
      totalBytes: facts.blocks * facts.bsize,
      freeInodes: facts.files > 0 ? facts.ffree : null,
    };
  } catch (error) {
    throw toCairnError(error, `ask for the free space of ${printablePath(path)}`);
  }
}

/** An ioctl whose answer has the 16 bytes of a UUID. */
interface UuidQuestion {
  request: number;
  bytes: number;
  /** Offset of the UUID in the answer; null if the answer has none. */
  at(answer: Uint8Array): number | null;
}

// FS_IOC_GETFSUUID, Linux 6.9: one length byte, then up to 16 bytes. Not supported by btrfs.
const GET_FILESYSTEM_UUID: UuidQuestion = {
  request: 0x80111500,
  bytes: 32,
  at: (answer) => (answer[0] === 16 ? 1 : null),
};
// BTRFS_IOC_FS_INFO: the highest device number and the device count come first, 8 bytes each.
const BTRFS_INFO: UuidQuestion = { request: 0x8400941f, bytes: 1024, at: () => 16 };
let ioctl: NativeFunction | null | undefined;

function uuidFromKernel(path: RawPath, question: UuidQuestion): string | null {
  ioctl ??= bindNative("int ioctl(int fd, unsigned long request, uint64_t argument)");
  if (ioctl === null) return null;
  const descriptor = openSync(path, "r");
  try {
    const arena = newArena(question.bytes);
    if (ioctl(descriptor, question.request, arena.address) !== 0) return null;
    const at = question.at(arena.bytes);
    if (at === null) return null;
    const hex = Buffer.from(arena.bytes.subarray(at, at + 16)).toString("hex");
    return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
  } finally {
    closeSync(descriptor);
  }
}

function uuidFromUdev(path: RawPath): string | null {
  const directory = "/dev/disk/by-uuid";
  const device = statSync(path).dev;
  for (const name of readdirSync(directory)) {
    if (statSync(`${directory}/${name}`).rdev === device) return name;
  }
  return null;
}

/** The UUID of the file system that holds `path`, from the kernel or udev; else null. */
export function filesystemUuid(path: RawPath): string | null {
  const asks = [
    () => uuidFromKernel(path, GET_FILESYSTEM_UUID),
    () => uuidFromKernel(path, BTRFS_INFO),
    () => uuidFromUdev(path),
  ];
  for (const ask of asks) {
    try {
      const uuid = ask();
      if (uuid !== null && !/^[0-]*$/.test(uuid)) return uuid;
    } catch (error) {
      if (error instanceof CairnError) throw error;
    }
  }
  return null;
}

/**
 * An id of a folder's file system that stays equal after a reboot: its UUID if known, else its mount's type and source.
 * Null if the folder does not exist.
 */
export function filesystemId(path: RawPath): string | null {
  if (!existsSync(path)) return null;
  const mount = mountOf(path);
  return filesystemUuid(path) ?? (mount === null ? null : `${mount.type} ${mount.source}`);
}

const LOST_AND_FOUND = "lost+found";
/** Names in the root of JuiceFS's mounts, in both forms that JuiceFS can use. */
const OF_JUICEFS = [".accesslog", ".config", ".stats", ".trash"].flatMap((name) => [name, `.jfs${name}`]);
/** The first inode of JuiceFS's own entries; a mounted subdirectory may have user files with these names. */
const FIRST_OF_JUICEFS = 0x7fff_ffff_0000_0000n;

/**
 * Lists names that a file system has put into its own root, if `folder` is that root; these names are never saved,
 * restored or removed. `folder`: raw bytes of a real path.
 */
export function ownEntries(folder: Buffer): string[] {
  const lost = look(folder, LOST_AND_FOUND);
  const found: string[] = [];
  if (lost?.isDirectory() === true && lost.uid === 0n && (lost.mode & 0o777n) === 0o700n) found.push(LOST_AND_FOUND);
  const inner = OF_JUICEFS.filter((name) => (look(folder, name)?.ino ?? 0n) >= FIRST_OF_JUICEFS);
  if (inner.length > 0 && mountOf(folder)?.type === "fuse.juicefs") append(found, inner);
  return found.length > 0 && isMountPoint(folder) ? found : [];
}

function look(folder: Buffer, name: string): BigIntStats | undefined {
  return lstatSync(Buffer.concat([folder, Buffer.from(`/${name}`)]), { throwIfNoEntry: false, bigint: true });
}

const NO_FOLLOW = 0x100;
const UNIQUE_ID = 0x4000;
const [MASK_AT, ID_AT, BYTES] = [0, 144, 256];
const statx = bindNativeLater("int statx(int fd, uint64_t path, int flags, unsigned int mask, uint64_t facts)");

/** A mount number that the kernel never reuses, for the mount at a path (latin1): statx(2), Linux 6.8. Null on older kernels. */
export function uniqueMountId(path: string): bigint | null {
  const name = newArena(path.length + 1);
  name.bytes.set(Buffer.from(path, "latin1"));
  const facts = newArena(BYTES);
  if (statx()?.(AT_FDCWD, name.address, NO_FOLLOW, UNIQUE_ID, facts.address) !== 0) return null;
  const view = new DataView(facts.bytes.buffer, facts.bytes.byteOffset);
  const isTold = (new Uint32Array(facts.bytes.buffer, facts.bytes.byteOffset + MASK_AT, 1)[0]! & UNIQUE_ID) !== 0;
  return isTold ? view.getBigUint64(ID_AT, true) : null;
}
