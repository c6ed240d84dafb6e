import { sha256 } from "../../crypto/hash.ts";
import { compareBytes, hex, latin1 } from "../../formats/bytes.ts";
import { decodeTree, encodeTree, type TreeNode } from "../../formats/restic/tree.ts";
import { HASHES_NAME, PAGES_NAME } from "../../formats/payloads/sqlite-pages.ts";
import type { BlobSource } from "../../repository/read/blob-source.ts";
import type { BlobIndex } from "../../repository/index/blob-index.ts";
import { TREE_BLOB } from "../../repository/index/blob-index.ts";
import type { TransferPlan } from "../../repository/transfer/transfer-plan.ts";
import type { ReadTree } from "../../repository/trees/live.ts";
import { CHECKS_NAME } from "../../formats/records/manifest.ts";
import { directoryNode, fileNode } from "../write/root-metadata.ts";
import { nameOf, readNodes } from "./nodes.ts";
import type { FileContent, PagedDatabase, StoreBlob } from "./page-store.ts";

const PRIVATE = { mode: 0o700, uid: 0, gid: 0, mtimeNs: 0 };

/**
 * The trees of a point's snapshot for a repository: without the entries of databases, which lie below
 * `/.cairn/databases` instead, and with a further file in `/.cairn`.
 */
export class PagedTrees {
  /** Id of the topmost tree. */
  readonly tree: Uint8Array;
  /** Files in `/.cairn`, and their bytes. */
  readonly own: { files: number; bytes: number };
  /** The point's trees that have entries of databases, by id, with the names of entries whose content is not transferred. */
  readonly #replaced: ReadonlyMap<string, ReadonlySet<string>>;

  private constructor(tree: Uint8Array, own: PagedTrees["own"], replaced: Map<string, ReadonlySet<string>>) {
    this.tree = tree;
    this.own = own;
    this.#replaced = replaced;
  }

  /**
   * Makes the trees. `top`: the snapshot's tree; `lead`: names of the folders from `top` to the saved folder;
   * `record`: the stored file of the checks.
   */
  static async make(
    blobs: BlobSource,
    {
      top,
      lead,
      databases,
      record,
    }: {
      top: Uint8Array;
      lead: readonly string[];
      databases: readonly PagedDatabase[];
      record: FileContent | null;
    },
    store: StoreBlob,
  ): Promise<PagedTrees> {
    const replaced = new Map<string, Set<string>>();
    const own = { files: 0, bytes: 0 };
    const add = async (nodes: Iterable<TreeNode>): Promise<Uint8Array> => {
      const bytes = encodeTree([...nodes].toSorted((a, b) => compareBytes(a.name, b.name)));
      const id = sha256(bytes);
      await store("tree", id, bytes);
      return id;
    };
    const fileAt =
      (mtimeSec: number) =>
      (name: string, content: FileContent): TreeNode => {
        own.files++;
        own.bytes += content.size;
        return fileNode(Buffer.from(name), { ...PRIVATE, mode: 0o600, mtimeSec }, content);
      };
    const folder = async (mtimeSec: number): Promise<TreeNode> => {
      const nodes: TreeNode[] = [];
      const file = fileAt(mtimeSec);
      for (const { name, files, folders } of databases) {
        const inside = [...files].map(([each, content]) => file(each, content));
        for (const { name: of, pages, hashes, kept } of folders) {
          const both = [file(PAGES_NAME, pages), ...(hashes === null ? [] : [file(HASHES_NAME, hashes)])];
          inside.push(kept ?? directoryNode(Buffer.from(of), await add(both), { ...PRIVATE, mtimeSec }));
        }
        nodes.push(directoryNode(Buffer.from(name), await add(inside), { ...PRIVATE, mtimeSec }));
      }
      return directoryNode(Buffer.from("databases"), await add(nodes), { ...PRIVATE, mtimeSec });
    };
    const records = async (node: TreeNode): Promise<TreeNode> => {
      // A point may have its own databases by pages.
      const others = [...(await readNodes(blobs, node.subtree!))].filter((each) => nameOf(each) !== "databases");
      replaced.set(hex(node.subtree!), new Set(["databases"]));
      own.files += others.length;
      own.bytes += others.reduce((sum, { size }) => sum + size, 0);
      if (databases.length > 0) others.push(await folder(node.mtimeSec));
      if (record !== null) others.push(fileAt(node.mtimeSec)(CHECKS_NAME, record));
      return { ...node, subtree: await add(others) };
    };
    const without = async (tree: Uint8Array, gone: readonly Gone[], depth: number): Promise<Uint8Array> => {
      const byName = Map.groupBy(gone, ({ parts }) => parts[depth]!);
      const nodes: TreeNode[] = [];
      const dropped = new Set<string>();
      for (const node of await readNodes(blobs, tree)) {
        const inside = byName.get(nameOf(node));
        if (depth === 0 && nameOf(node) === ".cairn") nodes.push(await records(node));
        else if (inside === undefined) nodes.push(node);
        else if (inside[0]!.parts.length > depth + 1)
          nodes.push({ ...node, subtree: await without(node.subtree!, inside, depth + 1) });
        else if (!inside[0]!.isBase) dropped.add(nameOf(node));
      }
      // An equal tree may exist elsewhere, with other entries to be left out.
      const before = replaced.get(hex(tree));
      replaced.set(
        hex(tree),
        before === undefined ? dropped : new Set([...before].filter((name) => dropped.has(name))),
      );
      return add(nodes);
    };
    const gone = databases.map(({ path, stored }) => ({
      parts: [...lead, ...latin1(path).split("/")],
      isBase: stored === "base",
    }));
    return new PagedTrees(await without(top, gone, 0), own, replaced);
  }

  /** Returns a function that reads a store's trees for a plan, without the entries whose content is not transferred. */
  readTree({ index, viewTree }: BlobSource): ReadTree {
    const replaced = (bytes: Uint8Array, names: ReadonlySet<string>): Uint8Array =>
      encodeTree([...decodeTree(bytes)].filter((node) => !names.has(nameOf(node))));
    return (entry, next) => {
      const names = this.#replaced.get(hex(index.idOf(entry)));
      const bytes = viewTree(entry, next);
      if (names === undefined || names.size === 0) return bytes;
      return bytes instanceof Uint8Array ? replaced(bytes, names) : bytes.then((plain) => replaced(plain, names));
    };
  }

  /** Removes trees from a plan that the snapshot replaces by others. */
  withoutReplaced(plan: TransferPlan, index: BlobIndex): TransferPlan {
    const isReplaced = (entry: number): boolean =>
      index.table.typeOf(entry) === TREE_BLOB && this.#replaced.has(hex(index.idOf(entry)));
    const gone = plan.entries.filter(isReplaced);
    const sum = (of: (entry: number) => number): number => gone.reduce((total, entry) => total + of(entry), 0);
    return {
      ...plan,
      entries: plan.entries.filter((entry) => !isReplaced(entry)),
      treeBlobs: plan.treeBlobs - gone.length,
      storedBytes: plan.storedBytes - sum((entry) => index.table.lengthOf[entry]!),
      plainBytes: plan.plainBytes - sum((entry) => index.table.plainLengthOf(entry)),
    };
  }
}

interface Gone {
  parts: readonly string[];
  isBase: boolean;
}
