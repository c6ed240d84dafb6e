import { hash } from "node:crypto";
import { lstatSync, rmSync } from "node:fs";
import { CairnError, type Hint } from "../errors.ts";
import { durableRemove, durableWrite, orderedWrite, readRecord } from "./durable.ts";

/** Encodes and decodes the records of one kind of work. */
export interface WorkCodec<T> {
  /** The way out for a damaged record, and for one of an earlier build without that build. */
  readonly otherwise: Hint;
  encode(work: T): Uint8Array;
  /** Throws `damaged`, `newer_version`, and `refused` for a record of an earlier release. */
  decode(bytes: Uint8Array): T;
  /** The error for a record that an earlier build wrote. */
  earlier(record: string): CairnError;
}

/** Description of one kind of work, for the page that tells what a kill leaves. */
export interface Told {
  readonly kind: string;
  /** Path of the record. */
  readonly where: string;
  /** In their order; the commit point begins with ●. */
  readonly steps: readonly string[];
  /** Answer of the next command to a kill before the commit point; null: nothing can be interrupted there. */
  readonly before: string | null;
  /** Answer of the next command to a kill behind the commit point; null: the work is done. */
  readonly after: string | null;
}

/** Writes and removes records in one of two ways. */
interface Carrier {
  write(path: string, bytes: Uint8Array): void;
  remove(path: string): unknown;
}

/** The record is on the disk before the work goes on. */
export const DURABLE: Carrier = { write: durableWrite, remove: durableRemove };

/** The record is durable with the next change in its file system, such as the exchange of two trees on btrfs. */
export const ORDERED: Carrier = { write: orderedWrite, remove: (path) => rmSync(path, { force: true }) };

interface UnfinishedOptions {
  /** Default: {@link DURABLE}. */
  carrier?: Carrier;
  /** Present if the work has steps. */
  decodeSteps?: (bytes: Uint8Array) => unknown;
  /** Path of the record that an earlier release wrote for the same work. */
  earlier?: string;
}

const MAX_RECORD_BYTES = 256 << 20;
const MAX_STEPS_BYTES = 4 * 2 ** 30 - 1;

/**
 * The record of work that a kill can interrupt: written before the work changes anything, removed after the work. The
 * kind of work decides if a record alone is finished or taken back; `docs/formats/unfinished-work.md` lists all kinds.
 */
export class Unfinished<T> {
  readonly path: string;
  /** Decisions of the work, which are too long for the record. Ignored without the record. */
  readonly steps: string;
  readonly #codec: WorkCodec<T>;
  readonly #options: UnfinishedOptions;

  /** `path`: of the record, ends in `.json`. */
  constructor(path: string, codec: WorkCodec<T>, options: UnfinishedOptions = {}) {
    this.path = path;
    this.steps = `${path.slice(0, -".json".length)}.steps`;
    this.#codec = codec;
    this.#options = options;
  }

  /** True if the work is under way, or was interrupted; cheap. */
  get isBegun(): boolean {
    return isThere(this.path);
  }

  /** True if the work is begun, also by an earlier release. */
  get isLeft(): boolean {
    return this.isBegun || this.#earlier !== undefined;
  }

  get #earlier(): string | undefined {
    const { earlier } = this.#options;
    return earlier !== undefined && isThere(earlier) ? earlier : undefined;
  }

  /** The paths of all files of the record that exist. Without the first one the others are ignored. */
  get files(): string[] {
    const { earlier } = this.#options;
    return [this.path, ...(earlier === undefined ? [] : [earlier]), this.steps].filter(isThere);
  }

  /** Writes the record. Replaces an earlier one of the same work, for example when more is known. */
  begin(work: T): void {
    durableRemove(this.steps);
    this.#carrier.write(this.path, withChecksum(this.#codec.encode(work)));
  }

  /** Writes the steps durably. Their presence beside the record is the commit point of such work. */
  commit(steps: Iterable<Uint8Array>): void {
    durableWrite(this.steps, steps);
  }

  /** Null if there is no record. Throws the errors of the codec with the path, and `damaged`. */
  read(): T | null {
    if (this.#earlier !== undefined) throw this.#codec.earlier(this.#earlier);
    return this.#read(this.path, (bytes) => decodeChecked(this.#codec, bytes), MAX_RECORD_BYTES);
  }

  /** Null if the work has no steps. */
  readSteps<S>(decode: (bytes: Uint8Array) => S): S | null {
    return this.#read(this.steps, decode, MAX_STEPS_BYTES);
  }

  /** Throws the errors of reading the record and its steps. */
  check(): void {
    const { decodeSteps } = this.#options;
    if (this.read() !== null && decodeSteps !== undefined) this.readSteps(decodeSteps);
  }

  /** True if the steps are written: the work is decided. */
  get hasSteps(): boolean {
    return isThere(this.steps);
  }

  #read<S>(path: string, decode: (bytes: Uint8Array) => S, maxBytes: number): S | null {
    return readRecord(path, decode, { maxBytes, hint: this.#codec.otherwise });
  }

  get #carrier(): Carrier {
    return this.#options.carrier ?? DURABLE;
  }

  /** Removes the record first: a record without its steps would mean that nothing is decided. */
  end(): void {
    this.#carrier.remove(this.path);
    // If a power cut keeps the steps, nothing refers to them.
    rmSync(this.steps, { force: true });
  }
}

function isThere(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false }) !== undefined;
}

/** Decodes the bytes of a record and compares its checksum. */
export function decodeChecked<T>(codec: Pick<WorkCodec<T>, "decode">, bytes: Uint8Array): T {
  const work = codec.decode(bytes);
  requireChecksum(bytes);
  return work;
}

const HEAD = ',"checksum":"';
const TAIL = '"}\n';
const LENGTH = HEAD.length + 64 + TAIL.length;

/** Adds a last member to a JSON object's bytes: the SHA-256 of all bytes before it, so that a flipped bit is found. */
export function withChecksum(bytes: Uint8Array): Uint8Array {
  const body = Buffer.from(bytes.subarray(0, bytes.length - 2));
  return Buffer.concat([body, Buffer.from(`${HEAD}${hash("sha256", body, "hex")}${TAIL}`)]);
}

/** Throws `damaged` unless the bytes end with the checksum of all bytes before it. */
export function requireChecksum(bytes: Uint8Array): void {
  const length = Math.max(bytes.length - LENGTH, 0);
  const found = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("latin1", length);
  if (found !== `${HEAD}${hash("sha256", bytes.subarray(0, length), "hex")}${TAIL}`)
    throw new CairnError("damaged", "its checksum does not match its content");
}
