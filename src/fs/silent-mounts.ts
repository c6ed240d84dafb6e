import { type ChildProcess, spawn } from "node:child_process";
import { isUtf8 } from "node:buffer";
import { lstatSync, readdirSync, readFileSync, readlinkSync, statSync } from "node:fs";
import { CairnError } from "../errors.ts";
import { type Mount, mountOf, mountsInside, readMounts, resolveMount } from "./linux/mounts.ts";
import { openDirectory, syscalls } from "./linux/syscalls.ts";
import { DirectoryListing } from "./listing.ts";
import { processFacts } from "./lock-owner.ts";
import { isAtOrBelow, printablePath, rawBytes, type RawPath } from "./paths/safe-path.ts";

/**
 * Mounts whose server does not answer: a FUSE program that is stopped, a network file system without its network. Each
 * system call on such a mount waits, often not even interruptible by SIGKILL. So a child process looks first, and this
 * process waits for the child a limited time.
 */

/** Longer than a disk of a file server needs to start. */
const LIMIT_MS = 5000;
/** A call looks at one folder several times within a moment. */
const ANSWERING_MS = 250;
/** Seconds that a child waits, also after the end of this process. */
const CHILD_S = "20";
const MOST_KNOWN = 1000;
const MOST_LINKS = 40;
const SLASH = 0x2f;

/** Types of file systems that another program or machine serves. */
const SERVED = /^(?:fuse|nfs|cifs|smb|9p|ceph|afs|autofs|coda|lustre|gpfs|gfs2|ocfs2|virtiofs|davfs|glusterfs|beegfs)/;

function isServed({ type }: Mount): boolean {
  return SERVED.test(type);
}

/** Until when places count as answering. */
const answering = new Map<string, number>();
/** By mount, the child that still waits for its answer. A waiting child keeps its mount's id from being given to another mount. */
const silent = new Map<number, ChildProcess>();

/** True if the mount that an absolute or relative path leads into does not answer. Looks at no such mount itself. */
export function isSilent(path: RawPath, mounts: readonly Mount[] = readMounts()): boolean {
  return silentPlace(path, mounts) !== null;
}

/** The place in a mount that does not answer to which a path leads: its real path, unless the mount has links. Else null. */
export function silentPlace(path: RawPath, mounts: readonly Mount[] = readMounts()): Buffer | null {
  if (!mounts.some(isServed)) return null;
  const served = servedPlace(path, mounts);
  return served === null || silentAmong([served]).length === 0 ? null : served.place;
}

/** True if a path surely has no entry. A path that cannot be looked at may have one. */
export function isGone(path: RawPath, mounts: readonly Mount[] = readMounts()): boolean {
  try {
    return !isSilent(path, mounts) && statSync(path, { throwIfNoEntry: false }) === undefined;
  } catch {
    return false;
  }
}

/** Throws `io` if the mount that a path leads into does not answer. */
export function requireAnswer(path: RawPath): void {
  if (!isSilent(path)) return;
  throw new CairnError("io", `${printablePath(path)} lies on a mount that does not answer`, {
    hint: "see if its server or program runs and can be reached, or unmount it; then try again",
    details: { errno: "ETIMEDOUT" },
  });
}

interface ServedPlace {
  mount: Mount;
  place: Buffer;
}

/** The place that a path leads to if the way enters a served mount; null if it enters none. Follows links on the way. */
function servedPlace(path: RawPath, mounts: readonly Mount[]): ServedPlace | null {
  let rest = partsOf(rawBytes(path));
  let at: Buffer = Buffer.from(rawBytes(path)[0] === SLASH ? "/" : process.cwd());
  for (let links = 0; ;) {
    const mount = resolveMount(at, mounts);
    if (mount !== null && isServed(mount)) return { mount, place: rest.reduce(joined, at) };
    const part = rest.shift();
    if (part === undefined) return null;
    const name = part.toString("latin1");
    if (name === "..") at = at.subarray(0, Math.max(1, at.lastIndexOf(SLASH)));
    if (name === "..") continue;
    const next = joined(at, part);
    // A mount point is a directory, and its root is looked at only by the child.
    if (resolveMount(next, mounts) === mount && isLink(next)) {
      if (++links > MOST_LINKS) return null;
      const target = readlinkSync(next, "buffer");
      rest = [...partsOf(target), ...rest];
      if (target[0] === SLASH) at = Buffer.from("/");
    } else at = next;
  }
}

function joined(at: Buffer, part: Buffer): Buffer {
  return Buffer.concat([at, Buffer.from(at.length === 1 ? "" : "/"), part]);
}

function partsOf(path: Uint8Array): Buffer[] {
  const text = Buffer.from(path).toString("latin1");
  return text.split("/").flatMap((part) => (part === "" || part === "." ? [] : [Buffer.from(part, "latin1")]));
}

function isLink(path: Buffer): boolean {
  try {
    return lstatSync(path).isSymbolicLink();
  } catch {
    return false;
  }
}

/** Returns the places that are silent. All are looked at at once. A mount is silent as long as a child waits for it. */
function silentAmong(places: readonly ServedPlace[]): ServedPlace[] {
  const now = Date.now();
  const isKnown = ({ mount, place }: ServedPlace): boolean =>
    isWaitedFor(mount) || (answering.get(place.toString("latin1")) ?? 0) > now;
  const unknown = places.filter((each) => !isKnown(each));
  const waiting = waitingInTime(unknown.map(({ place }) => place));
  if (answering.size > MOST_KNOWN) answering.clear();
  for (const [i, { mount, place }] of unknown.entries()) {
    const child = waiting[i]!;
    if (child === null) answering.set(place.toString("latin1"), Date.now() + ANSWERING_MS);
    else silent.set(mount.id, child);
  }
  return places.filter(({ mount }) => silent.has(mount.id));
}

/** True if an earlier look at the mount has no answer yet. */
function isWaitedFor({ id }: Mount): boolean {
  const child = silent.get(id);
  if (child !== undefined && hasEnded(child)) silent.delete(id);
  return silent.has(id);
}

/** Starts a child process for each place that looks at it. Returns the children that have not ended in time; null for the others. */
function waitingInTime(places: readonly Buffer[]): (ChildProcess | null)[] {
  const children = places.map(lookingAt);
  const until = performance.now() + LIMIT_MS;
  const clock = new Int32Array(new SharedArrayBuffer(4));
  const waits = (child: ChildProcess | null): boolean => child !== null && !hasEnded(child);
  while (children.some(waits) && performance.now() < until) Atomics.wait(clock, 0, 0, 1);
  return children.map((child) => (waits(child) ? child : null));
}

/** Null if no child can be started, or cannot be given the place: arguments are UTF-8. */
function lookingAt(place: Buffer): ChildProcess | null {
  if (!isUtf8(place)) return null;
  const looking = ["find", "-H", place.toString("utf8"), "-maxdepth", "0", "-empty"];
  const child = spawn("timeout", ["-s", "KILL", CHILD_S, ...looking], { cwd: "/", stdio: "ignore" });
  child.on("error", () => undefined);
  child.unref();
  return child.pid === undefined ? null : child;
}

/** True for a child that ended: a zombie until this thread goes on. */
function hasEnded({ pid, exitCode, signalCode }: ChildProcess): boolean {
  return exitCode !== null || signalCode !== null || /^[ZX]/.test(processFacts(pid!)?.state ?? "X");
}

/** True if a scan of `root` reads files of a mount that is served by others. */
export function readsServed(root: RawPath, entersMounts: boolean): boolean {
  const own = mountOf(root);
  return [...(own === null ? [] : [own]), ...(entersMounts ? mountsInside(root) : [])].some(isServed);
}

/** A system call in which a thread of this process waits. */
export interface KernelWait {
  /** The mount point of a served mount; null: the kernel does not tell the place. */
  mountPoint: Buffer | null;
  /** By `performance.now()`, when the wait was seen first. */
  since: number;
}

/**
 * Returns the present waits of other threads for a served mount or a disk, by thread and wait. `former`: the last
 * result. Reads no mount: the kernel knows the paths of open files.
 */
export function kernelWaits(former: ReadonlyMap<string, KernelWait>): Map<string, KernelWait> {
  const waits = new Map<string, KernelWait>();
  for (const thread of threadIds()) {
    try {
      const status = readFileSync(`/proc/self/task/${thread}/status`, "latin1");
      const call = readFileSync(`/proc/self/task/${thread}/syscall`, "latin1");
      const mount = mountOfFile(Number(call.split(" ")[1]));
      if (mount === null && !/^State:\tD/m.test(status)) continue;
      // A thread that went on has switched since, although its next call may have equal arguments.
      const key = [thread, call, ...(status.match(/ctxt_switches:.*/g) ?? [])].join();
      waits.set(key, former.get(key) ?? { mountPoint: mount?.mountPoint ?? null, since: performance.now() });
    } catch {
      // The thread has ended, or the kernel does not tell its call.
    }
  }
  return waits;
}

/** None without /proc, or if no descriptor is free. */
function threadIds(): string[] {
  try {
    return readdirSync("/proc/self/task");
  } catch {
    return [];
  }
}

/** The served mount of an open file or directory; null if there is none. */
function mountOfFile(fd: number): Mount | null {
  if (!(fd > 2)) return null;
  try {
    const mount = resolveMount(readlinkSync(`/proc/self/fd/${fd}`, "buffer"), readMounts());
    return mount !== null && isServed(mount) ? mount : null;
  } catch {
    return null;
  }
}

/** Returns the mounts of a list that are served by others and do not answer. */
export function silentOf(mounts: readonly Mount[]): Mount[] {
  const served = mounts.filter(isServed).map((mount) => ({ mount, place: mount.mountPoint }));
  return silentAmong(served).map(({ mount }) => mount);
}

/**
 * Returns the paths below `root` (latin1) at which something is mounted, each with true for a directory. The listing of
 * the directory above tells that, because a look at a mount may wait for its server. Leaves out mounts in mounts.
 */
export function mountPointsIn(root: Buffer): Map<string, boolean> {
  const inside = mountsInside(root).map(({ mountPoint }) => mountPoint);
  const outer = inside.filter((place) => !inside.some((each) => each !== place && isAtOrBelow(place, each)));
  return new Map(outer.map((place) => [place.toString("latin1", root.length + 1), isListedDirectory(place)]));
}

function isListedDirectory(place: Buffer): boolean {
  const slash = place.lastIndexOf(SLASH);
  const listing = new DirectoryListing();
  const fd = openDirectory(place.subarray(0, Math.max(1, slash)));
  try {
    listing.read(syscalls(), fd);
  } finally {
    syscalls().close(fd);
  }
  const name = place.toString("latin1", slash + 1);
  return listing.offsets.some((offset) => listing.isDirectory(offset) && listing.nameOf(offset) === name);
}
