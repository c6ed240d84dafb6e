import { constants } from "node:zlib";
import { CairnError } from "../../errors.ts";
import { bindNative, bindNativeLater, newArena } from "../../native.ts";
import type { Arena, NativeFunction } from "../../native.ts";

/** zstd level; 0 turns compression off. */
export type CompressionLevel = number;
export const DEFAULT_LEVEL: CompressionLevel = 1;

/**
 * Sizes of files that are one blob but not small: level 3 saves a twentieth of their bytes, for a sixth of the
 * compression time.
 */
const CLOSER = { level: 3, above: 16 * 1024, upTo: 512 * 1024 } as const;

/** A longer stated plain length is refused: no program writes such blobs. */
export const MAX_PLAIN_LENGTH = 1024 * 1024 * 1024;

const SIGNATURES = {
  createCompressor: "uint64_t ZSTD_createCCtx()",
  createDecompressor: "uint64_t ZSTD_createDCtx()",
  freeCompressor: "uint64_t ZSTD_freeCCtx(uint64_t context)",
  freeDecompressor: "uint64_t ZSTD_freeDCtx(uint64_t context)",
  setParameter: "int64_t ZSTD_CCtx_setParameter(uint64_t context, int parameter, int value)",
  // Declared signed: an error is a small negative number, so no second call asks ZSTD_isError.
  compress:
    "int64_t ZSTD_compress2(uint64_t context, uint64_t target, uint64_t room, uint64_t source, uint64_t length)",
  streamDecompress:
    "int64_t ZSTD_decompressStream_simpleArgs(uint64_t context, uint64_t target, uint64_t room, uint64_t done, uint64_t source, uint64_t length, uint64_t read)",
  resetDecompressor: "int64_t ZSTD_DCtx_reset(uint64_t context, int what)",
  decompress:
    "int64_t ZSTD_decompressDCtx(uint64_t context, uint64_t target, uint64_t room, uint64_t source, uint64_t length)",
} as const;

type Calls = Record<keyof typeof SIGNATURES, NativeFunction>;

let bound: Calls | undefined;

/** Binds Node's exports of libzstd. Throws `unsupported` if a symbol is missing. */
function zstdCalls(): Calls {
  bound ??= Object.fromEntries(
    Object.entries(SIGNATURES).map(([name, signature]) => {
      const call = bindNative(signature);
      if (call === null) throw new CairnError("unsupported", "this Node exports no libzstd: use one from nodejs.org");
      return [name, call];
    }),
  ) as Calls;
  return bound;
}

const mostOf = bindNativeLater("int64_t ZSTD_decompressBound(uint64_t source, uint64_t length)");
/** ZSTD_reset_session_only */
const SESSION = 1;

const released = new FinalizationRegistry<() => void>((release) => release());

/** zstd with a reused context. One per thread. */
export class Compressor {
  readonly #calls = zstdCalls();
  readonly #contexts = new Map<CompressionLevel, number>();
  readonly level: CompressionLevel;

  /** `level`: the lowest level. Blobs of some lengths are compressed at level 3 at least. */
  constructor(level: CompressionLevel = DEFAULT_LEVEL) {
    if (!Number.isInteger(level) || level < 0 || level > 19) {
      throw new CairnError("usage", `compression level must be 0 (off) to 19, not ${level}`);
    }
    this.level = level;
  }

  #levelFor(length: number): CompressionLevel {
    return length > CLOSER.above && length <= CLOSER.upTo ? Math.max(this.level, CLOSER.level) : this.level;
  }

  #contextOf(calls: Calls, level: CompressionLevel): number {
    const known = this.#contexts.get(level);
    if (known !== undefined) return known;
    const context = calls.createCompressor();
    released.register(this, () => calls.freeCompressor(context));
    calls.setParameter(context, constants.ZSTD_c_compressionLevel, level);
    this.#contexts.set(level, context);
    return context;
  }

  /**
   * Compresses `length` bytes into at most `room` bytes of `target`. Returns the size, or 0 if the result would not be
   * smaller than the source or compression is off: then store the source.
   */
  compress(source: Arena, offset: number, length: number, target: Arena, targetOffset: number, room: number): number {
    if (this.level === 0 || length < 2) return 0;
    const size = this.#calls.compress(
      this.#contextOf(this.#calls, this.#levelFor(length)),
      target.address + targetOffset,
      room,
      source.address + offset,
      length,
    );
    return size > 0 && size < length ? size : 0;
  }
}

/** Decompresses into exactly the stated length. One per thread. */
export class Decompressor {
  readonly #calls = zstdCalls();
  readonly #context: number;

  constructor() {
    const calls = this.#calls;
    const context = calls.createDecompressor();
    // Without a context every blob would seem damaged.
    if (Number(context) === 0) throw new CairnError("io", "cannot allocate memory to decompress blobs");
    this.#context = context;
    released.register(this, () => calls.freeDecompressor(context));
  }

  /** Decompresses to `expected` bytes at `targetOffset`. Returns false if the data is broken or of another length. */
  decompress(
    source: Arena,
    offset: number,
    length: number,
    target: Arena,
    targetOffset: number,
    expected: number,
  ): boolean {
    if (targetOffset + expected > target.bytes.length) return false;
    return (
      this.#calls.decompress(
        this.#context,
        target.address + targetOffset,
        expected,
        source.address + offset,
        length,
      ) === expected
    );
  }

  /**
   * Returns the plaintext of a frame in memory of its own; null if the frame is empty or broken, or may have more than
   * `most` bytes.
   */
  whole(source: Arena, offset: number, length: number, most: number): Uint8Array | null {
    const room = mostOf()?.(source.address + offset, length) ?? -1;
    if (!(room >= 0 && room <= most)) return null;
    const target = newArena(room);
    const size = this.#calls.decompress(this.#context, target.address, room, source.address + offset, length);
    return size > 0 ? target.bytes.subarray(0, size) : null;
  }

  /** Tells whether compressed data can have the stated plain length, by its frame headers. Reserves no memory. */
  canHold(source: Arena, offset: number, length: number, expected: number): boolean {
    const most = mostOf()?.(source.address + offset, length) ?? expected;
    return most >= expected;
  }

  /**
   * Decompresses piece by piece, each into all of `window`, and yields each. Returns false if the data is broken, has
   * another length or needs much memory. Decompress nothing else until it is done.
   */
  *inPieces(
    source: Arena,
    offset: number,
    length: number,
    { window, expected }: { window: Arena; expected: number },
  ): Generator<Uint8Array, boolean, void> {
    const places = newArena(16);
    const [done, read] = [0, 8].map((at) => new BigUint64Array(places.bytes.buffer, places.bytes.byteOffset + at, 1));
    const { streamDecompress, resetDecompressor } = this.#calls;
    const room = window.bytes.length;
    resetDecompressor(this.#context, SESSION);
    for (let left = expected; ;) {
      done![0] = 0n;
      const before = read![0];
      const state = streamDecompress(
        this.#context,
        window.address,
        room,
        places.address,
        source.address + offset,
        length,
        places.address + 8,
      );
      const count = Number(done![0]);
      left -= count;
      if (state < 0 || left < 0) return false;
      yield window.bytes.subarray(0, count);
      if (state === 0) return left === 0 && Number(read![0]) === length;
      // The decompressor wants more input than there is.
      if (count < room && read![0] === before) return false;
    }
  }
}
