import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { dataRuns, runsAround } from "./data-runs.ts";

describe("data runs", () => {
  const ZERO_BLOCK = 65_536;
  const bytes = new Uint8Array(6 * ZERO_BLOCK).fill(1);
  bytes.fill(0, ZERO_BLOCK, 4 * ZERO_BLOCK);

  test("whole blocks of zeros are left out when they are blocks of the file", () => {
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

  test("parts of blocks are left out when all that these bytes have of them is zeros", () => {
    const zeros = new Uint8Array(2 * ZERO_BLOCK);
    assert.deepEqual([...dataRuns(zeros, 10)], []);
    assert.deepEqual([...dataRuns(zeros, 3 * 2 ** 32 - 5)], []);
    assert.deepEqual([...dataRuns(zeros.subarray(0, 100), ZERO_BLOCK)], []);
    zeros[ZERO_BLOCK] = 1;
    assert.deepEqual([...dataRuns(zeros, 10)], [[ZERO_BLOCK - 10, 2 * ZERO_BLOCK - 10]]);
    assert.deepEqual([...dataRuns(new Uint8Array(0), 5)], []);
  });

  test("bytes around holes are written when the holes reach beyond the bytes' ends", () => {
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
