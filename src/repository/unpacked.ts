import { constants, zstdCompress, zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { CairnError, toCairnError } from "../errors.ts";
import { arenaOver } from "../native.ts";
import { Decompressor } from "./packs/compression.ts";

/** The plaintext of index, snapshot and lock files: raw JSON (old), or a byte 2 and a zstd frame. */

const COMPRESSED = 2;
const BRACE = 0x7b;
const BRACKET = 0x5b;
/** Far more than the index, snapshot or lock of any program. */
const MAX_PLAIN = 1024 * 1024 * 1024;
const USUAL_RATIO = 4;
const SMALLEST_PIECE = 16 * 1024;
const LARGEST_PIECE = 32 * 1024 * 1024;
/** The most plain bytes that are decompressed by one call, with the context of this thread. */
const MOST_AT_ONCE = 64 * 1024 * 1024;
const ASYNC_FROM = 256 * 1024;
const PARAMETERS = { [constants.ZSTD_c_compressionLevel]: 1 };

export async function packPlain(json: Uint8Array): Promise<Uint8Array> {
  // Large enough for one piece in most cases: further pieces would go from thread to thread and be joined.
  const options = { params: PARAMETERS, chunkSize: SMALLEST_PIECE + (json.length >> 1) };
  const frame =
    json.length < ASYNC_FROM
      ? zstdCompressSync(json, options)
      : await new Promise<Buffer>((resolve, reject) => {
          zstdCompress(json, options, (error, result) => (error ? reject(error) : resolve(result)));
        });
  const packed = new Uint8Array(frame.length + 1);
  packed[0] = COMPRESSED;
  packed.set(frame, 1);
  return packed;
}

let decompressor: Decompressor | undefined;

/** Returns the JSON bytes. Throws `damaged` if the plaintext has no known format. */
export function unpackPlain(plain: Uint8Array): Uint8Array {
  const first = plain[0];
  if (first === BRACE || first === BRACKET) return plain;
  if (first !== COMPRESSED)
    throw new CairnError("damaged", `the plaintext begins with byte ${first ?? "none"}, which no known format has`);
  const whole = (decompressor ??= new Decompressor()).whole(arenaOver(plain), 1, plain.length - 1, MOST_AT_ONCE);
  if (whole !== null) return whole;
  try {
    // Large enough for one piece in most cases: further pieces would be joined.
    const chunkSize = Math.min(LARGEST_PIECE, Math.max(SMALLEST_PIECE, plain.length * USUAL_RATIO));
    return zstdDecompressSync(plain.subarray(1), { maxOutputLength: MAX_PLAIN, chunkSize });
  } catch (error) {
    const known = toCairnError(error);
    if (known.code === "io") throw known;
    throw new CairnError("damaged", "the plaintext is not a whole zstd frame", { cause: error });
  }
}
