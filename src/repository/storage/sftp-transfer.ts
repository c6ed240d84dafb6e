import { CairnError } from "../../errors.ts";
import { concurrently } from "./concurrently.ts";
import type { SftpHandle, SftpSession } from "./sftp-session.ts";
import type { ByteRange } from "./storage.ts";

/** Pieces of one file under way at once. */
const PIECES = 32;
/** Up to here the bytes of a range are made room for before it is known that the file has them. */
const TRUSTED_LENGTH = 4 << 20;
/** A file up to this long gets its memory at once; a longer one as it comes. */
const AT_ONCE = 64 << 20;
/** No file of a repository is larger; a server that says so is not to be believed. */
const LARGEST_FILE = 1 << 30;

/** Where the bytes of a file to be saved come from. */
export interface ByteSource {
  readonly size: number;
  read(position: number, length: number): Promise<Buffer>;
}

/** Asked before bytes are sent and after they came; takes its time where there is a limit. */
export type Paced = (bytes: number) => Promise<void>;

export function sourceOf(bytes: Uint8Array): ByteSource {
  const whole = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  return { size: bytes.length, read: async (position, length) => whole.subarray(position, position + length) };
}

/** Writes all of it from position 0. */
export async function writeAll(
  session: SftpSession,
  handle: SftpHandle,
  from: { source: ByteSource; paced: Paced },
): Promise<void> {
  const { source, paced } = from;
  const piece = session.writeSize;
  await concurrently(Math.ceil(source.size / piece), PIECES, async (index) => {
    const position = index * piece;
    const length = Math.min(piece, source.size - position);
    await paced(length);
    await session.write(handle, await source.read(position, length), position);
  });
}

/** The bytes of a range; `damaged` when the file ends before. */
export async function readRange(
  session: SftpSession,
  handle: SftpHandle,
  from: { range: ByteRange; paced: Paced },
): Promise<Uint8Array> {
  const { offset, length } = from.range;
  if (offset < 0 || length < 0) throw outside(from.range);
  if (length === 0 || length > TRUSTED_LENGTH) {
    const size = await session.size(handle);
    if (offset + length > size) throw outside(from.range, size);
  }
  const target = Buffer.allocUnsafeSlow(length);
  await readInto(session, handle, { target, at: 0, position: offset, paced: from.paced });
  return target;
}

/** All bytes of a file; a small one together with its size. */
export async function readWhole(session: SftpSession, handle: SftpHandle, paced: Paced): Promise<Uint8Array> {
  const head = Buffer.allocUnsafeSlow(session.readSize);
  const [size, came] = await Promise.all([
    session.size(handle),
    readPiece(session, handle, { target: head, at: 0, length: head.length, position: 0 }),
  ]);
  await paced(came);
  if (came >= size) return Uint8Array.prototype.slice.call(head, 0, size);
  if (size > LARGEST_FILE) {
    throw new CairnError("damaged", `the file has ${size} bytes, which is more than a repository's files have`);
  }
  const parts: Buffer[] = [];
  for (let at = 0; at < size; at += AT_ONCE) {
    const target = Buffer.allocUnsafeSlow(Math.min(AT_ONCE, size - at));
    const known = at === 0 ? head.copy(target, 0, 0, came) : 0;
    await readInto(session, handle, { target, at: known, position: at + known, paced });
    parts.push(target);
  }
  return parts.length === 1 ? parts[0]! : Buffer.concat(parts);
}

interface Reading {
  readonly target: Buffer;
  readonly at: number;
  readonly length: number;
  readonly position: number;
}

/** Fills the target from `at` on, with what is in the file from `position` on. */
async function readInto(
  session: SftpSession,
  handle: SftpHandle,
  into: { target: Buffer; at: number; position: number; paced: Paced },
): Promise<void> {
  const { target, at, position, paced } = into;
  const piece = session.readSize;
  await concurrently(Math.ceil((target.length - at) / piece), PIECES, async (index) => {
    const start = index * piece;
    const length = Math.min(piece, target.length - at - start);
    const came = await readPiece(session, handle, { target, at: at + start, length, position: position + start });
    await paced(came);
    if (came < length) throw outside({ offset: position, length: target.length - at }, position + start + came);
  });
}

/** A server may give less than was asked for; only 0 bytes mean the end. */
async function readPiece(session: SftpSession, handle: SftpHandle, reading: Reading): Promise<number> {
  let done = 0;
  while (done < reading.length) {
    const rest = { at: reading.at + done, length: reading.length - done, position: reading.position + done };
    const came = await session.read(handle, reading.target, rest);
    if (came === 0) break;
    done += came;
  }
  return done;
}

function outside(range: ByteRange, size?: number): CairnError {
  const wanted = `bytes ${range.offset} to ${range.offset + range.length} were wanted`;
  return new CairnError("damaged", size === undefined ? wanted : `the file has ${size} bytes; ${wanted}`);
}
