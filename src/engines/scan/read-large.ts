import { Sha256Stream } from "../../crypto/hash.ts";
import { type Arena, arenaOver, newArena } from "../../native.ts";
import { fetchPages } from "../../fs/flush.ts";
import { C } from "../../fs/scan-table.ts";
import { CHUNK_DATA_START, Chunker } from "../../repository/chunker.ts";
import type { ScanThread } from "./scan-thread.ts";

/**
 * A large file is read once by one thread, into a ring of shared memory, and cut there by content;
 * the chunks are hashed, compressed and packed by whichever thread is free, the reader included.
 */

/** Bytes of a ring: one read, the longest chunk, and what others are still working on. */
export const RING_BYTES = 24 * 1024 * 1024;
const READ_BYTES = 2 * 1024 * 1024;
/** So far a file that is only hashed is fetched ahead of what is read of it. */
const FETCHED_BYTES = 8 * 1024 * 1024;
const SLOTS = 64;
const SLOT_WORDS = 12;
/** Words of a chunk queue: published, taken, then slots {state, offset, length, id 8 words}. */
const HEAD = 4;
const READY = 1;
const TAKEN = 2;
const DONE = 3;

export function newChunkQueue(): SharedArrayBuffer {
  return new SharedArrayBuffer((HEAD + SLOTS * SLOT_WORDS) * 4);
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

  /** Works on one waiting chunk of any thread; false when there was none. */
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
    Atomics.store(queue, slot, TAKEN);
    const offset = queue[slot + 1]!;
    const length = queue[slot + 2]!;
    const ring = this.#rings[owner]!;
    this.#thread.hash(ring, offset, length, this.#id, 0);
    this.#thread.sink?.data(this.#id.bytes, 0, ring, offset, length);
    const words = new Int32Array(this.#id.bytes.buffer, this.#id.bytes.byteOffset, 8);
    for (let i = 0; i < 8; i++) queue[slot + 3 + i] = words[i]!;
    Atomics.store(queue, slot, DONE);
    this.#thread.wake();
    return true;
  }
}

export interface LargeFileResult {
  /** minus errno, or 0 */
  error: number;
  length: number;
  /** 32-byte ids back to back, or null when the file is one chunk (named by its own hash) */
  chunks: Uint8Array | null;
}

const QUEUES = new WeakMap<ScanThread, ChunkQueues>();
const CHUNKERS = new WeakMap<ScanThread, Chunker>();

export function chunkQueuesOf(thread: ScanThread): ChunkQueues {
  let queues = QUEUES.get(thread);
  if (queues === undefined) QUEUES.set(thread, (queues = new ChunkQueues(thread)));
  return queues;
}

/** Made when the first large file comes: most scans have none. */
function chunkerOf(thread: ScanThread): Chunker {
  let chunker = CHUNKERS.get(thread);
  if (chunker === undefined)
    CHUNKERS.set(thread, (chunker = new Chunker(thread.task.chunkerPolynomial, thread.task.rings[thread.thread]!)));
  return chunker;
}

/** Reads, cuts, hashes and stores a file larger than one blob; its SHA-256 goes to `hash`. */
export function readLargeFile(thread: ScanThread, fd: number, size: number, hash: Uint8Array): LargeFileResult {
  const chunker = chunkerOf(thread);
  const queues = chunkQueuesOf(thread);
  chunker.reset();
  const reading = new RingReading(thread, queues);
  const whole = new Sha256Stream();
  const ring = queues.ring(thread.thread);
  let position = 0;
  for (;;) {
    thread.checkStop();
    reading.makeRoom(READ_BYTES);
    const n = thread.sys.read(fd, ring, reading.end, READ_BYTES, position);
    if (n < 0) {
      reading.drain();
      return { error: n, length: position, chunks: null };
    }
    whole.update(ring.bytes.subarray(reading.end, reading.end + n));
    reading.end += n;
    position += n;
    thread.countRead(n);
    // A file that grows without end is cut off at what it was; the caller sees that it changed.
    const eof = n === 0 || position >= size + 64 * READ_BYTES;
    for (;;) {
      const cut = chunker.cut(reading.given, reading.end, eof);
      reading.given = cut < 0 ? reading.end : cut;
      if (cut < 0) break;
      reading.publish(cut);
    }
    if (eof) break;
  }
  const chunks = reading.drain();
  hash.set(whole.digest());
  return { error: 0, length: position, chunks: chunks.length <= 32 ? null : chunks };
}

/** Its SHA-256 alone goes to `hash`: nothing is cut, and the disk is asked for what comes next while this is hashed. */
export function hashLargeFile(thread: ScanThread, fd: number, size: number, hash: Uint8Array): LargeFileResult {
  const whole = new Sha256Stream();
  const { content, sys } = thread;
  let position = 0;
  for (let asked = 0; ;) {
    thread.checkStop();
    for (; asked < Math.min(size, position + FETCHED_BYTES); asked += READ_BYTES) fetchPages(fd, asked, READ_BYTES);
    const n = sys.read(fd, content, 0, content.bytes.length, position);
    if (n < 0) return { error: n, length: position, chunks: null };
    whole.update(content.bytes.subarray(0, n));
    position += n;
    thread.countRead(n);
    if (n === 0 || position > size) break;
  }
  hash.set(whole.digest());
  return { error: 0, length: position, chunks: null };
}

/** The region [start, end) of the ring that is not cut yet, and the chunks under way, oldest first. */
class RingReading {
  readonly #thread: ScanThread;
  readonly #queues: ChunkQueues;
  readonly #queue: Int32Array;
  readonly #ring: Arena;
  #collected: number;
  readonly #ids: Uint8Array[] = [];
  start = CHUNK_DATA_START;
  end = CHUNK_DATA_START;
  /** up to here the chunker has seen the bytes */
  given = CHUNK_DATA_START;

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
      this.start = CHUNK_DATA_START;
      this.end = this.start + rest;
      this.given = this.end;
    }
    while (this.#overlaps(this.end, length)) this.#help();
  }

  publish(cut: number): void {
    while (Atomics.load(this.#queue, 0) - this.#collected >= SLOTS) this.#help();
    const sequence = Atomics.load(this.#queue, 0);
    const slot = HEAD + (sequence % SLOTS) * SLOT_WORDS;
    this.#queue[slot + 1] = this.start;
    this.#queue[slot + 2] = cut - this.start;
    Atomics.store(this.#queue, slot, READY);
    Atomics.store(this.#queue, 0, sequence + 1);
    this.start = cut;
    this.#thread.wake();
    this.#collect();
  }

  /** All chunks done; their ids in order. */
  drain(): Uint8Array {
    while (this.#collected < Atomics.load(this.#queue, 0)) this.#help();
    return Buffer.concat(this.#ids);
  }

  #collect(): void {
    const published = Atomics.load(this.#queue, 0);
    while (this.#collected < published) {
      const slot = HEAD + (this.#collected % SLOTS) * SLOT_WORDS;
      if (Atomics.load(this.#queue, slot) !== DONE) return;
      this.#ids.push(Uint8Array.from(new Uint8Array(this.#queue.buffer, this.#queue.byteOffset + (slot + 3) * 4, 32)));
      this.#collected++;
    }
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
