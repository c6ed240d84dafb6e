import fs from "node:fs";
import { type Arena, bindNativeLater, type NativeFunction, newArena, settleResult } from "../../native.ts";
import { syscallError } from "./errno.ts";
import { EINTR } from "./syscall-abi.ts";

/** Flag of an open file whose reads bypass the page cache. */
export const DIRECT = fs.constants.O_DIRECT;

const NUMBER =
  process.arch === "arm64"
    ? { setup: 0, destroy: 1, submit: 2, events: 4 }
    : { setup: 206, destroy: 207, submit: 209, events: 208 };
/** Memory and lengths are aligned to this: no known disk has larger blocks. */
const BLOCK = 4096;
/** Bytes of struct iocb; offsets of its number, file, memory and length. */
const REQUEST = { bytes: 64, number: 0, file: 20, memory: 24, length: 32 } as const;
/** Bytes of struct io_event; offsets of its number and result. */
const EVENT = { bytes: 32, number: 0, result: 16 } as const;
const F_SETFL = 4;
const [QUEUED, RUNNING] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];

const syscall = bindNativeLater(
  "int64_t syscall(int64_t n, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e)",
);
const fcntl = bindNativeLater("int fcntl(int fd, int command, uint64_t argument)");

/** Lets later reads of a file that was opened with {@link DIRECT} use the page cache, at any offset and length. */
export function endDirect(fd: number): void {
  fcntl()?.(fd, F_SETFL, 0);
}

/**
 * Reads the beginnings of many files from the disk with one call, bypassing the page cache. The system joins reads of
 * adjacent blocks, so small files need few requests to the disk. One per thread.
 */
export class DirectReads {
  readonly #call: NativeFunction;
  readonly #context: number;
  readonly #room: number;
  readonly #memory: Arena;
  /** Offset of the first aligned byte. */
  readonly #start: number;
  readonly #requests: Arena;
  readonly #requestView: DataView;
  readonly #queue: Arena;
  readonly #queueView: DataView;
  readonly #events: Arena;
  readonly #eventView: DataView;
  /** By place: bytes that were read, minus errno, `QUEUED` or `RUNNING`. */
  readonly #results: Float64Array;
  #queued = 0;

  private constructor(call: NativeFunction, context: number, places: number, room: number) {
    this.#call = call;
    this.#context = context;
    this.#room = room;
    this.#memory = newArena(places * room + BLOCK);
    this.#start = (BLOCK - (this.#memory.address % BLOCK)) % BLOCK;
    [this.#requests, this.#requestView] = viewed(places * REQUEST.bytes);
    [this.#queue, this.#queueView] = viewed(places * 8);
    [this.#events, this.#eventView] = viewed(places * EVENT.bytes);
    this.#results = new Float64Array(places);
  }

  /**
   * Makes places for reads of up to `room` bytes each, a multiple of 4096. Null if the system refuses such reads, as in
   * some containers, or if other processes have all that it allows.
   */
  static open(places: number, room: number): DirectReads | null {
    const call = syscall();
    const [context, view] = viewed(8);
    if (call === null || call(NUMBER.setup, places, context.address, 0, 0, 0) !== 0) return null;
    return new DirectReads(call, Number(view.getBigUint64(0, true)), places, room);
  }

  /**
   * Queues a read of the first `length` bytes of a file, which was opened with {@link DIRECT}, into a free place. Starts the
   * queued reads if they fill half of the places.
   */
  queue(place: number, fd: number, length: number): void {
    const at = place * REQUEST.bytes;
    const view = this.#requestView;
    view.setBigUint64(at + REQUEST.number, BigInt(place), true);
    view.setUint32(at + REQUEST.file, fd, true);
    view.setBigUint64(at + REQUEST.memory, BigInt(this.#memory.address + this.#start + place * this.#room), true);
    view.setUint32(at + REQUEST.length, Math.ceil(length / BLOCK) * BLOCK, true);
    this.#queueView.setBigUint64(this.#queued * 8, BigInt(this.#requests.address + at), true);
    this.#results[place] = QUEUED;
    if (++this.#queued >= this.#results.length / 2) this.#submit();
  }

  #submit(): void {
    for (let from = 0; from < this.#queued;) {
      const count = this.#do(NUMBER.submit, this.#queued - from, this.#queue.address + from * 8, 0, 0);
      // A refused read counts as failed: the caller reads that file in another way.
      if (count <= 0) this.#results[this.#placeInQueue(from++)] = Math.min(count, -1);
      for (const end = from + count; from < end; from++) this.#results[this.#placeInQueue(from)] = RUNNING;
    }
    this.#queued = 0;
  }

  #placeInQueue(at: number): number {
    return (Number(this.#queueView.getBigUint64(at * 8, true)) - this.#requests.address) / REQUEST.bytes;
  }

  /** Waits for a queued read. Returns its bytes, valid until the place is used again; null if it failed. */
  wait(place: number): Uint8Array | null {
    if (this.#results[place] === QUEUED) this.#submit();
    while (this.#results[place] === RUNNING) this.#collect();
    const length = this.#results[place]!;
    const from = this.#start + place * this.#room;
    return length < 0 ? null : this.#memory.bytes.subarray(from, from + length);
  }

  #collect(): void {
    const count = this.#do(NUMBER.events, 1, this.#results.length, this.#events.address, 0);
    if (count < 0) throw syscallError(count, "cannot wait for direct reads");
    for (let at = 0; at < count * EVENT.bytes; at += EVENT.bytes)
      this.#results[Number(this.#eventView.getBigUint64(at + EVENT.number, true))] = Number(
        this.#eventView.getBigInt64(at + EVENT.result, true),
      );
  }

  #do(number: number, ...args: [number, number, number, number]): number {
    for (;;) {
      const result = settleResult(this.#call(number, this.#context, ...args));
      if (result !== -EINTR) return result;
    }
  }

  /** The system waits for all reads that were started. */
  close(): void {
    this.#call(NUMBER.destroy, this.#context, 0, 0, 0, 0);
  }
}

function viewed(bytes: number): [Arena, DataView] {
  const arena = newArena(bytes);
  return [arena, new DataView(arena.bytes.buffer, arena.bytes.byteOffset, bytes)];
}
