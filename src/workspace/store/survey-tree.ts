import { sha256 } from "../../crypto/hash.ts";
import { CairnError } from "../../errors.ts";
import { compareBytes, joinPath, latin1 } from "../../formats/bytes.ts";
import type { EntryCounts } from "../../formats/records/descriptor.ts";
import { decodeTree, encodeTree, type TreeNode } from "../../formats/restic/tree.ts";
import { type FoundIgnoreFile, IGNORE_FILE, MAX_IGNORE_FILE_BYTES } from "../../fs/ignore.ts";
import type { PathSelection } from "../../fs/path-selection.ts";
import { newPacer, type Pacer } from "../../pacer.ts";
import { DATA_BLOB, TREE_BLOB } from "../../repository/index/blob-index.ts";
import type { ContentElsewhere } from "./engine.ts";
import type { ExtraBlob } from "../../archive/scan/store-sink.ts";

const KINDS: Partial<Record<TreeNode["type"], keyof EntryCounts>> = {
  file: "files",
  dir: "directories",
  symlink: "links",
};

/** Counts an entry by its kind, each name on its own. */
export function countEntry(counts: EntryCounts, { type }: Pick<TreeNode, "type">): void {
  counts[KINDS[type] ?? "other"]++;
}

/** Counts of a tree, or of its chosen entries. */
export interface Survey {
  /** Id of the tree itself, or of a new tree with only the chosen entries. */
  tree: Uint8Array;
  /** All new trees if `tree` is a new tree; else empty. */
  blobs: ExtraBlob[];
  entries: EntryCounts;
  /** Bytes of all files, each name counted. */
  bytes: number;
  /** Ignore files of the whole tree, including entries that are not chosen. */
  ignoreFiles: FoundIgnoreFile[];
}

/**
 * Reads every directory of a tree in another repository. Throws `damaged` if one cannot be read. `files`: chosen files
 * that the tree lacks, by their latin1 paths.
 */
export async function surveyTree(
  from: ContentElsewhere,
  tree: Uint8Array,
  call: {
    only: PathSelection | null;
    files?: ReadonlyMap<string, TreeNode>;
    signal?: AbortSignal | undefined;
  },
): Promise<Survey> {
  const survey = new TreeSurvey(from, call, newPacer(call.signal));
  const made = await survey.directory(tree, new Uint8Array(0), call.only === null ? "whole" : call.only.of(ROOT));
  return { ...survey.found, tree: made };
}

const ROOT = new Uint8Array(0);

class TreeSurvey {
  readonly found: Omit<Survey, "tree"> = {
    blobs: [],
    entries: { files: 0, directories: 0, links: 0, other: 0 },
    bytes: 0,
    ignoreFiles: [],
  };
  readonly #from: ContentElsewhere;
  readonly #only: PathSelection | null;
  /** Files that the tree lacks, by the latin1 paths of their directories. */
  readonly #added: ReadonlyMap<string, readonly (readonly [string, TreeNode])[]>;
  readonly #pace: Pacer;

  constructor(from: ContentElsewhere, { only, files = new Map() }: Parameters<typeof surveyTree>[2], pace: Pacer) {
    this.#from = from;
    this.#only = only;
    this.#added = Map.groupBy(files, ([path]) => path.slice(0, Math.max(path.lastIndexOf("/"), 0)));
    this.#pace = pace;
  }

  /** Returns the id of the directory with only its chosen entries, and with added files. */
  async directory(id: Uint8Array, path: Uint8Array, wanted: "whole" | "part" | "no"): Promise<Uint8Array> {
    await this.#pace();
    const kept: TreeNode[] = [];
    const added = wanted === "no" ? [] : (this.#added.get(latin1(path)) ?? []);
    let isChanged = wanted === "part" || added.length > 0;
    for (const node of decodeTree(await this.#blob(id, TREE_BLOB))) {
      const own = joinPath(path, node.name);
      const chosen = wanted === "part" ? this.#only!.of(own) : wanted;
      if (node.type === "file" && Buffer.from(node.name).toString("latin1") === IGNORE_FILE)
        await this.#ignoreFile(node, path);
      if (node.subtree !== undefined) {
        const subtree = await this.directory(Uint8Array.from(node.subtree), own, chosen);
        if (chosen !== "no") this.#keep(kept, { ...node, subtree });
        isChanged ||= compareBytes(subtree, node.subtree) !== 0;
      } else if (chosen === "whole") this.#keep(kept, node);
    }
    for (const [, node] of added) this.#keep(kept, node);
    return isChanged ? this.#made(kept.toSorted((a, b) => compareBytes(a.name, b.name))) : id;
  }

  #keep(kept: TreeNode[], node: TreeNode): void {
    kept.push(node);
    countEntry(this.found.entries, node);
    if (node.type === "file") this.found.bytes += node.size;
  }

  #made(nodes: readonly TreeNode[]): Uint8Array {
    const bytes = encodeTree(nodes);
    const id = sha256(bytes);
    this.found.blobs.push({ id, type: "tree", bytes });
    return id;
  }

  async #ignoreFile({ size, content = ROOT }: TreeNode, directory: Uint8Array): Promise<void> {
    if (size > MAX_IGNORE_FILE_BYTES) return;
    const parts: Uint8Array[] = [];
    for (let at = 0; at < content.length; at += 32)
      parts.push(await this.#blob(content.subarray(at, at + 32), DATA_BLOB));
    this.found.ignoreFiles.push({
      directory: Buffer.from(directory).toString("latin1"),
      text: Buffer.concat(parts).toString("latin1"),
    });
  }

  async #blob(id: Uint8Array, type: typeof DATA_BLOB | typeof TREE_BLOB): Promise<Uint8Array> {
    const { index, blobs } = this.#from;
    const entry = index.lookup(id, 0, type);
    if (entry < 0) throw new CairnError("damaged", `the repository has no blob ${Buffer.from(id).toString("hex")}`);
    return type === TREE_BLOB ? blobs.readTree(entry) : blobs.readBlob(entry);
  }
}
