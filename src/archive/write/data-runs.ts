/** Offset and length of each, by offset. */
export type HoleList = readonly (readonly [number, number])[];

/** Holes begin and end where the file's blocks of so many bytes do: a file in many small parts is slow to read. */
const ZERO_BLOCK = 64 * 1024;

const ZEROS = Buffer.alloc(ZERO_BLOCK);

/**
 * The parts of bytes that are to be written where `position` in a file is their first: from, to. Blocks of nothing but
 * zeros are left out; so is what the bytes have of a block, as the rest of it may be zeros too.
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

/** The parts of `length` bytes that are to be written, likewise, where the file's holes are known. */
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
