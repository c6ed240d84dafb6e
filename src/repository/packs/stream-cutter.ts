import { Sha256Stream } from "../../crypto/hash.ts";
import { hashAt } from "../../crypto/primitives.ts";
import { type Arena, arenaOver, newArena } from "../../native.ts";
import { CHUNK_DATA_START, Chunker, MAX_CHUNK, newChunkMemory } from "./chunker.ts";

export interface StreamCutterOptions {
  polynomial: string;
  /** Called with each piece: its id, and `length` bytes at `offset` of the arena, valid during the call. */
  onPiece(id: Uint8Array, plain: Arena, offset: number, length: number): void;
}

/** The result of a cutter. */
export interface CutContent {
  /** Ids of the pieces in order, 32 bytes each. */
  ids: Uint8Array;
  size: number;
  /** SHA-256 of all bytes. */
  sha256: Uint8Array;
}

/** Twice the longest piece, so that the uncut rest is moved rarely. */
const ROOM = 2 * MAX_CHUNK;

/** Cuts a stream of bytes into the same pieces as a file, in memory of a fixed size. */
export class StreamCutter {
  readonly #options: StreamCutterOptions;
  readonly #chunker: Chunker;
  readonly #arena: Arena;
  readonly #id = newArena(32);
  readonly #whole = new Sha256Stream();
  readonly #ids: Uint8Array[] = [];
  /** Offsets of the uncut rest: its begin, the end of the part that the chunker has seen, and its end. */
  #start = CHUNK_DATA_START;
  #seen = CHUNK_DATA_START;
  #end = CHUNK_DATA_START;
  size = 0;

  constructor(options: StreamCutterOptions) {
    const memory = newChunkMemory(ROOM);
    this.#options = options;
    this.#chunker = new Chunker(options.polynomial, memory);
    this.#arena = arenaOver(Buffer.from(memory.buffer));
  }

  get pieces(): number {
    return this.#ids.length;
  }

  write(bytes: Uint8Array): void {
    this.#whole.update(bytes);
    this.size += bytes.length;
    for (let at = 0; at < bytes.length;) {
      if (this.#end === this.#arena.bytes.length) this.#moveRest();
      const part = bytes.subarray(at, at + this.#arena.bytes.length - this.#end);
      this.#arena.bytes.set(part, this.#end);
      this.#end += part.length;
      at += part.length;
      this.#cut(false);
    }
  }

  /** Cuts the rest as the last piece. Call it once. */
  finish(): CutContent {
    this.#cut(true);
    return { ids: Buffer.concat(this.#ids), size: this.size, sha256: this.#whole.digest() };
  }

  /** The rest is shorter than the longest piece, so half of the room is free afterwards. */
  #moveRest(): void {
    const rest = this.#end - this.#start;
    this.#arena.bytes.copyWithin(CHUNK_DATA_START, this.#start, this.#end);
    this.#start = CHUNK_DATA_START;
    this.#end = this.#seen = CHUNK_DATA_START + rest;
  }

  #cut(eof: boolean): void {
    for (;;) {
      const cut = this.#chunker.cut(this.#seen, this.#end, eof);
      this.#seen = cut < 0 ? this.#end : cut;
      if (cut < 0) return;
      const length = cut - this.#start;
      hashAt(this.#arena, this.#start, length, this.#id, 0);
      this.#options.onPiece(this.#id.bytes, this.#arena, this.#start, length);
      this.#ids.push(Uint8Array.from(this.#id.bytes));
      this.#start = cut;
    }
  }
}
