import { CairnError } from "../../errors.ts";
import { hex } from "../../formats/bytes.ts";
import { nodeAt } from "../../archive/databases/nodes.ts";
import { isUnreadable, PlacedDatabases } from "../../archive/databases/placed-databases.ts";
import { derivedOf, type StoredDatabase } from "../../archive/databases/stored-database.ts";
import { type BlobIndex, DATA_BLOB } from "../../repository/index/blob-index.ts";
import { BlobSource, type OnDamagedPack } from "../../repository/read/blob-source.ts";
import { type DerivedContent, type DerivedDatabase, derivedIds } from "../../repository/read/derived-blobs.ts";
import { NearPacks } from "../../repository/read/near-packs.ts";
import type { Repository } from "../../repository/repository.ts";
import type { Storage } from "../../repository/storage/storage.ts";
import { readFacts } from "../../repository/verify/folder-facts.ts";
import type { CopyContent } from "./copy-content.ts";
import type { FileBesideTree, PointContent } from "./engine.ts";

/** The parts of a store that views of its points need. */
interface OpenStore {
  repository: Repository;
  storage: Storage;
  index: BlobIndex;
  blobs: BlobSource;
  onDamagedPack: OnDamagedPack;
}

/** The store as readers of one point see it: its databases are plain files, however they are stored. */
export interface PointView {
  index: BlobIndex;
  blobs: BlobSource;
  /** Null: all content of the point lies in packs. */
  derived: DerivedContent | null;
  placed: PlacedDatabases | null;
  /** Databases that cannot be read, and lie nowhere in `placed`. */
  lost: { path: Uint8Array; detail: string }[];
}

/**
 * Opens a point's content for readers. Throws `damaged`, naming the database, if its map cannot be read. `isLenient`:
 * such databases are left out instead.
 */
export async function viewOf(store: OpenStore, content: PointContent, isLenient = false): Promise<PointView> {
  let placed = await placedIn(store, content as CopyContent);
  const lost: PointView["lost"] = [];
  if (placed === null) return { index: store.index, blobs: store.blobs, derived: null, placed, lost };
  const databases: DerivedDatabase[] = [];
  const sound: StoredDatabase[] = [];
  for (const { path, database } of placed.below(placed.root)) {
    try {
      databases.push(await derivedOf(store.blobs, database));
      sound.push(database);
    } catch (error) {
      if (!isLenient || !isUnreadable(error)) throw error;
      lost.push({ path, detail: error.message });
    }
  }
  if (lost.length > 0)
    placed = await PlacedDatabases.place(store.blobs, placed.storedTree(placed.root), { databases: sound });
  else if (hex(placed.root) !== content.tree)
    throw new CairnError("damaged", "the databases of the point do not lie where its tree has them");
  const derived = { trees: placed.lentTrees, databases };
  const { repository, storage, onDamagedPack } = store;
  let made: BlobSource | null = null;
  // Names and trees are read without the copy of the index.
  const blobs = (): BlobSource => {
    if (made !== null) return made;
    const index = store.index.withDerived(derivedIds(derived));
    const packs = new NearPacks(storage, "");
    const { keys } = repository;
    return (made = new BlobSource({ keys, index, packs, onDamagedPack, derived, readsWith: store.blobs }));
  };
  return {
    derived,
    placed,
    lost,
    get index() {
      return blobs().index;
    },
    get blobs() {
      return blobs();
    },
  };
}

/** The databases of a snapshot of a point that lie by pages; null: it has none. Throws `damaged`. */
export async function placedIn(
  { blobs }: Pick<OpenStore, "blobs">,
  { stored_tree: root, snapshot_tree: top }: Pick<CopyContent, "stored_tree" | "snapshot_tree">,
): Promise<PlacedDatabases | null> {
  if (root === undefined) return null;
  const folder = await nodeAt(blobs, Buffer.from(top, "hex"), [".cairn", "databases"]);
  if (folder?.subtree === undefined) return null;
  const placed = await PlacedDatabases.read(blobs, {
    folder: folder.subtree,
    root: Buffer.from(root, "hex"),
    hashes: () => readFacts(blobs, Buffer.from(top, "hex")).manifest?.fileHashes ?? [],
  });
  placed.takeBackFrom(blobs);
  const [lost] = placed.damaged;
  if (lost !== undefined)
    throw new CairnError("damaged", `database ${lost.name.slice(0, -17)}: ${lost.error.message}`, {
      cause: lost.error,
    });
  return placed;
}

/** The databases of a point that lie by pages, for a store that receives them as plain files. */
export function plainFiles({ blobs, placed }: PointView): FileBesideTree[] {
  return (placed?.below(placed.root) ?? []).map(({ path, database: { content = new Uint8Array(0), manifest } }) => ({
    path,
    read: async (take) => {
      for (let at = 0; at < content.length; at += 32) {
        const id = content.subarray(at, at + 32);
        take(id, blobs.readId(id, DATA_BLOB));
      }
      return { ...manifest.node, name: path.subarray(path.lastIndexOf(0x2f) + 1), content };
    },
  }));
}
