import type { Stats, SFTPWrapper, FileEntryWithStats } from "ssh2";
import { CairnError, throwIfAborted, type ErrorCode } from "../../errors.ts";
import { Slots } from "./limited.ts";
import type { SshConnection } from "./ssh-connection.ts";

/** Answers of a server, by their numbers in the protocol's version 3. */
export const SFTP_STATUS = { endOfFile: 1, noSuchFile: 2, permissionDenied: 3, failure: 4, unsupported: 8 } as const;

export const FSYNC = "fsync@openssh.com";
export const POSIX_RENAME = "posix-rename@openssh.com";

/** Everything that the protocol has no number for (disk full, exists already, …) is a plain failure, which may pass. */
const CODE_OF_STATUS: Readonly<Record<number, ErrorCode>> = { 2: "not_found", 3: "permission", 8: "unsupported" };

/** Read or written by one request. Servers take less: 32 KiB are promised by all, OpenSSH takes 255. */
const CHUNK = 128 * 1024;
const LEAST_CHUNK = 32 * 1024;
/** Chunks under way in one channel: twice the window that OpenSSH gives one. */
const TRANSFERS_IN_FLIGHT = 32;
/** Requests without content. */
const REQUESTS_IN_FLIGHT = 128;

type Done<T> = (error: Error | null | undefined, value?: T) => void;

/** What the library knows of a server and has no name for in its types. */
interface Limits {
  _maxReadLen?: number;
  _maxWriteLen?: number;
  _extensions?: Record<string, string>;
}

export type SftpHandle = Buffer;

/** What is shared by all who work in a channel. */
interface Channel {
  readonly connection: SshConnection;
  readonly sftp: SFTPWrapper;
  readonly transfers: Slots;
  readonly requests: Slots;
}

/** One SFTP channel, with a bounded number of requests in flight. The server answers one after the other. */
export class SftpSession {
  readonly #channel: Channel;
  readonly #connection: SshConnection;
  readonly #sftp: SFTPWrapper;
  readonly #signal: AbortSignal | undefined;
  /** Bytes of one request. */
  readonly readSize: number;
  readonly writeSize: number;

  private constructor(channel: Channel, signal?: AbortSignal) {
    this.#channel = channel;
    this.#connection = channel.connection;
    this.#sftp = channel.sftp;
    this.#signal = signal;
    const limits = channel.sftp as unknown as Limits;
    this.readSize = Math.min(CHUNK, limits._maxReadLen ?? LEAST_CHUNK);
    this.writeSize = Math.min(CHUNK, limits._maxWriteLen ?? LEAST_CHUNK);
  }

  static async open(connection: SshConnection): Promise<SftpSession> {
    try {
      const sftp = await connection.openSftp();
      // A channel that the server closed would take requests and never answer them.
      const ended = (): void => connection.fail("the server ended the SFTP session");
      sftp.on("end", ended).on("close", ended);
      sftp.on("error", (error: Error) => connection.fail(`the SFTP session failed: ${error.message}`, error));
      const [transfers, requests] = [new Slots(TRANSFERS_IN_FLIGHT), new Slots(REQUESTS_IN_FLIGHT)];
      return new SftpSession({ connection, sftp, transfers, requests });
    } catch (error) {
      if (error instanceof CairnError) throw error;
      const message = `the server gives no SFTP session: ${(error as Error).message}`;
      throw (
        connection.failure ??
        new CairnError("unsupported", message, {
          hint: "its configuration needs a Subsystem sftp, and the user's shell must print nothing by itself",
          cause: error,
        })
      );
    }
  }

  /** The same channel for who sends nothing more once the signal fires: then that is `interrupted`. Without one nothing ends it. */
  until(signal: AbortSignal | undefined): SftpSession {
    return new SftpSession(this.#channel, signal);
  }

  /** True when the server has an extension, e.g. `fsync@openssh.com`. */
  has(extension: string): boolean {
    return (this.#sftp as unknown as Limits)._extensions?.[extension] !== undefined;
  }

  /** `flags` as those of `open` in node:fs: `r`, `r+`, `wx`. */
  async open(path: string, flags: "r" | "r+" | "wx", mode = 0o600): Promise<SftpHandle> {
    const attributes = flags === "wx" ? { mode } : {};
    const handle = await this.#ask<Buffer>(`open ${path}`, (done) => this.#sftp.open(path, flags, attributes, done));
    return this.#checked(Buffer.isBuffer(handle), handle);
  }

  async close(handle: SftpHandle): Promise<void> {
    await this.#ask("close a file", (done) => this.#sftp.close(handle, done));
  }

  /** At most `readSize` bytes into `target` at `at`; how many came, 0 at the end of the file. */
  async read(
    handle: SftpHandle,
    target: Buffer,
    range: { at: number; length: number; position: number },
  ): Promise<number> {
    const { at, length, position } = range;
    const send = (done: Done<number>): void => this.#sftp.read(handle, target, at, length, position, done);
    const count = await this.#ask("read", send, this.#channel.transfers);
    return this.#checked(Number.isInteger(count) && count >= 0 && count <= length, count);
  }

  /** At most `writeSize` bytes. */
  async write(handle: SftpHandle, bytes: Buffer, position: number): Promise<void> {
    const send = (done: Done<void>): void => this.#sftp.write(handle, bytes, 0, bytes.length, position, done);
    await this.#ask("write", send, this.#channel.transfers);
  }

  async sync(handle: SftpHandle): Promise<void> {
    await this.#ask("flush a file", (done) => this.#sftp.ext_openssh_fsync(handle, done));
  }

  async stat(path: string): Promise<Stats> {
    return this.#stats(await this.#ask<Stats>(`look at ${path}`, (done) => this.#sftp.stat(path, done)));
  }

  /** Of an open file; bytes. */
  async size(handle: SftpHandle): Promise<number> {
    return this.#stats(await this.#ask<Stats>("look at a file", (done) => this.#sftp.fstat(handle, done))).size;
  }

  /** Null when nothing is there. */
  async statIfThere(path: string): Promise<Stats | null> {
    try {
      return await this.stat(path);
    } catch (error) {
      if (error instanceof CairnError && error.code === "not_found") return null;
      throw error;
    }
  }

  async makeDirectory(path: string): Promise<void> {
    await this.#ask(`make the folder ${path}`, (done) => this.#sftp.mkdir(path, { mode: 0o700 }, done));
  }

  /** The permission bits of what is there, whatever the server takes from those that it is made with. */
  async changeMode(path: string, mode: number): Promise<void> {
    await this.#ask(`change the mode of ${path}`, (done) => this.#sftp.chmod(path, mode, done));
  }

  async remove(path: string): Promise<void> {
    await this.#ask(`remove ${path}`, (done) => this.#sftp.unlink(path, done));
  }

  /** Fails when `to` exists; by OpenSSH's server also when two try it at once. */
  async rename(from: string, to: string): Promise<void> {
    await this.#ask(`rename to ${to}`, (done) => this.#sftp.rename(from, to, done));
  }

  /** Replaces what is at `to`, at once. */
  async renameOver(from: string, to: string): Promise<void> {
    await this.#ask(`rename to ${to}`, (done) => this.#sftp.ext_openssh_rename(from, to, done));
  }

  /** Entries of a folder without `.` and `..`; of links, the links themselves. */
  async list(path: string): Promise<FileEntryWithStats[]> {
    const handle = await this.#ask<Buffer>(`list ${path}`, (done) => this.#sftp.opendir(path, done));
    const found: FileEntryWithStats[] = [];
    const read = (): Promise<FileEntryWithStats[]> =>
      this.#ask(`list ${path}`, (done) => this.#sftp.readdir(handle, done));
    try {
      for (let isOver = false; !isOver;) {
        // The end is an answer of its own; most folders are told whole by the first.
        for (const part of await Promise.allSettled([read(), read()])) {
          if (part.status === "fulfilled") {
            for (const entry of this.#checked(Array.isArray(part.value), part.value)) found.push(entry);
          } else if (statusOf(part.reason) === SFTP_STATUS.endOfFile) isOver = true;
          else throw part.reason;
        }
      }
    } finally {
      this.closeLater(handle);
    }
    return found;
  }

  /** Nobody waits for it, nor does a signal end it: what was read is read, and a connection that breaks closes everything. */
  closeLater(handle: SftpHandle): void {
    this.until(undefined)
      .close(handle)
      .catch(() => undefined);
  }

  /** Free bytes for this user, and whether nothing can be written; null where the server cannot tell. */
  async room(path: string): Promise<{ free: number; readOnly: boolean } | null> {
    if (!this.has("statvfs@openssh.com")) return null;
    try {
      const facts = await this.#ask<Record<string, number>>("look for room", (done) =>
        this.#sftp.ext_openssh_statvfs(path, done as Done<unknown>),
      );
      const [block, blocks, flags] = [facts["f_frsize"], facts["f_bavail"], facts["f_flag"]];
      if (block === undefined || blocks === undefined || flags === undefined) return null;
      return { free: Number(block) * Number(blocks), readOnly: (Number(flags) & 1) !== 0 };
    } catch {
      return null;
    }
  }

  async #ask<T>(doing: string, send: (done: Done<T>) => void, slots = this.#channel.requests): Promise<T> {
    try {
      return await slots.run(async () => {
        throwIfAborted(this.#signal);
        return this.#connection.ask<T>(doing, send);
      });
    } catch (error) {
      if (error instanceof CairnError) throw error;
      const status = (error as { code?: unknown }).code;
      if (typeof status !== "number") throw this.#connection.failure ?? sftpError("io", doing, error);
      throw sftpError(CODE_OF_STATUS[status] ?? "io", doing, error, status);
    }
  }

  #stats(stats: Stats | undefined): Stats {
    return this.#checked(stats !== undefined && Number.isSafeInteger(stats.size) && stats.size >= 0, stats!);
  }

  /** An answer of another kind than asked for ends the session: what comes next cannot be trusted either. */
  #checked<T>(isRight: boolean, value: T): T {
    if (isRight) return value;
    this.#connection.fail("the server's answer is not one to what was asked");
    throw this.#connection.failure!;
  }
}

function sftpError(code: ErrorCode, doing: string, error: unknown, sftpStatus?: number): CairnError {
  return new CairnError(code, `cannot ${doing}: ${(error as Error).message}`, {
    cause: error,
    ...(sftpStatus === undefined ? {} : { details: { sftpStatus } }),
  });
}

/** The number in the server's answer; undefined for other errors. */
export function statusOf(error: unknown): number | undefined {
  const status = error instanceof CairnError ? error.details?.["sftpStatus"] : undefined;
  return typeof status === "number" ? status : undefined;
}
