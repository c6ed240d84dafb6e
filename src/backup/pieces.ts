import { objectIdOf } from "../ids.ts";
import { newPacer } from "../pacer.ts";
import { BlobSource } from "../repository/read/blob-source.ts";
import { type BlobIndex, DATA_BLOB } from "../repository/index/blob-index.ts";
import type { WantedRange } from "../repository/read/near-packs.ts";
import { readBlob } from "../archive/databases/nodes.ts";
import type { PlacedDatabases } from "../archive/databases/placed-databases.ts";
import { DatabasePages } from "../archive/databases/stored-database.ts";
import type { Session } from "./open/session.ts";

/** Bytes of a far file that are fetched at once and kept here. */
const WINDOW_BYTES = 32 * 1024 * 1024;

/** Reads a file's content in proven pieces. `content`: ids of its blobs, 32 bytes each, or the id that stands for a database. */
export async function* piecesOf(
  session: Session,
  { content, placed }: { content: Uint8Array; placed: PlacedDatabases | undefined },
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array> {
  const database = placed?.of(content);
  if (database === undefined) return yield* pieces(session, content, signal);
  const pages = await DatabasePages.open(session.reader, database);
  yield* pages.read(session.near, signal);
}

/** Reads blobs one after the other, each compared with its id. `content`: their ids, 32 bytes each. */
export async function* pieces(
  { access, near, index, onDamagedPack }: Session,
  content: Uint8Array,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array> {
  const { keys } = access.repository;
  const pace = newPacer(signal);
  for (let at = 0; at < content.length;) {
    const window = windowFrom(index, content, at);
    // The reader holds packs open, and the packs of a window are removed with it.
    const reader = new BlobSource({ keys, index, packs: near, signal, onDamagedPack });
    try {
      // A missing blob is reported when it is read.
      await near.fetch(window.ranges, { signal, lenient: true });
      for (; at < window.end; at += 32) {
        await pace();
        yield await readBlob(reader, content.subarray(at, at + 32), DATA_BLOB);
      }
    } finally {
      reader.close();
      for (const { pack } of window.ranges) near.drop(pack);
    }
  }
}

/** The next blobs of a content, up to `end` among its ids. Fetches nothing for a blob that the index lacks. */
function windowFrom(index: BlobIndex, ids: Uint8Array, from: number): { ranges: WantedRange[]; end: number } {
  const ranges: WantedRange[] = [];
  let bytes = 0;
  let end = from;
  for (; end < ids.length && bytes < WINDOW_BYTES; end += 32) {
    const entry = index.lookup(ids, end, DATA_BLOB);
    if (entry < 0) continue;
    const { pack, offset, length } = index.place(entry);
    ranges.push({ pack: objectIdOf(pack), offset, length });
    bytes += length;
  }
  return { ranges, end };
}
