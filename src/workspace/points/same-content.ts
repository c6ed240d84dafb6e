import fs from "node:fs";
import { Sha256Stream } from "../../crypto/hash.ts";
import { haveSameExtents } from "../../fs/linux/same-extents.ts";
import type { Pacer } from "../../pacer.ts";

/** Contents of files that lie on one file system, and may share it. */

const PIECE = 1024 * 1024;
/** A smaller file is sooner read than asked about. */
const MAY_SHARE = 128 * 1024;
const READ = fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW | fs.constants.O_NONBLOCK;

/** Tells if two files have the same content, by where it lies or by reading both; false too where one of them cannot be read. */
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

/** Tells if a file has some content, which comes in pieces of any length; false too where it cannot be read. */
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

/** The SHA-256 of a file; null where it cannot be read. */
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

/** Pieces of an open file, of one length but for the last. */
function* piecesOf(fd: number): Generator<Uint8Array> {
  for (;;) {
    const piece = Buffer.allocUnsafe(PIECE);
    const length = readFully(fd, piece);
    if (length > 0) yield piece.subarray(0, length);
    if (length < PIECE) return;
  }
}

/** Fills a buffer from where the file was last read; the bytes that there were. */
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
