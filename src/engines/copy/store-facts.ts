import fs from "node:fs";
import path from "node:path";
import { decodeRecord, encodeRecord } from "../../formats/record.ts";
import { putDisposable, readDisposable } from "../../fs/disposable-file.ts";
import { makeFolder } from "../../fs/make-folder.ts";
import { packBytes } from "../../repository/pack-bytes.ts";
import type { StoreFacts } from "../engine.ts";
import type { EmbeddedStore } from "./embedded-store.ts";
import type { StorePaths } from "./store-paths.ts";

/** How much a store holds, from its index; and in a file, with the index files that say so, for who does not open it. */

const FORMAT = "cairn.store-size";
const VERSION = 1;

export async function storeFactsOf(
  { index, repository }: EmbeddedStore,
  ask: { foreign?: boolean },
): Promise<StoreFacts> {
  const bytes = packBytes(index.table);
  if (ask.foreign !== true) return { bytes, repositoryId: repository.id, foreign: false };
  const { snapshots, damaged } = await repository.listSnapshots();
  // One that cannot be read may be anybody's.
  const foreign =
    damaged.length > 0 ||
    snapshots.some(({ snapshot }) => snapshot.tags?.some((tag) => tag.startsWith("cairn:")) !== true);
  return { bytes, repositoryId: repository.id, foreign };
}

/** Bytes in a store as they were kept; null where they were not, or its index files are others now. */
export function keptStoreBytes({ repository, storeSize }: StorePaths): number | null {
  return readDisposable(storeSize, (fd) => {
    const { fields } = decodeRecord(fs.readFileSync(fd), FORMAT, VERSION);
    const known = fields.texts("index_files");
    const present = new Set(fs.readdirSync(path.join(repository, "index")));
    if (known.length !== present.size || !known.every((name) => present.has(name))) return null;
    return fields.integer("bytes");
  });
}

/** Returns the bytes in a store, which are kept for the next call. */
export function keepStoreBytes({ index, paths }: EmbeddedStore): number {
  const bytes = packBytes(index.table);
  const temporary = `${paths.storeSize}.${process.pid}`;
  const record = { bytes, index_files: [...index.covered].toSorted() };
  try {
    makeFolder(paths.cache);
    fs.writeFileSync(temporary, encodeRecord(record, FORMAT, VERSION), { mode: 0o600 });
    putDisposable(temporary, paths.storeSize);
  } catch {
    // Then the store is opened for it the next time, too.
  }
  return bytes;
}
