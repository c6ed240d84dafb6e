import { presentSource } from "../../engines/scan/present-source.ts";
import type { ScanResult } from "../../engines/scan/scan.ts";
import { exactNode, losslessByPath } from "../../engines/write/exact-nodes.ts";
import { compareBytes } from "../../formats/bytes.ts";
import type { Manifest } from "../../formats/manifest.ts";
import type { TreeNode } from "../../formats/tree.ts";
import type { PathSelection } from "../../fs/path-selection.ts";

/** What was to be written, and what of it is known not to be as it was saved. */
export interface Written {
  root: Uint8Array;
  manifest: Manifest | null;
  /** entries of a tree; null where it cannot be read */
  list: (tree: Uint8Array) => Promise<TreeNode[] | null>;
  /** null: everything */
  chosen: PathSelection | null;
  /** lost, with all below */
  lost: PathSelection;
  /** in latin1; there, and not of the kind or mode that was saved */
  unlike: ReadonlySet<string>;
}

export interface Compared {
  /** what is otherwise than it was saved, raw paths */
  wrong: Uint8Array[];
  /** files whose content cannot be told by what the snapshot says of them */
  untold: number;
}

/**
 * Compares a folder that was read again with the snapshot it was written from, entry by entry: kind, mode, size, content
 * and where links lead to. For what no digest of the whole can tell: parts, and folders that lack something.
 */
export async function compareWritten(found: ScanResult, written: Written): Promise<Compared> {
  return new Comparison(found, written).run();
}

class Comparison {
  readonly #written: Written;
  readonly #present: ReturnType<typeof presentSource>;
  readonly #lossless: ReturnType<typeof losslessByPath>;
  readonly #saved: ReadonlyMap<string, Uint8Array>;
  readonly #read: ReadonlyMap<string, Uint8Array>;
  readonly #result: Compared = { wrong: [], untold: 0 };

  constructor(found: ScanResult, written: Written) {
    this.#written = written;
    this.#present = presentSource(found);
    this.#lossless = losslessByPath(written.manifest?.lossless ?? []);
    const byPath = (hashes: readonly { path: Uint8Array; sha256: Uint8Array }[]): Map<string, Uint8Array> =>
      new Map(hashes.map(({ path, sha256 }) => [key(path), sha256]));
    this.#saved = byPath(written.manifest?.fileHashes ?? []);
    this.#read = byPath(found.summarise().hashes);
  }

  async run(): Promise<Compared> {
    await this.#directory(this.#written.root, this.#present.root, new Uint8Array(0));
    return this.#result;
  }

  async #directory(tree: Uint8Array, there: Uint8Array, path: Uint8Array): Promise<void> {
    const wanted = await this.#written.list(tree);
    // What was in it is lost, and named.
    if (wanted === null) return;
    const present = new Map(this.#present.list(there).map((node) => [key(node.name), node]));
    for (const node of wanted) {
      const own = path.length === 0 ? node.name : Buffer.concat([path, SLASH, node.name]);
      const now = present.get(key(node.name)) ?? null;
      present.delete(key(node.name));
      if (this.#written.chosen?.of(own) === "no" || this.#written.lost.chosenAt(own) !== null) continue;
      await this.#entry(own, node, now);
    }
    for (const node of present.values())
      this.#result.wrong.push(path.length === 0 ? node.name : Buffer.concat([path, SLASH, node.name]));
  }

  async #entry(path: Uint8Array, saved: TreeNode, now: TreeNode | null): Promise<void> {
    const { chosen, unlike } = this.#written;
    const isUnlike = unlike.has(key(path));
    if (isUnlike && (now === null || now.type !== saved.type)) return;
    // Directories that only lead to what was chosen have no mode of their own.
    const hasMode = !isUnlike && chosen?.of(path) !== "part" && saved.type !== "symlink";
    if (now === null || now.type !== saved.type || (hasMode && now.mode !== saved.mode))
      return void this.#result.wrong.push(path);
    const node = exactNode(saved, this.#lossless.get(key(path)));
    if (node.type === "dir") return this.#directory(node.subtree!, now.subtree!, path);
    if (node.type === "file") return this.#file(path, node, now);
    if (node.type === "symlink" && compareBytes(node.linktarget!, now.linktarget!) !== 0) this.#result.wrong.push(path);
  }

  #file(path: Uint8Array, saved: TreeNode, now: TreeNode): void {
    if (now.size !== saved.size) return void this.#result.wrong.push(path);
    if (saved.size === 0) return;
    const [was, is] = [hashOf(saved, this.#saved.get(key(path))), hashOf(now, this.#read.get(key(path)))];
    if (was === undefined || is === undefined) this.#result.untold++;
    else if (compareBytes(was, is) !== 0) this.#result.wrong.push(path);
  }
}

/** SHA-256 of a file: one blob's name is, of several only a manifest says it. */
function hashOf({ content }: TreeNode, recorded: Uint8Array | undefined): Uint8Array | undefined {
  return content?.length === 32 ? content : recorded;
}

const SLASH = Buffer.from("/");

function key(path: Uint8Array): string {
  return Buffer.from(path).toString("latin1");
}
