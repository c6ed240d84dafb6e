import { CairnError } from "../../../errors.ts";
import { concurrently } from "../concurrently.ts";
import { FSYNC, isDirectory, type SftpHandle, type SftpSession } from "./session.ts";
import { SFTP_STATUS, statusOf } from "./wire.ts";
import type { ByteRange, SaveOptions } from "../storage.ts";

/** Work that takes several SFTP requests. */

/** Pieces of one file under way at once. */
const PIECES = 32;
/** Up to here the bytes of a range are made room for before it is known that the file has them. */
const TRUSTED_LENGTH = 4 << 20;
/** A file up to this long gets its memory at once; a longer one as it comes. */
const AT_ONCE = 64 << 20;
/** No file of a repository is larger; a server that says so is not to be believed. */
const LARGEST_FILE = 1 << 30;

/** The source of the bytes of a file that is saved. */
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
  from: { source: ByteSource; paced: Paced } & Pick<SaveOptions, "onSent">,
): Promise<void> {
  const { source, paced, onSent } = from;
  let arrived = 0;
  const piece = session.writeSize;
  await concurrently(Math.ceil(source.size / piece), PIECES, async (index) => {
    const position = index * piece;
    const length = Math.min(piece, source.size - position);
    await paced(length);
    await session.write(handle, await source.read(position, length), position);
    onSent?.((arrived += length));
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
  await readInto(session, handle, { target, position: offset, paced: from.paced });
  return target;
}

/** All bytes of a file; a small one together with its size. */
export async function readWhole(session: SftpSession, handle: SftpHandle, paced: Paced): Promise<Uint8Array> {
  const head = Buffer.allocUnsafeSlow(session.readSize);
  const [size, came] = await Promise.all([session.size(handle), readPiece(session, handle, head, 0)]);
  await paced(came);
  if (came >= size) return Uint8Array.prototype.slice.call(head, 0, size);
  if (size > LARGEST_FILE) {
    throw new CairnError("damaged", `the file has ${size} bytes, more than any file of a repository`);
  }
  const parts: Buffer[] = [];
  for (let at = 0; at < size; at += AT_ONCE) {
    const part = Buffer.allocUnsafeSlow(Math.min(AT_ONCE, size - at));
    const known = at === 0 ? head.copy(part, 0, 0, came) : 0;
    await readInto(session, handle, { target: part.subarray(known), position: at + known, paced });
    parts.push(part);
  }
  return parts.length === 1 ? parts[0]! : Buffer.concat(parts);
}

/** Fills the target with what is in the file from `position` on. */
async function readInto(
  session: SftpSession,
  handle: SftpHandle,
  into: { target: Buffer; position: number; paced: Paced },
): Promise<void> {
  const { target, position, paced } = into;
  const size = session.readSize;
  await concurrently(Math.ceil(target.length / size), PIECES, async (index) => {
    const piece = target.subarray(index * size, (index + 1) * size);
    const came = await readPiece(session, handle, piece, position + index * size);
    await paced(came);
    if (came < piece.length) throw outside({ offset: position, length: target.length }, position + index * size + came);
  });
}

/** A server may give less than was asked for; only 0 bytes mean the end. */
async function readPiece(session: SftpSession, handle: SftpHandle, target: Buffer, position: number): Promise<number> {
  for (let done = 0; ;) {
    const came = done === target.length ? 0 : await session.read(handle, target.subarray(done), position + done);
    if (came === 0) return done;
    done += came;
  }
}

function outside(range: ByteRange, size?: number): CairnError {
  const wanted = `bytes ${range.offset} to ${range.offset + range.length} were wanted`;
  return new CairnError("damaged", size === undefined ? wanted : `the file has ${size} bytes; ${wanted}`);
}

/** Does nothing when what it is about is gone. */
export async function ifThere(work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (!(error instanceof CairnError) || error.code !== "not_found") throw error;
  }
}

/** Makes a folder; keeps one that is there. Throws `already_exists` where something else has its name. */
export async function makeFolder(session: SftpSession, path: string): Promise<void> {
  try {
    await session.makeDirectory(path);
  } catch (error) {
    const there = await session.statIfThere(path);
    if (there === null) throw error;
    if (!isDirectory(there))
      throw new CairnError("already_exists", `${path} exists and is not a folder`, { cause: error });
  }
}

/**
 * Gives the group what it is to have of a repository that it shares (sharing.ts), where the server's umask has taken it. One
 * that refuses, with whatever number, has its own way with modes.
 */
export async function openToGroup(session: SftpSession, path: string, mode: number): Promise<void> {
  try {
    await session.changeMode(path, mode);
  } catch (error) {
    if (statusOf(error) === undefined) throw error;
  }
}

/** Never replaces: `already_exists` for a name that is taken, which the server does not tell from other failures. */
export async function renameNew(session: SftpSession, temporary: string, path: string): Promise<void> {
  const taken = async (): Promise<boolean> => (await session.statIfThere(path)) !== null;
  // Some servers replace what is there.
  if (!(await taken())) {
    try {
      await session.rename(temporary, path);
      return;
    } catch (error) {
      if (statusOf(error) !== SFTP_STATUS.failure || !(await taken())) throw error;
    }
  }
  throw new CairnError("already_exists", "there is a repository here already");
}

/**
 * Replaces a file on a server that cannot do so at once: a file with the same bytes stays, so that it is never gone for
 * a moment; one with other bytes is damaged and is removed first.
 */
export async function renameWithout(
  session: SftpSession,
  temporary: string,
  to: { path: string; source: ByteSource },
): Promise<void> {
  if ((await session.statIfThere(to.path)) !== null) {
    if (await isSame(session, to.path, to.source)) {
      await session.remove(temporary);
      return;
    }
    await session.remove(to.path);
  }
  await session.rename(temporary, to.path);
}

async function isSame(session: SftpSession, path: string, source: ByteSource): Promise<boolean> {
  const handle = await session.open(path);
  try {
    if ((await session.size(handle)) !== source.size) return false;
    const there = await readWhole(session, handle, async () => undefined);
    return (await source.read(0, source.size)).equals(there);
  } finally {
    session.closeLater(handle);
  }
}

/** `damaged` when the server has lost what it had taken, e.g. because it went down in between. */
export async function flush(session: SftpSession, path: string, size: number): Promise<void> {
  if (!session.has(FSYNC)) return;
  const lost = (found: string): CairnError =>
    new CairnError(
      "damaged",
      `${path} was saved with ${size} bytes and ${found}: the server has lost data that it accepted`,
    );
  let handle: SftpHandle;
  try {
    handle = await session.open(path);
  } catch (error) {
    throw statusOf(error) === SFTP_STATUS.noSuchFile ? lost("is gone now") : error;
  }
  try {
    const [there] = await Promise.all([session.size(handle), session.sync(handle)]);
    if (there !== size) throw lost(`has ${there} now`);
  } finally {
    session.closeLater(handle);
  }
}
