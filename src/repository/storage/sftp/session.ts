import { CairnError, throwIfAborted } from "../../../errors.ts";
import { Slots } from "../limited.ts";
import {
  ANSWER,
  type AnswerReader,
  type Field,
  REQUEST,
  SFTP_STATUS,
  SftpWire,
  type SftpWireOptions,
  statusOf,
  type Wanted,
} from "./wire.ts";
import type { SshTarget } from "./ssh.ts";

export const FSYNC = "fsync@openssh.com";
export const POSIX_RENAME = "posix-rename@openssh.com";
const STATVFS = "statvfs@openssh.com";
const LIMITS = "limits@openssh.com";

/** Flags of opened files: for reading; for creating a new file. */
const TO_READ = 0x01;
const TO_WRITE_NEW = 0x02 | 0x08 | 0x20;

/** Bytes of one read or write: 128 KiB if the server states that it allows 128 KiB; 32 KiB work with every server. */
const CHUNK = 128 * 1024;
const LEAST_CHUNK = 32 * 1024;
/** Concurrent reads and writes in one session: twice OpenSSH's window. */
const TRANSFERS_IN_FLIGHT = 32;
/** Concurrent requests without content. */
const REQUESTS_IN_FLIGHT = 128;

export type SftpHandle = Buffer;

/** The attributes of a file; undefined if the server omits one. */
export interface SftpFacts {
  readonly size: number | undefined;
  /** File type and permissions. */
  readonly mode: number | undefined;
  /** Seconds since 1970. */
  readonly mtime: number | undefined;
}

export function isFile(facts: SftpFacts | null): facts is SftpFacts {
  return ((facts?.mode ?? 0) & 0o170000) === 0o100000;
}

export function isDirectory(facts: SftpFacts | null): boolean {
  return ((facts?.mode ?? 0) & 0o170000) === 0o040000;
}

export interface SftpEntry {
  readonly name: string;
  readonly facts: SftpFacts;
}

const DONE: Wanted<void> = { type: ANSWER.status, read: () => undefined };
const HANDLE: Wanted<SftpHandle> = { type: ANSWER.handle, read: (answer) => Buffer.from(answer.bytes()) };
const FACTS: Wanted<SftpFacts> = { type: ANSWER.attrs, read: readFacts };
const ENTRIES: Wanted<SftpEntry[]> = {
  type: ANSWER.name,
  read: (answer) => {
    const found: SftpEntry[] = [];
    for (let left = answer.u32(); left > 0; left--) {
      const name = answer.bytes().toString();
      // A line like that of `ls -l`.
      answer.bytes();
      const facts = readFacts(answer);
      if (name !== "." && name !== "..") found.push({ name, facts });
    }
    return found;
  },
};

/** Flags of attributes. New files and folders are sent with a mode only. */
const WITH_SIZE = 1;
const WITH_OWNER = 2;
const WITH_MODE = 4;
const WITH_TIMES = 8;
const WITH_MORE = 0x8000_0000;

function readFacts(answer: AnswerReader): SftpFacts {
  const flags = answer.u32();
  const has = (flag: number): boolean => (flags & flag) !== 0;
  const size = has(WITH_SIZE) ? answer.u64() : undefined;
  if (has(WITH_OWNER)) answer.u64();
  const mode = has(WITH_MODE) ? answer.u32() : undefined;
  if (has(WITH_TIMES)) answer.u32();
  const mtime = has(WITH_TIMES) ? answer.u32() : undefined;
  for (let left = has(WITH_MORE) ? 2 * answer.u32() : 0; left > 0; left--) answer.bytes();
  return { size, mode, mtime };
}

interface Shared {
  readonly wire: SftpWire;
  readonly extensions: ReadonlySet<string>;
  readonly transfers: Slots;
  readonly requests: Slots;
  /** Bytes of one read or write. */
  readonly sizes: { read: number; write: number };
}

/** An SFTP session with a limited number of concurrent requests. The server answers one after the other. */
export class SftpSession {
  readonly #shared: Shared;
  readonly #signal: AbortSignal | undefined;

  private constructor(shared: Shared, signal?: AbortSignal) {
    this.#shared = shared;
    this.#signal = signal;
  }

  /**
   * Starts `ssh`. Throws `refused` for an unknown or changed host key, `permission` if the server rejects the user,
   * `unsupported` without SFTP on the server or `ssh` here, `io` for temporary errors, `interrupted` if the signal
   * fires.
   */
  static async open(target: SshTarget, options: SftpWireOptions = {}): Promise<SftpSession> {
    const sizes = { read: LEAST_CHUNK, write: LEAST_CHUNK };
    const slots = { transfers: new Slots(TRANSFERS_IN_FLIGHT), requests: new Slots(REQUESTS_IN_FLIGHT) };
    const session = new SftpSession({ ...(await SftpWire.open(target, options)), ...slots, sizes });
    if (session.has(LIMITS)) await session.#askLimits();
    return session;
  }

  async #askLimits(): Promise<void> {
    const within = (limit: number): number => (limit === 0 ? LEAST_CHUNK : Math.min(CHUNK, limit));
    const read = (answer: AnswerReader): number[] => [answer.u64(), answer.u64(), answer.u64()];
    const [, reads, writes] = await this.#ask("ask for limits", [REQUEST.extended, LIMITS], {
      type: ANSWER.extended,
      read,
    });
    Object.assign(this.#shared.sizes, { read: within(reads!), write: within(writes!) });
  }

  /** Returns this session for a caller with a signal: after an abort the caller's next request is `interrupted`. */
  until(signal: AbortSignal | undefined): SftpSession {
    return new SftpSession(this.#shared, signal);
  }

  /** Null while the session works. */
  get failure(): CairnError | null {
    return this.#shared.wire.failure;
  }

  get readSize(): number {
    return this.#shared.sizes.read;
  }

  get writeSize(): number {
    return this.#shared.sizes.write;
  }

  /** True if the server has an extension, e.g. `fsync@openssh.com`. */
  has(extension: string): boolean {
    return this.#shared.extensions.has(extension);
  }

  /** Ends the session. Requests without an answer fail. */
  end(): void {
    this.#shared.wire.close();
  }

  async open(path: string): Promise<SftpHandle> {
    return this.#ask(`open ${path}`, [REQUEST.open, path, TO_READ, 0], HANDLE);
  }

  /** Creates a file for writing. Fails if it exists. */
  async create(path: string, mode = 0o600): Promise<SftpHandle> {
    return this.#ask(`open ${path}`, [REQUEST.open, path, TO_WRITE_NEW, WITH_MODE, mode], HANDLE);
  }

  async close(handle: SftpHandle): Promise<void> {
    await this.#ask("close a file", [REQUEST.close, handle], DONE);
  }

  /** Reads at most `readSize` bytes into the target. Returns the number read, 0 at the end of the file. */
  async read(handle: SftpHandle, target: Buffer, position: number): Promise<number> {
    const read = (answer: AnswerReader): number => {
      const bytes = answer.bytes();
      if (bytes.length === 0 || bytes.length > target.length) throw new RangeError("not what was asked for");
      return bytes.copy(target);
    };
    const request = [REQUEST.read, handle, BigInt(position), target.length] as const;
    try {
      return await this.#ask("read", request, { type: ANSWER.data, read }, this.#shared.transfers);
    } catch (error) {
      if (statusOf(error) === SFTP_STATUS.endOfFile) return 0;
      throw error;
    }
  }

  /** Writes at most `writeSize` bytes. */
  async write(handle: SftpHandle, bytes: Buffer, position: number): Promise<void> {
    await this.#ask("write", [REQUEST.write, handle, BigInt(position), bytes], DONE, this.#shared.transfers);
  }

  async sync(handle: SftpHandle): Promise<void> {
    await this.#ask("flush a file", [REQUEST.extended, FSYNC, handle], DONE);
  }

  async stat(path: string): Promise<SftpFacts> {
    return this.#ask(`look at ${path}`, [REQUEST.stat, path], FACTS);
  }

  /** Returns null if the file does not exist. */
  async statIfThere(path: string): Promise<SftpFacts | null> {
    try {
      return await this.stat(path);
    } catch (error) {
      if (error instanceof CairnError && error.code === "not_found") return null;
      throw error;
    }
  }

  /** Returns the size of an open file in bytes. */
  async size(handle: SftpHandle): Promise<number> {
    const read = (answer: AnswerReader): number => {
      const { size } = readFacts(answer);
      if (size === undefined || !Number.isSafeInteger(size)) throw new RangeError("no size of a file");
      return size;
    };
    return this.#ask("look at a file", [REQUEST.fstat, handle], { type: ANSWER.attrs, read });
  }

  async makeDirectory(path: string): Promise<void> {
    await this.#ask(`make the folder ${path}`, [REQUEST.mkdir, path, WITH_MODE, 0o700], DONE);
  }

  /** Sets the permission bits of a file. The mode at its creation is reduced by the server's umask; this one is not. */
  async changeMode(path: string, mode: number): Promise<void> {
    await this.#ask(`change the mode of ${path}`, [REQUEST.setstat, path, WITH_MODE, mode], DONE);
  }

  async remove(path: string): Promise<void> {
    await this.#ask(`remove ${path}`, [REQUEST.remove, path], DONE);
  }

  /** Fails if `to` exists. On OpenSSH's server this holds even for two renames at once. */
  async rename(from: string, to: string): Promise<void> {
    await this.#ask(`rename to ${to}`, [REQUEST.rename, from, to], DONE);
  }

  /** Renames atomically; replaces an existing file. */
  async renameOver(from: string, to: string): Promise<void> {
    await this.#ask(`rename to ${to}`, [REQUEST.extended, POSIX_RENAME, from, to], DONE);
  }

  /** Lists a folder without `.` and `..`. Describes links, not their targets. */
  async list(path: string): Promise<SftpEntry[]> {
    const handle = await this.#ask(`list ${path}`, [REQUEST.opendir, path], HANDLE);
    const found: SftpEntry[] = [];
    const read = (): Promise<SftpEntry[]> => this.#ask(`list ${path}`, [REQUEST.readdir, handle], ENTRIES);
    try {
      for (let isOver = false; !isOver;) {
        // The end has an answer of its own. Most folders fit into one answer, so the request after it is sent at once.
        for (const part of await Promise.allSettled([read(), read()])) {
          if (part.status === "fulfilled") for (const entry of part.value) found.push(entry);
          else if (statusOf(part.reason) === SFTP_STATUS.endOfFile) isOver = true;
          else throw part.reason;
        }
      }
    } finally {
      this.closeLater(handle);
    }
    return found;
  }

  /**
   * Closes a file without waiting, and regardless of the signal: the bytes were read, and a lost connection closes all
   * files.
   */
  closeLater(handle: SftpHandle): void {
    this.until(undefined)
      .close(handle)
      .catch(() => undefined);
  }

  /** Returns the free bytes for this user, and whether the file system is read-only; null if the server cannot tell. */
  async room(path: string): Promise<{ free: number; readOnly: boolean } | null> {
    if (!this.has(STATVFS)) return null;
    const read = (answer: AnswerReader): { free: number; readOnly: boolean } => {
      const facts = Array.from({ length: 11 }, () => answer.u64());
      // f_frsize, f_bavail, f_flag.
      return { free: facts[1]! * facts[4]!, readOnly: (facts[9]! & 1) !== 0 };
    };
    try {
      return await this.#ask("look for room", [REQUEST.extended, STATVFS, path], { type: ANSWER.extended, read });
    } catch {
      return null;
    }
  }

  #ask<T>(
    doing: string,
    request: readonly [number, ...Field[]],
    wanted: Wanted<T>,
    slots = this.#shared.requests,
  ): Promise<T> {
    return slots.run(async () => {
      throwIfAborted(this.#signal);
      return this.#shared.wire.ask(doing, request, wanted);
    });
  }
}
