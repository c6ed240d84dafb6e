import { TREE_BLOB } from "../../repository/blob-index.ts";
import type { BackupStats, CallOptions } from "../contract.ts";
import type { RepositoryAccess } from "./repository-access.ts";

/** How much a repository holds, by its index; no pack is read and no lock taken. */
export async function backupStats(access: RepositoryAccess, _options: CallOptions): Promise<BackupStats> {
  const { storage } = access;
  const [index, packs] = [await access.index(), await storage.list("data")];
  const { table } = index;
  let [data, trees, plain, stored] = [0, 0, 0, 0];
  for (let entry = 0; entry < table.count; entry++) {
    if (table.isForgotten(entry)) continue;
    if (table.typeOf(entry) === TREE_BLOB) trees++;
    else data++;
    stored += table.lengthOf[entry]!;
    plain += table.plainOf[entry]! || table.lengthOf[entry]! - 32;
  }
  const unindexed = packs.filter(({ name }) => index.listings(Buffer.from(name, "hex")) === 0).length;
  return {
    ...access.info,
    snapshots: (await storage.list("snapshots")).length,
    packs: packs.length,
    pack_bytes: packs.reduce((sum, { size }) => sum + size, 0),
    unindexed_packs: unindexed,
    index_files: (await storage.list("index")).length,
    data_blobs: data,
    tree_blobs: trees,
    plain_bytes: plain,
    stored_bytes: stored,
  };
}
