import {
  closeSync,
  existsSync,
  openSync,
  readFileSync,
  readSync,
  readdirSync,
  readlinkSync,
  realpathSync,
} from "node:fs";
import { append } from "../../append.ts";
import { CairnError, toCairnError } from "../../errors.ts";
import {
  filesystemKind,
  type Mount,
  mountOf,
  parseMountinfo,
  readMounts,
  resolveMount,
  unescapeOctal,
} from "./mounts.ts";
import { type Arena, newArena } from "../../native.ts";
import { ENOENT, syscallError } from "./errno.ts";
import { hasWritableMapping } from "./shared-mappings.ts";
import { AT_FDCWD, syscalls } from "./syscalls.ts";
import { isAtOrBelow, printablePath } from "../paths/safe-path.ts";
import type { RawPath } from "../paths/safe-path.ts";

export type HolderKind = "cwd" | "open-write" | "open-read" | "mapping";

export interface Holder {
  readonly pid: number;
  /** The process's short name from the kernel. */
  readonly command: string;
  /** `mapping`: a writable shared mapping. Writes through it need not change the file's times at once. */
  readonly kind: HolderKind;
  /** Raw path below the folder; empty for the folder itself. */
  readonly path: Buffer;
}

/** Reasons why holders may be missing from the answer. */
export type UnknownReason =
  | "unreadable-processes"
  | "other-pid-namespaces"
  | "hidden-processes"
  | "other-hosts"
  | "out-of-time"
  | "no-proc"
  | "not-linux";

/** Texts of these reasons for people. */
export const WHY_UNKNOWN: Readonly<Record<UnknownReason, string>> = {
  "unreadable-processes": "the open files of other users' processes are not visible",
  "other-pid-namespaces": "processes outside this container are not visible",
  "hidden-processes": "processes of other users are hidden",
  "other-hosts": "other hosts may use the file system",
  "out-of-time": "there are too many processes to look at all of them in time",
  "no-proc": "there is no /proc here, which lists the open files of processes",
  "not-linux": "only Linux lists the open files of processes",
};

export interface Holders {
  readonly holders: Holder[];
  /** Empty if every process that could hold the folder was examined. */
  readonly unknown: UnknownReason[];
}

export interface HolderOptions {
  /** The most milliseconds to search; default 200. */
  budgetMs?: number;
  /** True: this process counts, too. */
  includeSelf?: boolean;
  /** Only these processes are examined. */
  among?: readonly number[];
}

/** A path within its file system: equal through every mount and in every mount namespace. */
interface Place {
  readonly device: string;
  readonly path: Buffer;
}

function placeOf(path: Buffer, mounts: readonly Mount[]): Place | null {
  const mount = resolveMount(path, mounts);
  if (mount === null) return null;
  const rest = path.subarray(mount.mountPoint.length === 1 ? 0 : mount.mountPoint.length);
  const base = mount.root.length === 1 ? Buffer.alloc(0) : mount.root;
  const joined = Buffer.concat([base, rest]);
  return { device: mount.device, path: joined.length === 0 ? Buffer.from("/") : joined };
}

/** The folder, and the test whether a path of a process is in the folder. */
class Target {
  readonly #root: Buffer;
  readonly #place: Place | null;
  readonly #ownNamespace: string;
  readonly #ownMounts: readonly Mount[];
  /** True if a second mount of the file system may show the folder under another path. */
  readonly #isElsewhere: boolean;
  readonly #otherMounts = new Map<string, Mount[]>();
  /** The last process and its namespace: many paths of one process are tested in a row. */
  #last = { pid: 0, namespace: "" };

  constructor(root: Buffer) {
    this.#root = root;
    this.#ownMounts = readMounts();
    this.#place = placeOf(root, this.#ownMounts);
    this.#ownNamespace = linkText("/proc/self/ns/mnt");
    this.#isElsewhere = this.#ownMounts.filter(({ device }) => device === this.#place?.device).length > 1;
  }

  /** Returns the path below the folder, or null if the path is elsewhere. */
  relative(pid: number, path: Buffer): Buffer | null {
    if (path[0] !== 0x2f) return null;
    if (this.#last.pid !== pid) this.#last = { pid, namespace: linkText(`/proc/${pid}/ns/mnt`) };
    const { namespace } = this.#last;
    const foreign = namespace !== "" && namespace !== this.#ownNamespace;
    if (!foreign && isAtOrBelow(path, this.#root)) return below(path, this.#root);
    if (this.#place === null) return null;
    const mounts = foreign ? this.#mountsOf(pid, namespace) : this.#ownMounts;
    if (!foreign && !this.#isElsewhere) return null;
    const place = placeOf(path, mounts);
    if (place === null || place.device !== this.#place.device) return null;
    return isAtOrBelow(place.path, this.#place.path) ? below(place.path, this.#place.path) : null;
  }

  #mountsOf(pid: number, namespace: string): Mount[] {
    let mounts = this.#otherMounts.get(namespace);
    if (mounts === undefined) {
      mounts = parseMountinfo(readText(`/proc/${pid}/mountinfo`));
      this.#otherMounts.set(namespace, mounts);
    }
    return mounts;
  }
}

function below(path: Buffer, root: Buffer): Buffer {
  if (root.length === 1) return path.subarray(1);
  return path.subarray(Math.min(path.length, root.length + 1));
}

function linkText(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return "";
  }
}

function readText(path: string): string {
  try {
    return readFileSync(path, "latin1");
  } catch {
    return "";
  }
}

const SLASH = 0x2f;
const DELETED = Buffer.from(" (deleted)");

/** Returns the target of a link under /proc; null if it is no path, or of a removed entry, which is in no folder. */
function linkTarget(path: string): Buffer | null {
  const target = readLink(path);
  // Most descriptors are pipes and sockets.
  if (target[0] !== SLASH) return null;
  if (target.length <= DELETED.length || !target.subarray(-DELETED.length).equals(DELETED)) return target;
  return existsSync(target) ? Buffer.from(target) : null;
}

let link: { path: Arena; pathBytes: Buffer; target: Arena; targetBytes: Buffer } | undefined;

function linkArenas(): NonNullable<typeof link> {
  if (link === undefined) {
    const [path, target] = [newArena(64), newArena(4096)];
    const of = ({ bytes }: Arena): Buffer => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
    link = { path, pathBytes: of(path), target, targetBytes: of(target) };
  }
  return link;
}

/**
 * Reads a link into a reused buffer. Most targets are no paths, so the copies and exceptions of Node would be wasted.
 */
function readLink(path: string): Buffer {
  const { path: name, pathBytes, target, targetBytes } = linkArenas();
  pathBytes.write(`${path}\0`, "latin1");
  const length = syscalls().readlink(AT_FDCWD, name, 0, target);
  if (length < 0) throw syscallError(length, `readlink ${path}`);
  return targetBytes.subarray(0, length);
}

const ACCESS_MODE = 0o3;
const O_PATH = 0o10000000;

function opensForWriting(pid: number, descriptor: string): boolean {
  const flags = /^flags:\s*([0-7]+)/m.exec(readText(`/proc/${pid}/fdinfo/${descriptor}`))?.[1];
  if (flags === undefined) return true;
  const value = Number.parseInt(flags, 8);
  return (value & O_PATH) === 0 && (value & ACCESS_MODE) !== 0;
}

interface Search {
  readonly target: Target;
  readonly deadline: number;
  readonly holders: Holder[];
  readonly unknown: Set<UnknownReason>;
}

function isOutOfTime(search: Search): boolean {
  if (performance.now() <= search.deadline) return false;
  search.unknown.add("out-of-time");
  return true;
}

export function isDenied(error: unknown): boolean {
  const name = error instanceof CairnError ? error.details?.["errno"] : (error as NodeJS.ErrnoException).code;
  return name === "EACCES" || name === "EPERM";
}

function commandOf(pid: number): string {
  return readText(`/proc/${pid}/comm`).trim();
}

function addHolder(search: Search, pid: number, kind: HolderKind, path: Buffer): void {
  const known = search.holders.some((holder) => holder.pid === pid && holder.kind === kind && holder.path.equals(path));
  if (!known) search.holders.push({ pid, command: commandOf(pid), kind, path: Buffer.from(path) });
}

function searchDirectories(search: Search, pid: number): void {
  for (const name of ["cwd", "root"]) {
    const target = linkTarget(`/proc/${pid}/${name}`);
    // Every process has a root directory; it counts only if it was changed into the folder.
    if (target === null || (name === "root" && target.length === 1)) continue;
    const path = search.target.relative(pid, target);
    if (path !== null) addHolder(search, pid, "cwd", path);
  }
}

function searchDescriptors(search: Search, pid: number): void {
  for (const descriptor of readdirSync(`/proc/${pid}/fd`)) {
    if (isOutOfTime(search)) return;
    let target: Buffer | null;
    try {
      target = linkTarget(`/proc/${pid}/fd/${descriptor}`);
    } catch (error) {
      if (isDenied(error)) throw error;
      continue;
    }
    const path = target === null ? null : search.target.relative(pid, target);
    if (path !== null) addHolder(search, pid, opensForWriting(pid, descriptor) ? "open-write" : "open-read", path);
  }
}

const MAX_MAPS_BYTES = 4 << 20;

/** Reads the mappings of a process, up to a limit: a process with millions of mappings must not stop a save. */
export function readMaps(path: string): { text: string; whole: boolean } {
  const descriptor = openSync(path, "r");
  try {
    const chunks: string[] = [];
    const chunk = Buffer.allocUnsafe(65536);
    for (let total = 0; total < MAX_MAPS_BYTES;) {
      const length = readSync(descriptor, chunk);
      if (length === 0) return { text: chunks.join(""), whole: true };
      chunks.push(chunk.toString("latin1", 0, length));
      total += length;
    }
    return { text: chunks.join(""), whole: false };
  } finally {
    closeSync(descriptor);
  }
}

/** Permissions of writable shared mappings; few processes have any. */
const WRITABLE_SHARED = [" rw-s ", " rwxs ", " -w-s ", " -wxs "];

function searchMappings(search: Search, pid: number): void {
  if (!hasWritableMapping(`/proc/${pid}/maps`)) return;
  const { text, whole } = readMaps(`/proc/${pid}/maps`);
  if (!whole) search.unknown.add("out-of-time");
  if (!WRITABLE_SHARED.some((permissions) => text.includes(permissions))) return;
  // address, permissions with a final `s` for shared, offset, device, inode, path with newlines as \012
  for (const match of text.matchAll(/^\S+ .w.s \S+ \S+ \d+\s+(\/.*)$/gm)) {
    const path = match[1]!.replaceAll("\\012", "\n");
    if (path.endsWith(" (deleted)")) continue;
    const relative = search.target.relative(pid, Buffer.from(path, "latin1"));
    if (relative !== null) addHolder(search, pid, "mapping", relative);
  }
}

function searchProcess(search: Search, pid: number): void {
  if (isKernelThread(pid)) return;
  for (const part of [searchDirectories, searchDescriptors, searchMappings]) {
    try {
      part(search, pid);
    } catch (error) {
      // Other errors mean that the process has ended, or is a kernel thread.
      if (!isDenied(error)) continue;
      search.unknown.add("unreadable-processes");
      return;
    }
  }
}

/**
 * True for a thread of the kernel, which has no program and no open files; half of all processes are such threads. Uses
 * a raw call, because an exception of Node for each would take ten times as long.
 */
export function isKernelThread(pid: number): boolean {
  const { path, pathBytes, target } = linkArenas();
  pathBytes.write(`/proc/${pid}/exe\0`, "latin1");
  return syscalls().readlink(AT_FDCWD, path, 0, target) === ENOENT;
}

export const INITIAL_PID_NAMESPACE = "pid:[4026531836]";

function addBlindSpots(unknown: Set<UnknownReason>, root: Buffer, pids: readonly number[]): void {
  const namespace = linkText("/proc/self/ns/pid");
  if (namespace !== INITIAL_PID_NAMESPACE) unknown.add("other-pid-namespaces");
  if (!pids.includes(1)) unknown.add("hidden-processes");
  const { place } = filesystemKind(root);
  if (place === "network" || place === "fuse" || place === "unknown") unknown.add("other-hosts");
}

/** Lists the processes that see a mount with this source. */
export function processesThatSee(source: string): number[] {
  return processNumbers().filter((pid) => readText(`/proc/${pid}/mountinfo`).includes(` ${source} `));
}

/** Lists the numbers of all visible processes; empty without /proc, for example in a chroot. */
export function processNumbers(): number[] {
  try {
    return readdirSync("/proc")
      .filter((name) => /^[0-9]+$/.test(name))
      .map(Number);
  } catch {
    return [];
  }
}

/**
 * Finds other processes that work in a folder, through any mount or container. Bounded in time; `unknown` tells why
 * holders may be missing. Throws `not_found` if the folder is missing.
 */
export function findHolders(folder: RawPath, options: HolderOptions = {}): Holders {
  let root: Buffer;
  try {
    root = realpathSync.native(folder, "buffer");
  } catch (error) {
    throw toCairnError(error, `look for holders of ${printablePath(folder)}`);
  }
  const pids = processNumbers();
  if (pids.length === 0) return { holders: [], unknown: ["no-proc"] };
  const search: Search = {
    target: new Target(root),
    deadline: performance.now() + (options.budgetMs ?? 200),
    holders: [],
    unknown: new Set(),
  };
  addBlindSpots(search.unknown, root, pids);
  for (const pid of options.among ?? pids) {
    if (pid === process.pid && options.includeSelf !== true) continue;
    if (isOutOfTime(search)) break;
    searchProcess(search, pid);
  }
  return { holders: search.holders, unknown: [...search.unknown].sort() };
}

/** Mount points that show the folder (its real path) or a part of it under another path, in every namespace that can be read. */
export function mountedElsewhere(folder: Buffer, mounts: readonly Mount[] = readMounts()): Buffer[] {
  const own = mountOf(folder, mounts);
  if (own === null) return [];
  const below = folder.subarray(own.mountPoint.length === 1 ? 0 : own.mountPoint.length);
  const place = Buffer.concat([own.root.length === 1 ? Buffer.alloc(0) : own.root, below]);
  const showing = (all: readonly Mount[]): Buffer[] =>
    all.flatMap(({ device, root, mountPoint }) =>
      device === own.device && isAtOrBelow(root, place) ? [mountPoint] : [],
    );
  const found = showing(mounts);
  for (const pid of onePerNamespace()) append(found, showing(parseMountinfo(readText(`/proc/${pid}/mountinfo`))));
  return found;
}

/** One process of each other mount namespace. */
function onePerNamespace(): string[] {
  const byNamespace = new Map<string, string>();
  for (const pid of readdirSync("/proc").filter((name) => /^[0-9]+$/.test(name))) {
    try {
      byNamespace.set(readlinkSync(`/proc/${pid}/ns/mnt`), pid);
    } catch {
      // The process belongs to another user, or has ended.
    }
  }
  byNamespace.delete(readlinkSync("/proc/self/ns/mnt"));
  return [...byNamespace.values()];
}

/** Sockets in the folder that a program of this network namespace has bound, by the path that the program used. */
export function boundSockets(folder: Buffer): Buffer[] {
  const lines = readText("/proc/net/unix").split("\n").slice(1);
  const paths = lines.flatMap((line) => /^(?:\S+\s+){7}(\/.*)$/.exec(line)?.[1] ?? []);
  return inFolder(
    paths.map((path) => Buffer.from(path, "latin1")),
    folder,
  );
}

/** True if a process listens at a port of 127.0.0.1 in this network namespace; null if its open files are not visible. */
export function listensAt(pid: number, port: number): boolean | null {
  const local = `0100007F:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  const rows = readText("/proc/net/tcp")
    .split("\n")
    .map((row) => row.trim().split(/\s+/));
  const inodes = rows.filter(([, at, , state]) => at === local && state === "0A").map((row) => `socket:[${row[9]}]`);
  try {
    return readdirSync(`/proc/${pid}/fd`).some((fd) => inodes.includes(linkOf(`/proc/${pid}/fd/${fd}`)));
  } catch {
    return null;
  }
}

function linkOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return "";
  }
}

/** Swap files of the system in the folder. */
export function swapFiles(folder: Buffer): Buffer[] {
  const lines = readText("/proc/swaps").split("\n").slice(1);
  return inFolder(
    lines.map((line) => unescapeOctal(line.split(/\s/)[0] ?? "")),
    folder,
  );
}

function inFolder(paths: readonly Buffer[], folder: Buffer): Buffer[] {
  return paths.filter((path) => path.length > folder.length && isAtOrBelow(path, folder));
}
