import { CairnError, throwIfAborted, type ErrorCode } from "../../../errors.ts";
import { SshProcess, type SshTarget } from "./ssh.ts";

/** Packets of SFTP version 3 (draft-ietf-secsh-filexfer-02) over the pipes of one `ssh`. */

/** Types of requests. INIT and EXTENDED begin with other fields than the rest. */
export const REQUEST = {
  init: 1,
  open: 3,
  close: 4,
  read: 5,
  write: 6,
  fstat: 8,
  setstat: 9,
  opendir: 11,
  readdir: 12,
  remove: 13,
  mkdir: 14,
  stat: 17,
  rename: 18,
  extended: 200,
} as const;

export const ANSWER = {
  version: 2,
  status: 101,
  handle: 102,
  data: 103,
  name: 104,
  attrs: 105,
  extended: 201,
} as const;

/** Codes of a status answer. */
export const SFTP_STATUS = { ok: 0, endOfFile: 1, noSuchFile: 2, permissionDenied: 3, failure: 4 } as const;

/**
 * SFTP has no code for other errors, e.g. a full disk or an existing file: they arrive as a plain failure, which is
 * `io`.
 */
const CODE_OF_STATUS: Readonly<Record<number, ErrorCode>> = { 2: "not_found", 3: "permission", 8: "unsupported" };

const VERSION = 3;
/** OpenSSH's limit for a packet. */
const LONGEST_PACKET = 256 * 1024;
const CONNECT_MS = 30_000;
/** Longer, since a person may have to look up a password; servers wait as long by default. */
const ASKING_MS = 120_000;
const SILENCE_MS = 120_000;

export interface SftpWireOptions {
  /** Ends the session with `interrupted` when it fires, also later. */
  readonly signal?: AbortSignal | undefined;
  /** True: `ssh` may ask at the terminal. Default false. */
  readonly mayAsk?: boolean | undefined;
  /** Milliseconds to open the session. Default 30 s, or 2 minutes if `ssh` may ask. */
  readonly connectTimeoutMs?: number | undefined;
  /** Milliseconds without any answer after which the session counts as lost. Default 2 minutes. */
  readonly silenceMs?: number | undefined;
}

/** A field of a request. Bytes and UTF-8 texts are sent with their length, numbers as 4 bytes, bigints as 8. */
export type Field = string | Uint8Array | number | bigint;

/** Reads the fields of an answer. Throws if the answer ends too early. */
export class AnswerReader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get isAtEnd(): boolean {
    return this.#at === this.#bytes.length;
  }

  u32(): number {
    this.#at += 4;
    return this.#bytes.readUInt32BE(this.#at - 4);
  }

  u64(): number {
    this.#at += 8;
    return Number(this.#bytes.readBigUInt64BE(this.#at - 8));
  }

  /** Returns a view that is valid until the reading function returns. */
  bytes(): Buffer {
    const length = this.u32();
    if (length > this.#bytes.length - this.#at) throw new RangeError("it ends before");
    this.#at += length;
    return this.#bytes.subarray(this.#at - length, this.#at);
  }
}

/** The expected type of an answer, and a function that reads its fields. */
export interface Wanted<T> {
  readonly type: number;
  readonly read: (answer: AnswerReader) => T;
}

interface Waiting {
  readonly doing: string;
  readonly wanted: Wanted<unknown>;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: CairnError) => void;
}

/**
 * One `ssh` and its SFTP session. When the connection is lost, all waiting calls fail with a retryable error, and a new
 * session must be opened. Keeps this process alive only while an answer is awaited.
 */
export class SftpWire {
  readonly #name: string;
  readonly #silenceMs: number;
  readonly #ssh: SshProcess;
  readonly #waiting = new Map<number, Waiting>();
  /** Names of the server's extensions, once the server has sent its version. */
  readonly #version = Promise.withResolvers<ReadonlySet<string>>();
  #isOpen = false;
  #failure: CairnError | null = null;
  #silence: NodeJS.Timeout | null = null;
  #lastId = 0;
  /** The incoming packet with its length field, and the number of bytes received so far. */
  readonly #packet = Buffer.allocUnsafeSlow(4 + LONGEST_PACKET);
  #filled = 0;

  private constructor(target: SshTarget, { mayAsk = false, silenceMs = SILENCE_MS }: SftpWireOptions) {
    this.#name = target.host;
    this.#silenceMs = silenceMs;
    const reader = { data: (chunk: Buffer) => this.#take(chunk), end: (error: CairnError) => this.#ended(error) };
    this.#ssh = new SshProcess(target, reader, { mayAsk });
  }

  /** Opens a session. Also returns the names of the server's extensions. */
  static async open(
    target: SshTarget,
    options: SftpWireOptions,
  ): Promise<{ wire: SftpWire; extensions: ReadonlySet<string> }> {
    const { signal, mayAsk = false, connectTimeoutMs = mayAsk ? ASKING_MS : CONNECT_MS } = options;
    throwIfAborted(signal);
    const wire = new SftpWire(target, options);
    signal?.addEventListener("abort", () => wire.#fail("stopped by the caller", "interrupted"), { once: true });
    const seconds = Math.round(connectTimeoutMs / 1000);
    const timer = setTimeout(
      () => wire.#fail(`${target.host} gave no SFTP session within ${seconds} s`),
      connectTimeoutMs,
    );
    try {
      wire.#ssh.ref();
      wire.#send(REQUEST.init, [VERSION]);
      return { wire, extensions: await wire.#version.promise };
    } finally {
      clearTimeout(timer);
      wire.#ssh.unref();
    }
  }

  /** Null while the session works. */
  get failure(): CairnError | null {
    return this.#failure;
  }

  /**
   * Sends a request and waits for its answer. Fails if the session is lost, or if the server is silent for too long.
   */
  ask<T>(doing: string, [type, ...fields]: readonly [number, ...Field[]], wanted: Wanted<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      if (this.#failure !== null) {
        reject(this.#failure);
        return;
      }
      const id = (this.#lastId = (this.#lastId + 1) >>> 0);
      this.#waiting.set(id, { doing, wanted, resolve: resolve as (value: unknown) => void, reject });
      if (this.#waiting.size === 1) {
        this.#ssh.ref();
        const seconds = Math.round(this.#silenceMs / 1000);
        this.#silence = setTimeout(
          () => this.#fail(`${this.#name} has not answered for ${seconds} s`),
          this.#silenceMs,
        );
      }
      this.#send(type, [id, ...fields]);
    });
  }

  /** Ends the session. Requests without an answer fail. */
  close(): void {
    if (this.#break(new CairnError("io", `the connection to ${this.#name} was closed`))) this.#ssh.close();
  }

  #fail(message: string, code: ErrorCode = "io", hint?: string): void {
    if (this.#break(new CairnError(code, message, hint === undefined ? {} : { hint }))) this.#ssh.kill();
  }

  /** Ends the session with an error. If the session was open, the error counts as temporary. */
  #ended(error: CairnError): void {
    this.#break(this.#isOpen ? new CairnError("io", error.message, { cause: error }) : error);
  }

  /** Returns false if the session has already ended. */
  #break(failure: CairnError): boolean {
    if (this.#failure !== null) return false;
    this.#failure = failure;
    this.#version.reject(failure);
    if (this.#silence !== null) clearTimeout(this.#silence);
    for (const { reject } of this.#waiting.values()) reject(failure);
    this.#waiting.clear();
    this.#ssh.unref();
    return true;
  }

  #send(type: number, fields: readonly Field[]): void {
    const sizes = fields.map((field) => {
      if (typeof field === "number") return 4;
      if (typeof field === "bigint") return 8;
      return 4 + (typeof field === "string" ? Buffer.byteLength(field) : field.length);
    });
    const packet = Buffer.allocUnsafe(5 + sizes.reduce((sum, size) => sum + size, 0));
    packet.writeUInt32BE(packet.length - 4, 0);
    packet.writeUInt8(type, 4);
    let at = 5;
    for (const [index, field] of fields.entries()) {
      const size = sizes[index]!;
      if (typeof field === "bigint") packet.writeBigUInt64BE(field, at);
      else packet.writeUInt32BE(typeof field === "number" ? field : size - 4, at);
      if (typeof field === "string") packet.write(field, at + 4);
      else if (typeof field === "object") packet.set(field, at + 4);
      at += size;
    }
    this.#ssh.write(packet);
  }

  /** Collects received bytes and reads each complete packet. */
  #take(chunk: Buffer): void {
    for (let at = 0; at < chunk.length && this.#failure === null;) {
      const wanted = this.#filled < 4 ? 4 : 4 + this.#packet.readUInt32BE(0);
      const came = chunk.copy(this.#packet, this.#filled, at, at + wanted - this.#filled);
      at += came;
      this.#filled += came;
      if (this.#filled < wanted) return;
      if (wanted > 4) {
        this.#filled = 0;
        this.#read(this.#packet.subarray(4, wanted));
      } else if (this.#packet.readUInt32BE(0) > LONGEST_PACKET || this.#packet.readUInt32BE(0) < 5) {
        this.#failFormat();
      }
    }
  }

  #failFormat(): void {
    if (this.#isOpen) return this.#fail("the server's answer does not fit the request");
    const hint = "the user's shell on the server must print nothing if it has no terminal";
    this.#fail(`the answer of ${this.#name} is not SFTP`, "unsupported", hint);
  }

  #read(packet: Buffer): void {
    const type = packet.readUInt8(0);
    const answer = new AnswerReader(packet.subarray(1));
    if (!this.#isOpen) return this.#readVersion(type, answer);
    const id = answer.u32();
    const waiting = this.#waiting.get(id);
    if (waiting === undefined) return this.#failFormat();
    const { doing, wanted, resolve, reject } = waiting;
    try {
      const status = type === ANSWER.status ? answer.u32() : SFTP_STATUS.ok;
      if (status !== SFTP_STATUS.ok) reject(statusError(doing, status, answer));
      else if (type === wanted.type) resolve(wanted.read(answer));
      else return this.#failFormat();
    } catch {
      // The bytes after an invalid answer cannot be trusted either.
      return this.#failFormat();
    }
    this.#waiting.delete(id);
    if (this.#waiting.size > 0) {
      this.#silence?.refresh();
      return;
    }
    if (this.#silence !== null) clearTimeout(this.#silence);
    this.#ssh.unref();
  }

  #readVersion(type: number, answer: AnswerReader): void {
    const extensions = new Set<string>();
    try {
      if (type !== ANSWER.version || answer.u32() < VERSION) return this.#failFormat();
      while (!answer.isAtEnd) {
        extensions.add(answer.bytes().toString());
        answer.bytes();
      }
    } catch {
      return this.#failFormat();
    }
    this.#isOpen = true;
    this.#version.resolve(extensions);
  }
}

function statusError(doing: string, status: number, answer: AnswerReader): CairnError {
  // Some servers omit the message.
  const message = answer.isAtEnd ? `status ${status}` : answer.bytes().toString();
  return new CairnError(CODE_OF_STATUS[status] ?? "io", `cannot ${doing}: ${message}`, {
    details: { sftpStatus: status },
  });
}

/** Returns the status code of the server's answer; undefined for other errors. */
export function statusOf(error: unknown): number | undefined {
  const status = error instanceof CairnError ? error.details?.["sftpStatus"] : undefined;
  return typeof status === "number" ? status : undefined;
}
