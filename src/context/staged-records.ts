import { closeSync, openSync, readSync } from "node:fs";
import { writeAll, writeNewFile } from "../fs/durable.ts";
import { openRegular, readRegular } from "../fs/regular-file.ts";
import type { ChangePlace } from "./change.ts";
import type { NewRow } from "./index-database.ts";

/** Rows of the index that a change brings, as lines of a file beside what is staged. */

/** A row, and where its vector lies in the staged vectors, in floats. */
export type StagedRow = NewRow & { vectorAt?: { offset: number; dimensions: number } };

const LINES = 1000;

export function stageRecords(changes: ChangePlace, rows: Iterable<StagedRow>): void {
  // What is staged is flushed as one.
  writeNewFile(changes.records, linesOf(rows), 0o600, () => undefined);
}

function* linesOf(rows: Iterable<StagedRow>): Generator<Buffer> {
  let lines: string[] = [];
  for (const row of rows) {
    lines.push(`${JSON.stringify(row)}\n`);
    if (lines.length < LINES) continue;
    yield Buffer.from(lines.join(""));
    lines = [];
  }
  yield Buffer.from(lines.join(""));
}

export async function stageVectors(changes: ChangePlace, pieces: AsyncIterable<Buffer>): Promise<void> {
  const fd = openSync(changes.vectors, "wx", 0o600);
  try {
    for await (const piece of pieces) writeAll(fd, piece);
  } finally {
    closeSync(fd);
  }
}

export function* readStagedRecords(changes: ChangePlace): Generator<NewRow & { vector?: Float32Array }> {
  let vectors: number | undefined;
  try {
    for (const line of readRegular(changes.records).toString("utf8").split("\n")) {
      if (line === "") continue;
      const { vectorAt, ...row } = JSON.parse(line) as StagedRow;
      if (vectorAt === undefined) {
        yield row;
        continue;
      }
      vectors ??= openRegular(changes.vectors);
      const bytes = new Uint8Array(vectorAt.dimensions * 4);
      readSync(vectors, bytes, 0, bytes.length, vectorAt.offset * 4);
      yield { ...row, vector: new Float32Array(bytes.buffer) };
    }
  } finally {
    if (vectors !== undefined) closeSync(vectors);
  }
}
