import { Sha256Stream } from "../../crypto/hash.ts";
import { hashAt } from "../../crypto/primitives.ts";
import { type Arena, arenaOver, newArena } from "../../native.ts";
import { CHUNK_DATA_START, Chunker, MAX_CHUNK, newChunkMemory } from "./chunker.ts";

export interface StreamCutterOptions {
  polynomial: string;
  /** Called with each piece: its id, and `length` bytes at `offset` of the arena, valid during the call. */
  onPiece(id: Uint8Array, plain: Arena, offset: number, length: number): void;
}

/** Content that went through a cutter. */
export interface CutContent {
  /** Ids of the pieces in order, 32 bytes each. */
  ids: Uint8Array;
  size: number;
  /** SHA-256 of all bytes. */
  sha256: Uint8Array;
}

/** Room for the longest piece, and for as much again before the uncut rest has to be moved. */
const ROOM = 2 * MAX_CHUNK;

/** Cuts bytes that come one after another into pieces as files are cut, in memory of a fixed size. */
export class StreamCutter {
  readonly #options: StreamCutterOptions;
  readonly #chunker: Chunker;
  readonly #arena: Arena;
  readonly #id = newArena(32);
  readonly #whole = new Sha256Stream();
  readonly #ids: Uint8Array[] = [];
  /** Offsets: where the uncut rest begins, how far the chunker has seen it, and where it ends. */
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

  /** The rest is the last piece. To be called once. */
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
