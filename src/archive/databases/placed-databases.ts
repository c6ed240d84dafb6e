import { CairnError } from "../../errors.ts";
import { hex, latin1 } from "../../formats/bytes.ts";
import type { FileHash } from "../../formats/records/manifest.ts";
import { isEntryName, type TreeNode } from "../../formats/restic/tree.ts";
import { displayPath } from "../../fs/paths/safe-path.ts";
import type { BlobSource } from "../../repository/read/blob-source.ts";
import { editTree, type OnTree } from "../../repository/trees/edit-tree.ts";
import type { FolderFacts } from "../../repository/verify/folder-facts.ts";
import { fileNode } from "../write/root-metadata.ts";
import { nameOf, nodeAt, nodeIn, readNodes, treesIn } from "./nodes.ts";
import { folderName, readDatabase, type StoredDatabase } from "./stored-database.ts";

const NOTHING = new Uint8Array(0);
const SLASH = 0x2f;

/** A database and its place, a path relative to a folder. */
export interface PlacedDatabase {
  path: Uint8Array;
  database: StoredDatabase;
}

interface LentTree {
  bytes: Uint8Array;
  /** The folder's tree as the snapshot stores it. */
  stored: Uint8Array;
  databases: readonly PlacedDatabase[];
}

/**
 * The trees of a snapshot, with the entries of databases that lie elsewhere in it. No pack holds these trees; instead
 * of blobs an entry names the SHA-256 of the whole database, except in a save point.
 */
export class PlacedDatabases {
  /** The root tree with the entries of all databases. */
  readonly root: Uint8Array;
  /** Databases that cannot be read and whose paths are not known, by the names of their folders below `/.cairn/databases`. */
  readonly damaged: readonly { name: string; error: CairnError }[];
  readonly #trees: ReadonlyMap<string, LentTree>;
  readonly #byContent: ReadonlyMap<string, StoredDatabase>;

  private constructor(root: Uint8Array, trees: Map<string, LentTree>, damaged: PlacedDatabases["damaged"]) {
    this.root = root;
    this.damaged = damaged;
    this.#trees = trees;
    const all = trees.get(hex(root))?.databases ?? [];
    this.#byContent = new Map(all.map(({ database }) => [database.manifest.sha256, database]));
  }

  /**
   * Reads the databases below a snapshot's `/.cairn/databases`. `root`: tree of the saved folder; `hashes`: reads those
   * of its manifest. An unreadable database still gets its entry; opening it throws the reason.
   */
  static async read(
    reader: BlobSource,
    { folder, root, hashes }: { folder: Uint8Array; root: Uint8Array; hashes: () => readonly FileHash[] },
  ): Promise<PlacedDatabases> {
    const damaged: { name: string; error: CairnError }[] = [];
    const given = new Map<string, StoredDatabase>();
    /** `name`: of the database's folder; null: any folder. */
    const leave = async (name: string | null, error: unknown): Promise<void> => {
      if (!isUnreadable(error)) throw error;
      let isKnown = false;
      for (const hash of hashes()) {
        if (name !== null && folderName(hash.path) !== name) continue;
        if (given.has(latin1(hash.path)) || !(await isFree(reader, root, hash.path))) continue;
        given.set(latin1(hash.path), unreadable(hash, error));
        isKnown = true;
      }
      if (!isKnown) damaged.push({ name: name ?? "", error });
    };
    const read = async (node: TreeNode): Promise<void> => {
      try {
        const database = await readDatabase(reader, node.subtree ?? new Uint8Array(32));
        const { path } = database.manifest;
        if (!(await isFree(reader, root, path)))
          throw new CairnError(
            "damaged",
            `cannot place database ${displayPath(path).path} in the snapshot: its path is taken, or its folder is missing`,
          );
        given.set(latin1(path), database);
      } catch (error) {
        await leave(nameOf(node), error);
      }
    };
    try {
      for (const node of await readNodes(reader, folder)) await read(node);
    } catch (error) {
      await leave(null, error);
    }
    const placed = await PlacedDatabases.place(reader, root, { databases: [...given.values()], damaged });
    placed.lendTo(reader);
    return placed;
  }

  /** Makes the trees of a folder with these databases, which lie nowhere else in it. */
  static async place(
    reader: BlobSource,
    root: Uint8Array,
    { databases: all, damaged = [] }: { databases: readonly StoredDatabase[]; damaged?: PlacedDatabases["damaged"] },
  ): Promise<PlacedDatabases> {
    const trees = new Map<string, LentTree>();
    const databases = all.map((database) => ({ path: database.manifest.path, database }));
    const edits = new Map(databases.map(({ path, database }) => [latin1(path), () => nodeFor(database, path)]));
    const onTree: OnTree = (id, bytes, { id: stored, path }) => {
      const below = databases.filter((each) => path === "" || latin1(each.path).startsWith(`${path}/`));
      const length = path === "" ? 0 : path.length + 1;
      const own = below.map((each) => ({ ...each, path: each.path.subarray(length) }));
      trees.set(hex(id), { bytes, stored, databases: own });
    };
    return new PlacedDatabases(await editTree(root, edits, { list: treesIn(reader), onTree }), trees, damaged);
  }

  /** Makes a reader return these trees. */
  lendTo(reader: BlobSource): void {
    for (const [id, { bytes }] of this.#trees) reader.lend(id, bytes);
  }

  /** Removes these trees from a reader that goes on to another snapshot. */
  takeBackFrom(reader: BlobSource): void {
    for (const id of this.#trees.keys()) reader.takeBack(id);
  }

  /** The bytes of these trees, by id. */
  get lentTrees(): ReadonlyMap<string, Uint8Array> {
    return new Map([...this.#trees].map(([id, { bytes }]) => [id, bytes]));
  }

  /** The stored tree behind one of these trees; any other tree itself. */
  storedTree(tree: Uint8Array): Uint8Array {
    return this.#trees.get(hex(tree))?.stored ?? tree;
  }

  /** The databases below one of these trees. */
  below(tree: Uint8Array): readonly PlacedDatabase[] {
    return this.#trees.get(hex(tree))?.databases ?? [];
  }

  /** The database that an entry's content stands for. */
  of(content: Uint8Array): StoredDatabase | undefined {
    return this.#byContent.get(hex(content));
  }

  /** Facts of the saved folder, with the entries that its trees lack. */
  facts(facts: FolderFacts): FolderFacts {
    const added = new Map<string, TreeNode[]>();
    const special = new Set(facts.special);
    for (const { path, database } of this.below(this.root)) {
      const parts = latin1(path).split("/");
      const folder = parts.slice(0, -1).join("/");
      const { content: _ids, ...withoutIds } = database;
      added.set(folder, [...(added.get(folder) ?? []), nodeFor(withoutIds, path)]);
      for (let n = 0; n < parts.length; n++) special.add(parts.slice(0, n).join("/"));
    }
    return { ...facts, special, added };
  }
}

/** True if `error` concerns one database only, which is then left out. */
export function isUnreadable(error: unknown): error is CairnError {
  return error instanceof CairnError && (error.code === "damaged" || error.code === "newer_version");
}

/** Returns an entry for an unreadable database: a file of which only size and digest are known. */
function unreadable({ path, size, sha256: digest }: FileHash, error: CairnError): StoredDatabase {
  const name = Buffer.from(latin1(path).split("/").at(-1)!, "latin1");
  const node = fileNode(name, { mode: 0o600, uid: 0, gid: 0, mtimeSec: 0, mtimeNs: 0 }, { size, content: NOTHING });
  const manifest = { path, pageSize: 0, pages: 0, sha256: hex(digest), map: "", files: [], node };
  return { manifest, files: new Map(), folders: new Map(), error };
}

/** True if no entry is at a path and no link leads to it. */
async function isFree(reader: BlobSource, root: Uint8Array, path: Uint8Array): Promise<boolean> {
  const names = latin1(path).split("/");
  const name = Buffer.from(names.pop()!, "latin1");
  const folder = names.length === 0 ? root : (await nodeAt(reader, root, names))?.subtree;
  return folder !== undefined && isEntryName(name) && (await nodeIn(reader, folder, name)) === undefined;
}

function nodeFor({ manifest, content }: StoredDatabase, path: Uint8Array): TreeNode {
  const ids = content ?? Buffer.from(manifest.sha256, "hex");
  return { ...manifest.node, name: path.subarray(path.lastIndexOf(SLASH) + 1), content: ids };
}
