import { CairnError } from "../../errors.ts";
import { Sha256Stream } from "../../crypto/hash.ts";
import { compareBytes, hex } from "../../formats/bytes.ts";
import { decodeTree, type TreeNode } from "../../formats/restic/tree.ts";
import { printablePath } from "../../fs/paths/safe-path.ts";
import type { TreeSource } from "../../repository/trees/tree-source.ts";
import { nodeAt } from "./nodes.ts";
import { isUnreadable, PlacedDatabases } from "./placed-databases.ts";
import { derivedOf, folderName, type StoredDatabase } from "./stored-database.ts";
import { type BlobIndex, DATA_BLOB } from "../../repository/index/blob-index.ts";
import { BlobSource, type OnDamagedPack } from "../../repository/read/blob-source.ts";
import { type DerivedContent, type DerivedDatabase, derivedIds } from "../../repository/read/derived-blobs.ts";
import { NearPacks } from "../../repository/read/near-packs.ts";
import type { Repository } from "../../repository/repository.ts";
import type { Storage } from "../../repository/storage/storage.ts";
import { type FolderFacts, readFacts } from "../../repository/verify/folder-facts.ts";

/** The parts of a store that views of its points need. */
export interface OpenStore {
  repository: Repository;
  storage: Storage;
  index: BlobIndex;
  blobs: BlobSource;
  onDamagedPack: OnDamagedPack;
}

/** The trees of a point, by ids in hex, as its descriptor has them. */
export interface PointContent {
  /** of the folder, with the entries of all databases */
  tree: string;
  /** of the folder as the store has it; absent: `tree` */
  stored_tree?: unknown;
  snapshot_tree?: unknown;
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
  let placed = await placedIn(store, content);
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
  { stored_tree: root, snapshot_tree: top }: Pick<PointContent, "stored_tree" | "snapshot_tree">,
): Promise<PlacedDatabases | null> {
  if (typeof root !== "string" || typeof top !== "string") return null;
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

/** The databases of a point that lie by pages, for a store that receives them as plain files: raw paths and content. */
export function plainFiles({ blobs, placed }: PointView): {
  path: Uint8Array;
  read(take: (id: Uint8Array, bytes: Uint8Array) => void): Promise<TreeNode>;
}[] {
  return (placed?.below(placed.root) ?? []).map(({ path, database: { content = NOTHING, manifest } }) => ({
    path,
    read: async (take) => {
      for (const id of idsIn(content)) take(id, blobs.readId(id, DATA_BLOB));
      return { ...manifest.node, name: path.subarray(path.lastIndexOf(0x2f) + 1), content };
    },
  }));
}

const NOTHING = new Uint8Array(0);

function* idsIn(content: Uint8Array): Generator<Uint8Array> {
  for (let at = 0; at < content.length; at += 32) yield content.subarray(at, at + 32);
}

/** Shows a tree of a store as a readable state. */
export function sourceOf(store: ReadsBlobs, root: Uint8Array, view: PointView): TreeSource {
  const raw = (tree: Uint8Array): Uint8Array => view.derived?.trees.get(hex(tree)) ?? store.read(tree, "tree");
  return {
    root,
    list: (directory) => decodeTree(raw(directory)),
    raw,
    sizeOf: (id) => sizeOf(store.index, id) ?? sizeOf(view.index, id),
    *content(node) {
      let piece: Uint8Array | undefined;
      let last: Uint8Array = NOTHING;
      for (const id of idsIn(node.content ?? NOTHING)) {
        // A hole is the same blob of zeros many times.
        if (piece === undefined || compareBytes(id, last) !== 0) piece = store.read(id, "data", view);
        last = id;
        yield piece;
      }
    },
  };
}

interface ReadsBlobs {
  index: BlobIndex;
  /** Throws `damaged` if the blob is missing or differs from its id. */
  read(id: Uint8Array, type: "data" | "tree", from?: Pick<PointView, "index" | "blobs">): Uint8Array;
}

function sizeOf(index: BlobIndex, id: Uint8Array): number | undefined {
  const entry = index.entryOf({ id, type: "data" });
  return entry < 0 ? undefined : index.plainLength(entry);
}

/**
 * Adds a point's databases to the facts of its folder. `deep`: also reads these databases as a whole. Returns damage as
 * `problem`.
 */
export async function factsWithDatabases(
  store: OpenStore,
  content: PointContent,
  { facts, deep }: { facts: FolderFacts; deep: boolean },
): Promise<{ facts: FolderFacts; problem: string | null }> {
  let problem: string | null = null;
  try {
    const { blobs, placed } = await viewOf(store, content);
    for (const { path, database } of deep ? (placed?.below(placed.root) ?? []) : []) {
      const whole = new Sha256Stream();
      for (const id of idsIn(database.content ?? NOTHING)) whole.update(blobs.readId(id, DATA_BLOB));
      if (hex(whole.digest()) !== database.manifest.sha256)
        problem = `${printablePath(path)} differs from its recorded SHA-256`;
    }
    return { facts: placed?.facts(facts) ?? facts, problem };
  } catch (error) {
    if (!isUnreadable(error)) throw error;
    return { facts, problem: error.message };
  }
}

/** The raw path of the database to which a path in a snapshot's tree belongs; null: it belongs to none. */
export function databaseAt(blobs: BlobSource, snapshotTree: Uint8Array, path: string): Uint8Array | null {
  const [records, databases, name] = path.split("/");
  if (records !== ".cairn" || databases !== "databases") return null;
  const hashes = readFacts(blobs, snapshotTree).manifest?.fileHashes ?? [];
  return hashes.find((hash) => folderName(hash.path) === name)?.path ?? null;
}
