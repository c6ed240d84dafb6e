import { readSync } from "node:fs";
import { hex, latin1 } from "../../formats/bytes.ts";
import { mayBePaged } from "../../formats/payloads/sqlite-pages.ts";
import { openRegular } from "../../fs/regular-file.ts";
import { DATA_BLOB, TREE_BLOB } from "../../repository/index/blob-index.ts";
import { BlobSource } from "../../repository/read/blob-source.ts";
import { derivedIds } from "../../repository/read/derived-blobs.ts";
import { NearPacks } from "../../repository/read/near-packs.ts";
import type { ScanResult } from "../scan/scan.ts";
import { nodeAt } from "../databases/nodes.ts";
import type { BeforeDatabase } from "../databases/page-store.ts";
import type { OpenStore, PointContent, PointView } from "../databases/point-view.ts";
import { plainDatabase } from "../databases/stored-database.ts";

/** The content of head. The databases of a scan are compared with the databases in it. */
export interface BasePoint extends PointView {
  content: PointContent;
}

/** Blobs of the store, of a scan's packs, of its spilled databases and of head's databases. */
export function scannedBlobs(
  store: OpenStore,
  { scan, base }: { scan: Pick<ScanResult, "spilled" | "packs">; base: BasePoint | null },
): BlobSource {
  const trees = new Map(base?.derived?.trees);
  const spilled = new Map<string, () => Uint8Array>();
  const ids = [];
  for (const { id, bytes } of scan.spilled.trees) {
    trees.set(hex(id), bytes);
    ids.push({ id, type: TREE_BLOB, length: bytes.length } as const);
  }
  for (const { id, offset, length } of scan.spilled.blobs) {
    ids.push({ id: Buffer.from(id, "hex"), type: DATA_BLOB, length } as const);
    spilled.set(id, () => {
      const bytes = Buffer.alloc(length);
      readSync(scan.spilled.file!, bytes, 0, length, offset);
      return bytes;
    });
  }
  const derived = { trees, databases: base?.derived?.databases ?? [], spilled };
  const index = store.index.withDerived([...ids, ...derivedIds(derived)]);
  const own = new Map(scan.packs.map((pack) => [hex(pack.id), pack.path]));
  for (const { id, header } of scan.packs) index.addPackHeader(id, header);
  const near = new NearPacks(store.storage, "");
  const packs = { open: (pack: string) => (own.has(pack) ? openRegular(own.get(pack)!) : near.open(pack)) };
  return new BlobSource({ keys: store.repository.keys, index, packs, derived });
}

/** A database as head has it; null if it does not, or as a file of other blobs. */
export async function databaseBefore(
  { content, placed, blobs }: BasePoint,
  { path, pageSize }: { path: Uint8Array; pageSize: number },
): Promise<Omit<BeforeDatabase, "reader"> | null> {
  const known = placed?.below(placed.root).find((each) => latin1(each.path) === latin1(path));
  if (known !== undefined) return { stored: known.database, content: known.database.content ?? null };
  const node = await nodeAt(blobs, Buffer.from(content.tree, "hex"), latin1(path).split("/"));
  if (node?.content === undefined || !mayBePaged(node.size, node.content.length / 32)) return null;
  if (node.size % pageSize !== 0) return null;
  return { stored: plainDatabase(path, node, pageSize), content: node.content };
}
