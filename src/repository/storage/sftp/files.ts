import { CairnError } from "../../../errors.ts";
import { concurrently } from "../concurrently.ts";
import { FSYNC, isDirectory, type SftpHandle, type SftpSession } from "./session.ts";
import { SFTP_STATUS, statusOf } from "./wire.ts";
import type { ByteRange, SaveOptions } from "../storage.ts";

/** Operations that take several SFTP requests. */

/** Pieces of one file that are transferred at the same time. */
const PIECES = 32;
/** Memory for a range up to this long is reserved before the file's size is checked. */
const TRUSTED_LENGTH = 4 << 20;
/** Memory for a file up to this long is reserved at once; for a longer one piece by piece. */
const AT_ONCE = 64 << 20;
/** No file of a repository is larger. A larger size counts as damage. */
const LARGEST_FILE = 1 << 30;

/** The bytes of a file to save. */
export interface ByteSource {
  readonly size: number;
  read(position: number, length: number): Promise<Buffer>;
}

/** Called before bytes are sent and after they are received; delays the caller to keep a rate. */
export type Paced = (bytes: number) => Promise<void>;

export function sourceOf(bytes: Uint8Array): ByteSource {
  const whole = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  return { size: bytes.length, read: async (position, length) => whole.subarray(position, position + length) };
}

/** Writes the whole source from position 0. */
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

/** Returns the bytes of a range. Throws `damaged` if the file ends before. */
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

/** Returns all bytes of a file. Asks for its size and first piece at the same time. */
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

/** Fills `target` with the file's bytes from `position` on. */
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

/** Reads until `target` is full or the file ends: a server may return fewer bytes than requested. */
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

/** Runs `work` and ignores `not_found`. */
export async function ifThere(work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (!(error instanceof CairnError) || error.code !== "not_found") throw error;
  }
}

/** Makes a folder; keeps an existing one. Throws `already_exists` if another kind of file has its name. */
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
 * Gives the group its rights in a shared repository (sharing.ts), since the server's umask may have removed them.
 * Ignores a refusal of the server: it manages modes in its own way.
 */
export async function openToGroup(session: SftpSession, path: string, mode: number): Promise<void> {
  try {
    await session.changeMode(path, mode);
  } catch (error) {
    if (statusOf(error) === undefined) throw error;
  }
}

/** Renames without replacing. Throws `already_exists` if the name is taken, which the server's status does not tell. */
export async function renameNew(session: SftpSession, temporary: string, path: string): Promise<void> {
  const taken = async (): Promise<boolean> => (await session.statIfThere(path)) !== null;
  // Some servers replace an existing file.
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
 * Replaces a file on a server without atomic renames. An existing file with the same bytes stays, so that it never
 * disappears; an existing file with other bytes is damaged and is removed first.
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

/** Flushes a saved file. Throws `damaged` if the server has lost it, e.g. in a crash of the server. */
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
