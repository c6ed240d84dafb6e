import fs from "node:fs";
import { databasesAmong } from "../../capture/sqlite/quiet-database.ts";
import type { Identity } from "../../archive/scan/find-record.ts";
import { sha256 } from "../../crypto/hash.ts";
import { CairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { hex, joinPath } from "../../formats/bytes.ts";
import type { TreeNode } from "../../formats/restic/tree.ts";
import { besideWhich } from "../../formats/sqlite-header.ts";
import { allocate } from "../../fs/linux/flush.ts";
import { releaseLease, takeWriteLease } from "../../fs/linux/lease.ts";
import { filesystemKind } from "../../fs/linux/mounts.ts";
import { readRegular } from "../../fs/regular-file.ts";
import { quotedPath } from "../../fs/paths/safe-path.ts";
import type { Step } from "../points/steps.ts";

/**
 * Writes new content into a present file, so that its owner, group and access list stay: for files that this process
 * cannot give back to their owner. The one exception of the rule that a file is replaced by a rename.
 * - Staged before the commit: the new content, a copy of the old one, and the digests of both in the step.
 * - A kernel lease keeps every other process from opening the file meanwhile. Only the file's owner and processes with
 * CAP_LEASE can take one.
 * - After a kill the next call writes the new content again, unless another program has written into the file.
 */

type Write = Extract<Step, { op: "write" }>;

/** A process that opens a leased file waits 45 seconds at most: much longer than a disk needs for so many bytes. */
const MOST_BYTES = 32 * 1024 * 1024;
/** Free space that stays: on btrfs and shared extents of xfs an overwrite needs new space. */
const SPARE_BYTES = 16 * 1024 * 1024;
const SPECIAL_BITS = 0o6000;
/** The staged file has its final mode, and is read again. */
const OWNER_READS = 0o400;
const SECTOR = 512;
/** A program that only reads the file, such as a search index, closes it soon. */
const TRIES = 5;
const PAUSE_MS = 40;

/** Flags with which a file is opened to be written in place. */
export const IN_PLACE = fs.constants.O_RDWR | fs.constants.O_NOFOLLOW | fs.constants.O_NONBLOCK;

/** Returns the place in the staging directory of the old content's copy, by the place of the new content. */
export function formerPlace(staged: Buffer): Buffer {
  return Buffer.concat([staged, Buffer.from(".was")]);
}

/** Tells whether a file is of a kind that is ever written in place. `staged`: the place of its new content. */
export function isForInPlace(file: {
  root: Uint8Array;
  path: Uint8Array;
  before: TreeNode;
  node: TreeNode;
  old: Identity;
  staged: Buffer;
}): boolean {
  const { root, path, before, node, old, staged } = file;
  const isPlain = ({ type, mode, xattrs, size, inode }: TreeNode): boolean =>
    type === "file" &&
    inode === 0n &&
    size <= MOST_BYTES &&
    // The kernel drops set-id bits and capabilities of a file that is written to.
    (mode & SPECIAL_BITS) === 0 &&
    (mode & OWNER_READS) !== 0 &&
    !xattrs.some(({ name }) => Buffer.from(name).toString("latin1").startsWith("security."));
  if (!isPlain(before) || !isPlain(node) || old.links !== 1) return false;
  const place = joinPath(root, path);
  if (besideWhich(path) !== null || databasesAmong([place, staged]).length > 0) return false;
  const { place: kind, overlay } = filesystemKind(Buffer.from(root));
  if (overlay || (kind !== "local" && kind !== "memory")) return false;
  const { bavail, bsize } = fs.statfsSync(Buffer.from(root));
  return bavail * bsize > before.size + node.size + SPARE_BYTES;
}

/** Copies the old content beside the staged new one, under a lease. Returns both digests; null without a lease. */
export function stageInPlace(fd: number, staged: Buffer): Pick<Write, "oldSha256" | "sha256"> | null {
  if (!isLeased(fd)) return null;
  try {
    const old = contentOf(fd);
    fs.writeFileSync(formerPlace(staged), old, { flag: "wx", mode: 0o600 });
    failpoint("restore.in-place-staged");
    return { oldSha256: hex(sha256(old)), sha256: hex(sha256(readRegular(staged))) };
  } finally {
    releaseLease(fd);
  }
}

/**
 * Writes the staged content into an open file and makes it durable. Returns why the file stays as it is; null if it was
 * written. `resuming`: a killed run may have written parts. Throws if the disk fails in the middle: then the journal's
 * next run goes on.
 */
export function writeInPlace(
  fd: number,
  step: Write,
  { staged, resuming }: { staged: Buffer; resuming: boolean },
): string | null {
  // Another file may have got the path since its identity was compared.
  if (fs.fstatSync(fd, { bigint: true }).ino.toString() !== step.old.inode) return CHANGED;
  const isAlone = isLeased(fd);
  try {
    const now = contentOf(fd);
    const digest = hex(sha256(now));
    if (digest === step.sha256) return null;
    const next = readRegular(staged);
    const old = readRegular(formerPlace(staged));
    const isHalf = resuming && digest !== step.oldSha256 && isMixOf(now, old, next);
    if (digest !== step.oldSha256 && !isHalf) return CHANGED;
    // A half-written file is completed even if a program has opened it since.
    if (!isAlone && !isHalf) return IN_USE;
    if (!allocate(fd, next.length)) return "there is no room to write it in place";
    failpoint("restore.in-place");
    const half = (next.length >>> 1) - ((next.length >>> 1) % SECTOR);
    writeAt(fd, next.subarray(0, half), 0);
    failpoint("restore.in-place-half");
    writeAt(fd, next.subarray(half), half);
    failpoint("restore.in-place-untruncated");
    fs.ftruncateSync(fd, next.length);
    fs.fsyncSync(fd);
    failpoint("restore.in-place-written");
    if (hex(sha256(contentOf(fd))) !== step.sha256)
      throw new CairnError("io", `${quotedPath(step.path)} was written, but its content is read back differently`);
    return null;
  } finally {
    if (isAlone) releaseLease(fd);
  }
}

const CHANGED = "it was changed during the restore and stays as it is";
export const IN_USE = "a program has it open, so it cannot be written in place";

function isLeased(fd: number): boolean {
  for (let tries = 1; ; tries++) {
    const lease = takeWriteLease(fd);
    if (lease !== "open elsewhere" || tries === TRIES) return lease === "taken";
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, PAUSE_MS);
  }
}

/** True if an interrupted write of `next` over `old` can leave this content, in any order of the sectors. */
export function isMixOf(now: Buffer, old: Buffer, next: Buffer): boolean {
  const { length } = now;
  if (length < Math.min(old.length, next.length) || length > Math.max(old.length, next.length)) return false;
  const padded = (...parts: Buffer[]): Buffer => Buffer.concat([...parts, Buffer.alloc(length)], length);
  const possible = [padded(old), padded(next), padded(next, old.subarray(next.length))];
  for (let at = 0; at < length; at += SECTOR) {
    const sector = now.subarray(at, at + SECTOR);
    if (!possible.some((each) => sector.equals(each.subarray(at, at + SECTOR)))) return false;
  }
  return true;
}

function contentOf(fd: number): Buffer {
  const { size } = fs.fstatSync(fd);
  const content = Buffer.alloc(Math.min(size, MOST_BYTES));
  let length = 0;
  while (length < content.length) {
    const n = fs.readSync(fd, content, length, content.length - length, length);
    if (n === 0) break;
    length += n;
  }
  return content.subarray(0, length);
}

function writeAt(fd: number, bytes: Buffer, position: number): void {
  for (let at = 0; at < bytes.length;) at += fs.writeSync(fd, bytes, at, bytes.length - at, position + at);
}
