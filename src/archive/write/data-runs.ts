/** Offset and length of each, by offset. */
export type HoleList = readonly (readonly [number, number])[];

/** Holes align with blocks of this many bytes: a file in many small parts is slow to read. */
const ZERO_BLOCK = 64 * 1024;

const ZEROS = Buffer.alloc(ZERO_BLOCK);

/**
 * The parts [from, to) of `bytes` to be written, if the first byte belongs at `position` of the file. Skips blocks of
 * zeros; also a partial block of zeros, since the rest of the block may be zeros too.
 */
export function* dataRuns(bytes: Uint8Array, position: number): Generator<[number, number]> {
  let from = 0;
  for (let at = 0; at < bytes.length;) {
    const end = Math.min(bytes.length, at + ZERO_BLOCK - ((position + at) & (ZERO_BLOCK - 1)));
    if (Buffer.compare(bytes.subarray(at, end), ZEROS.subarray(0, end - at)) === 0) {
      if (at > from) yield [from, at];
      from = end;
    }
    at = end;
  }
  if (from < bytes.length) yield [from, bytes.length];
}

/** The parts [from, to) of `length` bytes to be written, if the file's holes are known. */
export function* runsAround(holes: HoleList, position: number, length: number): Generator<[number, number]> {
  let from = 0;
  for (const [hole, size] of holes) {
    const [begin, end] = [hole - position, hole - position + size];
    if (end <= from || begin >= length) continue;
    if (begin > from) yield [from, begin];
    from = Math.min(length, end);
  }
  if (from < length) yield [from, length];
}
