import fs from "node:fs";
import { type Arena, newArena } from "../../native.ts";
import { EEXIST, EINVAL, ENOENT, ENOSYS, ENOTDIR } from "./errno.ts";
import { printablePath } from "../paths/safe-path.ts";
import { newStatBuffer, openOwnWay, putName, RENAME, syscallError, syscalls } from "./syscalls.ts";

export interface OpenPlace {
  fd: number;
  name: Arena;
}

/** Exchanges two entries (absolute paths, raw bytes) in one call; both paths exist at every moment. Throws the errno's error. */
export function exchangePlaces(one: Buffer, other: Buffer): void {
  const result = inPlaces(other, one, (from, to) =>
    syscalls().rename(from.fd, from.name, 0, to.fd, to.name, 0, RENAME.EXCHANGE),
  );
  if (result < 0) throw syscallError(result, `exchange ${printablePath(one)} and ${printablePath(other)}`);
}

/** Renames an entry (absolute paths, raw bytes), also over an empty folder. Throws the errno's error. */
export function moveInPlace(from: Buffer, to: Buffer): void {
  const result = inPlaces(from, to, (one, other) => syscalls().rename(one.fd, one.name, 0, other.fd, other.name, 0, 0));
  if (result < 0) throw syscallError(result, `move ${printablePath(from)} to ${printablePath(to)}`);
}

/** Renames an entry to a free name (absolute paths, raw bytes). Throws the errno's error. */
export function moveToFree(from: Buffer, to: Buffer): void {
  const result = inPlaces(from, to, renameToFree);
  if (result < 0) throw syscallError(result, `move ${printablePath(from)} to ${printablePath(to)}`);
}

/** Moves a folder to a free name if the system can guarantee that nothing is replaced. False, without a change, if it cannot. */
export function movedToFree(from: Buffer, to: Buffer): boolean {
  const result = inPlaces(from, to, renameNoReplace);
  if (result === EINVAL || result === ENOSYS) return false;
  if (result < 0) throw syscallError(result, `move ${printablePath(from)} to ${printablePath(to)}`);
  return true;
}

function renameNoReplace(from: OpenPlace, to: OpenPlace): number {
  return syscalls().rename(from.fd, from.name, 0, to.fd, to.name, 0, RENAME.NOREPLACE);
}

/**
 * Renames without replacing. If the system cannot guarantee that (network file systems), looks first: an entry made in
 * between may be lost. Returns 0 or minus errno.
 */
export function renameToFree(from: OpenPlace, to: OpenPlace): number {
  const sys = syscalls();
  const result = renameNoReplace(from, to);
  if (result !== EINVAL && result !== ENOSYS) return result;
  const looked = sys.stat(to.fd, to.name, 0, newStatBuffer());
  if (looked !== ENOENT && looked !== ENOTDIR) return looked === 0 ? EEXIST : looked;
  return sys.rename(from.fd, from.name, 0, to.fd, to.name, 0, 0);
}

/** Sets the mode of a directory; follows no link. */
export function setModeInPlace(folder: Buffer, mode: number): void {
  const name = newArena(512);
  putName(name, 0, nameOf(folder));
  const result = inParentOf(folder, (fd) => syscalls().chmod(fd, name, 0, mode));
  if (result < 0) throw syscallError(result, `change the mode of ${printablePath(folder)}`);
}

/** Makes a link at a free name (absolute raw path). Throws `already_exists` if the name is taken, else the errno's error. */
export function linkInPlace(place: Buffer, target: Buffer): void {
  const [name, to] = [newArena(512), newArena(4096)];
  putName(name, 0, nameOf(place));
  putName(to, 0, target);
  const result = inParentOf(place, (fd) => syscalls().symlink(to, 0, fd, name, 0));
  if (result < 0) throw syscallError(result, `make the link ${printablePath(place)}`);
}

/** Makes a directory that only its owner may enter, at a free name (absolute raw path). Throws the errno's error. */
export function makeInPlace(place: Buffer): void {
  const name = newArena(512);
  putName(name, 0, nameOf(place));
  const result = inParentOf(place, (fd) => syscalls().mkdir(fd, name, 0, 0o700));
  if (result < 0) throw syscallError(result, `make the folder ${printablePath(place)}`);
}

function inPlaces(one: Buffer, other: Buffer, work: (one: OpenPlace, other: OpenPlace) => number): number {
  const names = [one, other].map((place) => {
    const name = newArena(512);
    putName(name, 0, nameOf(place));
    return name;
  });
  return inParentOf(one, (first) =>
    inParentOf(other, (second) => work({ fd: first, name: names[0]! }, { fd: second, name: names[1]! })),
  );
}

/** Calls `work` with the open directory of an absolute raw path. Throws `conflict` if the path has a link of another user. */
export function inParentOf<T>(path: Buffer, work: (fd: number) => T): T {
  const fd = openOwnWay(parentOf(path), fs.constants.O_RDONLY | fs.constants.O_DIRECTORY);
  try {
    return work(fd);
  } finally {
    fs.closeSync(fd);
  }
}

/** Returns the directory of an absolute raw path. */
export function parentOf(path: Buffer): Buffer {
  const at = path.lastIndexOf(0x2f);
  return at <= 0 ? Buffer.from("/") : path.subarray(0, at);
}

/** Returns the last name of an absolute raw path. */
export function nameOf(path: Buffer): Buffer {
  return path.subarray(path.lastIndexOf(0x2f) + 1);
}
