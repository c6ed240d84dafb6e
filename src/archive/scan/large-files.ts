import { Sha256Stream } from "../../crypto/hash.ts";
import { hashAt } from "../../crypto/primitives.ts";
import { DATABASE_BLOB_BYTES } from "../../formats/payloads/sqlite-pages.ts";
import { ENXIO } from "../../fs/linux/errno.ts";
import { fetchPages } from "../../fs/linux/flush.ts";
import type { Syscalls } from "../../fs/linux/syscalls.ts";
import { type Arena, arenaOver, newArena } from "../../native.ts";
import { CHUNK_DATA_START, newChunkMemory } from "../../repository/packs/chunker.ts";
import { C } from "../cache/scan-table.ts";
import type { ScanThread } from "./scan-thread.ts";
import type { ScanTask } from "./task.ts";

/**
 * A large file is read once by one thread, into a ring of shared memory, and cut there by content;
 * the chunks are hashed, compressed and packed by whichever thread is free, the reader included.
 */

/** Bytes of a ring: one read, the longest chunk, and chunks that other threads are still hashing. */
const RING_BYTES = 24 * 1024 * 1024;
export const READ_BYTES = 2 * 1024 * 1024;
/** Bytes that are prefetched of a file that is only hashed. */
const FETCHED_BYTES = 8 * 1024 * 1024;
/** Holes of at least this size are skipped. */
const LEAST_HOLE = 64 * 1024;
const SEEK_DATA = 3;
const SEEK_HOLE = 4;
const SLOTS = 64;
const SLOT_WORDS = 12;
/** Word of a slot: 1 if its chunk is stored but not forwarded. */
const STAYS = 11;
/** Words of a chunk queue: published, taken, then slots {state, offset, length, id 8 words}. */
const HEAD = 4;
const READY = 1;
const TAKEN = 2;
const DONE = 3;

/** Makes the shared memories for cutting large files. */
export function chunkMemories(threads: number): Pick<ScanTask, "rings" | "chunkJobs"> {
  return {
    rings: Array.from({ length: threads }, () => newChunkMemory(RING_BYTES)),
    chunkJobs: Array.from({ length: threads }, () => new SharedArrayBuffer((HEAD + SLOTS * SLOT_WORDS) * 4)),
  };
}

/** One thread's view of every thread's ring and queue. */
export class ChunkQueues {
  readonly #thread: ScanThread;
  readonly #rings: Arena[];
  readonly #queues: Int32Array[];
  readonly #id = newArena(32);

  constructor(thread: ScanThread) {
    this.#thread = thread;
    this.#rings = thread.task.rings.map((memory) => arenaOver(Buffer.from(memory.buffer)));
    this.#queues = thread.task.chunkJobs.map((queue) => new Int32Array(queue));
  }

  ring(owner: number): Arena {
    return this.#rings[owner]!;
  }

  queue(owner: number): Int32Array {
    return this.#queues[owner]!;
  }

  /** Works on one waiting chunk of any thread; false if there was none. */
  help(): boolean {
    for (let i = 0; i < this.#queues.length; i++)
      if (this.helpOne((this.#thread.thread + i) % this.#queues.length)) return true;
    return false;
  }

  helpOne(owner: number): boolean {
    const queue = this.#queues[owner]!;
    const taken = Atomics.load(queue, 1);
    if (taken >= Atomics.load(queue, 0)) return false;
    if (Atomics.compareExchange(queue, 1, taken, taken + 1) !== taken) return false;
    const slot = HEAD + (taken % SLOTS) * SLOT_WORDS;
    // A chunk of zeros was published with its id.
    if (Atomics.load(queue, slot) === DONE) return true;
    Atomics.store(queue, slot, TAKEN);
    const id = this.store(this.#rings[owner]!, queue[slot + 1]!, queue[slot + 2]!, queue[slot + STAYS] === 1);
    const words = new Int32Array(id.buffer, id.byteOffset, 8);
    for (let i = 0; i < 8; i++) queue[slot + 3 + i] = words[i]!;
    Atomics.store(queue, slot, DONE);
    this.#thread.wake();
    return true;
  }

  /** Hashes a chunk and hands it to the sink. Returns its id, valid until the next call. `stays`: it is not forwarded. */
  store(ring: Arena, offset: number, length: number, stays = false): Uint8Array {
    hashAt(ring, offset, length, this.#id, 0);
    this.#thread.sink?.add("data", { id: this.#id.bytes, offset: 0, stays }, ring, offset, length);
    return this.#id.bytes;
  }
}

export interface LargeFileResult {
  /** minus errno, or 0 */
  error: number;
  length: number;
  /** 32-byte ids back to back, or null when the file is one chunk (named by its own hash) */
  chunks: Uint8Array | null;
}

/** An open file with the facts of its fstat. */
export interface OpenFile {
  fd: number;
  size: number;
  /** it occupies less than its size, so it may have holes */
  isSparse: boolean;
}

/**
 * Reads a file from start to end. Does not read holes, which are zeros: the system would allocate a page for each part
 * of a hole, and a disk image may be mostly holes.
 */
export class HoleAwareReading {
  readonly #sys: Syscalls;
  readonly #file: OpenFile;
  /** a hole may begin here or later */
  #knownTo = 0;
  position = 0;
  /** the last read returned zeros of a hole */
  wasHole = false;

  constructor(sys: Syscalls, file: OpenFile) {
    this.#sys = sys;
    this.#file = file;
  }

  /** The position up to which the file is known to have data. */
  get dataTo(): number {
    return this.#file.isSparse ? this.#knownTo : this.#file.size;
  }

  /** Reads at most `length` bytes into memory at `offset`; returns the number, 0 at the end, or minus errno. */
  read(memory: Arena, offset: number, length: number): number {
    const hole = Math.min(length, this.#hole());
    this.wasHole = hole > 0;
    if (this.wasHole) fillZeros(memory, offset, hole);
    const n = this.wasHole ? hole : this.#sys.read(this.#file.fd, memory, offset, length, this.position);
    if (n > 0) this.position += n;
    return n;
  }

  /** Bytes from the position on that are a hole large enough to skip. */
  #hole(): number {
    const { fd, size, isSparse } = this.#file;
    if (!isSparse || this.position < this.#knownTo || this.position >= size) return 0;
    const data = this.#sys.seek(fd, this.position, SEEK_DATA);
    // ENXIO: no data follows. Any other error: the file system does not report holes.
    const end = data === ENXIO ? size : data;
    if (end - this.position >= LEAST_HOLE) return end - this.position;
    const hole = this.#sys.seek(fd, Math.max(end, this.position), SEEK_HOLE);
    this.#knownTo = hole < 0 ? size : hole;
    return 0;
  }
}

const ZEROS = Buffer.alloc(4096);

/** Twenty times as fast in shared memory as `fill(0)`, which the engine does byte by byte. */
function fillZeros({ bytes }: Arena, offset: number, length: number): void {
  Buffer.from(bytes.buffer, bytes.byteOffset + offset, length).fill(ZEROS);
}

/** Computes only the SHA-256, into `hash`: cuts nothing, and prefetches from the disk while it hashes. */
export function hashLargeFile(thread: ScanThread, file: OpenFile, hash: Uint8Array): LargeFileResult {
  const whole = new Sha256Stream();
  const { content, sys } = thread;
  const from = new HoleAwareReading(sys, file);
  for (let asked = 0; ;) {
    thread.checkStop();
    const ahead = Math.min(from.dataTo, from.position + FETCHED_BYTES);
    for (asked = Math.max(asked, from.position); asked < ahead; asked += READ_BYTES)
      fetchPages(file.fd, asked, Math.min(READ_BYTES, from.dataTo - asked));
    const n = from.read(content, 0, content.bytes.length);
    if (n < 0) return { error: n, length: from.position, chunks: null };
    whole.update(content.bytes.subarray(0, n));
    thread.countRead(n);
    if (n === 0 || from.position > file.size) break;
  }
  hash.set(whole.digest());
  return { error: 0, length: from.position, chunks: null };
}

/** The region [start, end) of the ring that is not yet cut, and the chunks in progress, oldest first. */
export class RingReading {
  readonly #thread: ScanThread;
  readonly #queues: ChunkQueues;
  readonly #queue: Int32Array;
  readonly #ring: Arena;
  #collected: number;
  readonly #ids: Uint8Array[] = [];
  start = CHUNK_DATA_START;
  end = CHUNK_DATA_START;
  /** the chunker has seen the bytes up to here */
  given = CHUNK_DATA_START;
  /** the chunks are stored but not forwarded */
  stays = false;
  /** zeros of a hole begin here and reach to the end */
  #zerosFrom = CHUNK_DATA_START;
  /** ids of chunks of zeros, by length: many have the same length */
  readonly #zeros = new Map<number, Uint8Array>();

  constructor(thread: ScanThread, queues: ChunkQueues) {
    this.#thread = thread;
    this.#queues = queues;
    this.#queue = queues.queue(thread.thread);
    this.#ring = queues.ring(thread.thread);
    this.#collected = Atomics.load(this.#queue, 0);
  }

  /** Waits or helps until `length` bytes at `end` are free, moving the uncut rest to the front when the ring ends. */
  makeRoom(length: number): void {
    if (this.end + length > this.#ring.bytes.length) {
      const rest = this.end - this.start;
      while (this.#overlaps(CHUNK_DATA_START, rest + length)) this.#help();
      this.#ring.bytes.copyWithin(CHUNK_DATA_START, this.start, this.end);
      this.#zerosFrom = Math.max(this.#zerosFrom - this.start, 0) + CHUNK_DATA_START;
      this.start = CHUNK_DATA_START;
      this.end = this.start + rest;
      this.given = this.end;
    }
    while (this.#overlaps(this.end, length)) this.#help();
  }

  /** Adds bytes that were read at the end. */
  advance(length: number, isHole: boolean): void {
    this.end += length;
    if (!isHole) this.#zerosFrom = this.end;
  }

  /** The end of the next chunk of a database, at a fixed size because pages change in place; -1: not enough data yet. */
  pagesCut(eof: boolean): number {
    if (this.end - this.start >= DATABASE_BLOB_BYTES) return this.start + DATABASE_BLOB_BYTES;
    return eof && this.end > this.start ? this.end : -1;
  }

  publish(cut: number): void {
    while (Atomics.load(this.#queue, 0) - this.#collected >= SLOTS) this.#help();
    const zeros = this.#zerosFrom <= this.start ? this.#idOfZeros(cut - this.start) : null;
    const sequence = Atomics.load(this.#queue, 0);
    const slot = HEAD + (sequence % SLOTS) * SLOT_WORDS;
    this.#queue[slot + 1] = this.start;
    this.#queue[slot + 2] = cut - this.start;
    this.#queue[slot + STAYS] = this.stays ? 1 : 0;
    if (zeros !== null) this.#id(slot).set(zeros);
    Atomics.store(this.#queue, slot, zeros === null ? READY : DONE);
    Atomics.store(this.#queue, 0, sequence + 1);
    this.start = cut;
    this.#thread.wake();
    this.#collect();
  }

  /** Waits for all chunks and returns their ids in order. */
  drain(): Uint8Array {
    while (this.#collected < Atomics.load(this.#queue, 0)) this.#help();
    return Buffer.concat(this.#ids);
  }

  #collect(): void {
    const published = Atomics.load(this.#queue, 0);
    while (this.#collected < published) {
      const slot = HEAD + (this.#collected % SLOTS) * SLOT_WORDS;
      if (Atomics.load(this.#queue, slot) !== DONE) return;
      this.#ids.push(Uint8Array.from(this.#id(slot)));
      this.#collected++;
    }
  }

  /** The id of an all-zero chunk at the start; stored once per length. */
  #idOfZeros(length: number): Uint8Array {
    let id = this.#zeros.get(length);
    if (id === undefined)
      this.#zeros.set(length, (id = Uint8Array.from(this.#queues.store(this.#ring, this.start, length))));
    return id;
  }

  #id(slot: number): Uint8Array {
    return new Uint8Array(this.#queue.buffer, this.#queue.byteOffset + (slot + 3) * 4, 32);
  }

  #overlaps(offset: number, length: number): boolean {
    this.#collect();
    const published = Atomics.load(this.#queue, 0);
    for (let sequence = this.#collected; sequence < published; sequence++) {
      const slot = HEAD + (sequence % SLOTS) * SLOT_WORDS;
      const at = this.#queue[slot + 1]!;
      if (at < offset + length && at + this.#queue[slot + 2]! > offset) return true;
    }
    return false;
  }

  #help(): void {
    this.#collect();
    this.#thread.checkStop();
    if (this.#queues.helpOne(this.#thread.thread)) return this.#collect();
    const { control } = this.#thread.table;
    const signal = Atomics.load(control, C.SIGNAL);
    const before = this.#collected;
    this.#collect();
    if (this.#collected === before) Atomics.wait(control, C.SIGNAL, signal, 5);
  }
}
