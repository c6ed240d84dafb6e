import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { dataRuns, runsAround } from "./data-runs.ts";

describe("runs of data in a sparse file", () => {
  const ZERO_BLOCK = 65_536;
  const bytes = new Uint8Array(6 * ZERO_BLOCK).fill(1);
  bytes.fill(0, ZERO_BLOCK, 4 * ZERO_BLOCK);

  test("dataRuns leaves out whole blocks of zeros that are aligned to the file", () => {
    assert.deepEqual(
      [...dataRuns(bytes, 0)],
      [
        [0, ZERO_BLOCK],
        [4 * ZERO_BLOCK, 6 * ZERO_BLOCK],
      ],
    );
    assert.deepEqual([...dataRuns(bytes.subarray(ZERO_BLOCK, 4 * ZERO_BLOCK), ZERO_BLOCK)], []);
    // One byte later in the file the first block begins a byte before these bytes' second.
    assert.deepEqual(
      [...dataRuns(bytes, 1)],
      [
        [0, 2 * ZERO_BLOCK - 1],
        [4 * ZERO_BLOCK - 1, 6 * ZERO_BLOCK],
      ],
    );
  });

  test("dataRuns leaves out a part of a block if all given bytes of that block are zeros", () => {
    const zeros = new Uint8Array(2 * ZERO_BLOCK);
    assert.deepEqual([...dataRuns(zeros, 10)], []);
    assert.deepEqual([...dataRuns(zeros, 3 * 2 ** 32 - 5)], []);
    assert.deepEqual([...dataRuns(zeros.subarray(0, 100), ZERO_BLOCK)], []);
    zeros[ZERO_BLOCK] = 1;
    assert.deepEqual([...dataRuns(zeros, 10)], [[ZERO_BLOCK - 10, 2 * ZERO_BLOCK - 10]]);
    assert.deepEqual([...dataRuns(new Uint8Array(0), 5)], []);
  });

  test("runsAround returns the bytes between holes that reach beyond the given range", () => {
    const holes: [number, number][] = [
      [0, 10],
      [20, 10],
      [95, 100],
    ];
    assert.deepEqual(
      [...runsAround(holes, 5, 95)],
      [
        [5, 15],
        [25, 90],
      ],
    );
    assert.deepEqual([...runsAround(holes, 100, 50)], []);
    assert.deepEqual([...runsAround([], 7, 3)], [[0, 3]]);
  });
});
