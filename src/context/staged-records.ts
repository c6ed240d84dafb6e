import { closeSync, openSync, readSync } from "node:fs";
import { writeAll, writePieces } from "../fs/durable.ts";
import { openRegular } from "../fs/regular-file.ts";
import type { ChangePlace } from "./change.ts";
import type { NewRow } from "./index-database.ts";
import type { Level } from "./tree.ts";

/** Rows of the index that a change brings, as lines of a file beside the staged files. */

/** A row, and the place of its vector in the staged vectors, in floats. */
export type StagedRow = NewRow & { vectorAt?: { offset: number; dimensions: number } };

/** The row of a level without a file's content. */
export function rowOf({ path, level, isDirectory, contextType, name }: Level): StagedRow {
  return { path, level, isDirectory, contextType, name };
}

const LINES = 100;
const PIECE = 1 << 20;

/** Writes the rows; the commit flushes all staged files at once. */
export async function stageRecords(
  changes: ChangePlace,
  rows: Iterable<StagedRow> | AsyncIterable<StagedRow>,
): Promise<void> {
  const fd = openSync(changes.records, "wx", 0o600);
  try {
    let lines: string[] = [];
    const write = (): void => {
      writeAll(fd, Buffer.from(lines.join("")));
      lines = [];
    };
    for await (const row of rows) {
      lines.push(`${JSON.stringify(row)}\n`);
      if (lines.length >= LINES) write();
    }
    write();
  } finally {
    closeSync(fd);
  }
}

function* linesIn(path: string): Generator<string> {
  const fd = openRegular(path);
  try {
    let rest: Buffer = Buffer.alloc(0);
    for (;;) {
      const piece = Buffer.allocUnsafe(PIECE);
      const length = readSync(fd, piece, 0, PIECE, null);
      if (length === 0) return;
      rest = Buffer.concat([rest, piece.subarray(0, length)]);
      let from = 0;
      for (let end = rest.indexOf(10); end >= 0; end = rest.indexOf(10, from)) {
        yield rest.toString("utf8", from, end);
        from = end + 1;
      }
      rest = rest.subarray(from);
    }
  } finally {
    closeSync(fd);
  }
}

export async function stageVectors(changes: ChangePlace, pieces: AsyncIterable<Buffer>): Promise<void> {
  await writePieces(changes.vectors, pieces, 0o600);
}

export function* readStagedRecords(changes: ChangePlace): Generator<NewRow & { vector?: Float32Array }> {
  let vectors: number | undefined;
  try {
    for (const line of linesIn(changes.records)) {
      const { vectorAt, ...row } = JSON.parse(line) as StagedRow;
      if (vectorAt === undefined) {
        yield row;
        continue;
      }
      vectors ??= openRegular(changes.vectors);
      const bytes = new Uint8Array(vectorAt.dimensions * 4);
      readSync(vectors, bytes, 0, bytes.length, vectorAt.offset * 4);
      const vector = new Float32Array(bytes.buffer);
      // A vector that no search can compare is made anew.
      const isComparable = vector.every(Number.isFinite) && vector.some((each) => each !== 0);
      yield isComparable ? { ...row, vector } : row;
    }
  } finally {
    if (vectors !== undefined) closeSync(vectors);
  }
}
