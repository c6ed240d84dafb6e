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
    let length = 0;
    for (let n = -1; n !== 0 && length < PIECE; length += n) n = fs.readSync(fd, piece, length, PIECE - length, null);
    if (length > 0) yield piece.subarray(0, length);
    if (length < PIECE) return;
  }
}

function isOfSystem(error: unknown): boolean {
  return (
    typeof (error as NodeJS.ErrnoException).code === "string" && (error as NodeJS.ErrnoException).syscall !== undefined
  );
}
