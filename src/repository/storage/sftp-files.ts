import { CairnError } from "../../errors.ts";
import { FSYNC, SFTP_STATUS, type SftpHandle, type SftpSession, statusOf } from "./sftp-session.ts";
import { type ByteSource, readRange } from "./sftp-transfer.ts";

/** What SFTP has no single call for. */

/** Does nothing when what it is about is gone. */
export async function ifThere(work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (!(error instanceof CairnError) || error.code !== "not_found") throw error;
  }
}

/** One that is there already is kept; `already_exists` for what is no folder. */
export async function makeFolder(session: SftpSession, path: string): Promise<void> {
  try {
    await session.makeDirectory(path);
  } catch (error) {
    const there = await session.statIfThere(path);
    if (there === null) throw error;
    if (!there.isDirectory())
      throw new CairnError("already_exists", `${path} is there and is no folder`, { cause: error });
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
 * For servers that cannot replace a file: one that is there with the same bytes stays, so that it is never gone for a
 * moment; one with other bytes is damaged and nobody's loss.
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
  const handle = await session.open(path, "r");
  try {
    if ((await session.size(handle)) !== source.size) return false;
    const paced = async (): Promise<void> => undefined;
    for (let offset = 0; offset < source.size; offset += 1 << 20) {
      const range = { offset, length: Math.min(1 << 20, source.size - offset) };
      const there = await readRange(session, handle, { range, paced });
      if (!(await source.read(offset, range.length)).equals(there)) return false;
    }
    return true;
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
      `${path} was saved with ${size} bytes and ${found}: the server has lost what it had taken`,
    );
  let handle: SftpHandle;
  try {
    handle = await session.open(path, "r");
  } catch (error) {
    throw statusOf(error) === SFTP_STATUS.noSuchFile ? lost("is not there any more") : error;
  }
  try {
    const [there] = await Promise.all([session.size(handle), session.sync(handle)]);
    if (there !== size) throw lost(`has ${there}`);
  } finally {
    session.closeLater(handle);
  }
}
