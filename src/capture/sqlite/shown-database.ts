import fs from "node:fs";
import path from "node:path";
import { CairnError } from "../../errors.ts";
import type { LOGS } from "../../formats/sqlite-header.ts";
import { writePieces } from "../../fs/durable.ts";
import { openRegular } from "../../fs/regular-file.ts";
import { removeAll } from "../../fs/remove-all.ts";
import { DatabaseProcess } from "./database-process.ts";

const PIECE = 1 << 20;

/** Gives the content of a recorded file: a database, or with an ending the log or journal beside it. */
export type ContentOf = (ending: "" | (typeof LOGS)[number]) => AsyncIterable<Uint8Array>;

/**
 * Returns the content of a recorded database with its logs applied, as a program would find it; null if SQLite cannot
 * apply them. `folder`: a free path for copies, which are removed at the end.
 */
export async function recoveredContent(
  contentOf: ContentOf,
  { logs, folder, signal }: { logs: readonly (typeof LOGS)[number][]; folder: string; signal: AbortSignal | undefined },
): Promise<AsyncGenerator<Uint8Array> | null> {
  const stage = path.join(folder, "stage");
  const image = path.join(folder, "image");
  const sqlite = new DatabaseProcess();
  let isGiven = false;
  try {
    fs.mkdirSync(stage, { recursive: true, mode: 0o700 });
    for (const ending of ["", ...logs] as const) await writePieces(`${image}${ending}`, contentOf(ending), 0o600);
    await sqlite.do("stage", { image: Buffer.from(image), stage, integrityCheck: false }, { signal, scratch: stage });
    isGiven = true;
    return piecesIn(path.join(stage, "image"), folder);
  } catch (error) {
    if (error instanceof CairnError && (error.code === "damaged" || error.code === "usage")) return null;
    throw error;
  } finally {
    await sqlite.close();
    if (!isGiven) removeAll(folder);
  }
}

async function* piecesIn(place: string, folder: string): AsyncGenerator<Uint8Array> {
  try {
    yield* fs.createReadStream(place, { fd: openRegular(place), highWaterMark: PIECE });
  } finally {
    removeAll(folder);
  }
}
