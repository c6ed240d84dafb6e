import fs from "node:fs";
import { Sha256Stream } from "../../crypto/hash.ts";
import { haveSameExtents } from "../../fs/linux/same-extents.ts";
import type { Pacer } from "../../pacer.ts";

/** Compares contents of files on one file system, which may share their extents. */

const PIECE = 1024 * 1024;
/** Smaller files are faster to read than to ask about. */
const MAY_SHARE = 128 * 1024;
const READ = fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW | fs.constants.O_NONBLOCK;

/** Tells if two files have the same content: by their extents, else by reading both. False if one of them is unreadable. */
export async function sameContent(a: Buffer, b: Buffer, pace: Pacer): Promise<boolean> {
  try {
    return await reading(a, async (one) =>
      reading(b, async (other) => {
        const [{ size }, { size: otherSize }] = [fs.fstatSync(one), fs.fstatSync(other)];
        if (size !== otherSize) return false;
        return (size >= MAY_SHARE && haveSameExtents(one, other)) || (await haveSameBytes(one, other, pace));
      }),
    );
  } catch (error) {
    if (isOfSystem(error)) return false;
    throw error;
  }
}

/** Tells if a file has the given content, which comes in pieces of any length. False if the file is unreadable. */
export async function hasContent(place: Buffer, content: Iterable<Uint8Array>, pace: Pacer): Promise<boolean> {
  try {
    return await reading(place, async (fd) => {
      for (const piece of content) {
        const own = Buffer.allocUnsafe(piece.length);
        if (readFully(fd, own) < piece.length || Buffer.compare(own, piece) !== 0) return false;
        await pace();
      }
      return readFully(fd, Buffer.allocUnsafe(1)) === 0;
    });
  } catch (error) {
    if (isOfSystem(error)) return false;
    throw error;
  }
}

/** Returns the SHA-256 of a file; null if the file is unreadable. */
export async function contentOf(place: Buffer, pace: Pacer): Promise<Uint8Array | null> {
  try {
    return await reading(place, async (fd) => {
      const digest = new Sha256Stream();
      for (const piece of piecesOf(fd)) {
        digest.update(piece);
        await pace();
      }
      return Uint8Array.from(digest.digest());
    });
  } catch (error) {
    if (isOfSystem(error)) return null;
    throw error;
  }
}

async function haveSameBytes(a: number, b: number, pace: Pacer): Promise<boolean> {
  const others = piecesOf(b);
  for (const piece of piecesOf(a)) {
    const { value, done } = others.next();
    if (done === true || Buffer.compare(piece, value) !== 0) return false;
    await pace();
  }
  return others.next().done === true;
}

async function reading<T>(place: Buffer, work: (fd: number) => Promise<T>): Promise<T> {
  const fd = fs.openSync(place, READ);
  try {
    return await work(fd);
  } finally {
    fs.closeSync(fd);
  }
}

/** Pieces of an open file. All have the same length, except the last one. */
function* piecesOf(fd: number): Generator<Uint8Array> {
  for (;;) {
    const piece = Buffer.allocUnsafe(PIECE);
    const length = readFully(fd, piece);
    if (length > 0) yield piece.subarray(0, length);
    if (length < PIECE) return;
  }
}

/** Fills a buffer from the current offset of the file. Returns the number of bytes read. */
function readFully(fd: number, into: Buffer): number {
  let length = 0;
  for (let n = -1; n !== 0 && length < into.length; length += n)
    n = fs.readSync(fd, into, length, into.length - length, null);
  return length;
}

function isOfSystem(error: unknown): boolean {
  return (
    typeof (error as NodeJS.ErrnoException).code === "string" && (error as NodeJS.ErrnoException).syscall !== undefined
  );
}
