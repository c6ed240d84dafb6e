import { throwIfAborted, toCairnError } from "../../errors.ts";
import { comparePaths, compareBytes, latin1 } from "../../formats/bytes.ts";
import { TreeCursor } from "../../formats/restic/tree-cursor.ts";
import { decodeTree, linkedInode, type TreeNode, type TreeNodes } from "../../formats/restic/tree.ts";
import { type BlobIndex, DATA_BLOB, TREE_BLOB } from "../index/blob-index.ts";
import type { BlobSource } from "../read/blob-source.ts";
import { LiveSet } from "../trees/live.ts";
import { pathIn } from "../trees/walk-trees.ts";
import { NodeDigester, type NodeFacts } from "./node-digests.ts";
import { isPlain, NOTHING, PlainDigester, type PlainNode } from "./plain-digests.ts";
import type { FolderFacts } from "./folder-facts.ts";

/** Marks of a tree without digests. */
const UNREADABLE = -1;
const UNHASHED = -2;

const EMPTY = new Uint8Array(0);
/** Bytes of a tree from which on its encoded entries are hashed at once and not kept, if all entries are files. */
const LARGE = 1024 * 1024;

/** The most milliseconds between two turns of the event loop. */
const SLICE_MS = 20;

export interface TreeTotals {
  /** 32 bytes each; null if a tree below cannot be read, or a file's whole hash is not known yet */
  state: Uint8Array | null;
  meta: Uint8Array | null;
  files: number;
  bytes: number;
}

/** A file of several blobs. */
export interface ChunkedFile {
  content: Uint8Array;
  /** from the manifest; null if the manifest does not have it */
  sha256: Uint8Array | null;
}

export interface DigestWalkOptions {
  blobs: BlobSource;
  /** called with each entry when it is needed */
  onNeed?: (entry: number) => void;
  signal?: AbortSignal | undefined;
}

/** A directory that waits for its subdirectories. */
interface Frame {
  entry: number;
  path: string;
  /** source of the digests: all nodes, or the encoded entries of a plain tree */
  content: TreeNodes | PlainNode;
  /** ids of the subtrees back to back, and their names */
  subtrees: Uint8Array;
  names: string[];
  /** slots of the finished subtrees */
  children: number[];
  files: number;
  bytes: number;
  /** False: the digests are valid only for this path of this point. */
  remember: boolean;
}

/**
 * Walks the trees of points in raw pre-order: marks the needed entries, and computes digests bottom-up. A tree that
 * several points share is read once. Keeps a number for each index entry, and an object only for each open tree.
 */
export class DigestWalk {
  readonly #blobs: BlobSource;
  readonly #index: BlobIndex;
  readonly #options: DigestWalkOptions;
  readonly #digester = new NodeDigester();
  readonly #plainDigester = new PlainDigester();
  readonly #cursor = new TreeCursor();
  /** The needed entries, each needed tree with all below it. Not complete if the walk is `suspicious`. */
  readonly live: LiveSet;
  /** For each index entry: 0 unknown, a slot from 1, or UNREADABLE or UNHASHED. */
  readonly #slotOf: Int32Array;
  #digests = new Uint8Array(64 * 1024);
  #totals = new Float64Array(2 * 1024);
  #slots = 1;
  /** Path of the first member of each hard-link group, by the group's inode. */
  readonly #firstMembers = new Map<string, Buffer>();
  /** Files of several blobs, by their content. */
  readonly chunked = new Map<string, ChunkedFile>();
  /** True if a tree is unreadable, a blob is missing, a file's size differs from its blobs', or a walk has failed. */
  #isSuspicious = false;
  #folder!: FolderFacts;
  #only: Uint8Array | null = null;
  #resumeAt = 0;

  constructor(options: DigestWalkOptions) {
    this.#options = options;
    this.#blobs = options.blobs;
    this.#index = options.blobs.index;
    this.live = new LiveSet(this.#index, options.onNeed);
    this.#slotOf = new Int32Array(this.#index.count);
  }

  get suspicious(): boolean {
    return this.#isSuspicious || !this.live.complete;
  }

  /** Walks the root tree of a point. `only`: name of the only entry of the root that belongs to the point. */
  async folder(tree: Uint8Array, facts: FolderFacts, only: Uint8Array | null = null): Promise<TreeTotals> {
    this.#folder = facts;
    this.#only = only;
    const slot = await this.#slot(tree).catch((error: unknown) => {
      // Some of the needed trees were not walked.
      this.#isSuspicious = true;
      throw error;
    });
    if (slot < 0) return { state: null, meta: null, files: 0, bytes: 0 };
    return {
      state: this.#digests.slice(slot * 64, slot * 64 + 32),
      meta: this.#digests.slice(slot * 64 + 32, slot * 64 + 64),
      files: this.#totals[slot * 2]!,
      bytes: this.#totals[slot * 2 + 1]!,
    };
  }

  /** Marks the entries that a tree needs. Does not enter trees that were walked before; computes no digests. */
  async mark(tree: Uint8Array): Promise<void> {
    await this.live.mark([tree], this.#blobs.viewTree, { signal: this.#options.signal });
  }

  async #slot(tree: Uint8Array): Promise<number> {
    const stack: Frame[] = [];
    let slot = this.#enter(tree, "", stack) ?? 0;
    while (stack.length > 0) {
      await this.#breathe();
      slot = this.#step(stack) ?? slot;
    }
    return slot;
  }

  /** Forgets trees without digests because of an unknown file hash, so that they are tried again. */
  forgetUnhashed(): void {
    const slots = this.#slotOf;
    for (let entry = 0; entry < slots.length; entry++) if (slots[entry] === UNHASHED) slots[entry] = 0;
  }

  async #breathe(): Promise<void> {
    const now = performance.now();
    if (now < this.#resumeAt) return;
    await new Promise((resolve) => {
      setImmediate(resolve);
    });
    throwIfAborted(this.#options.signal);
    this.#resumeAt = performance.now() + SLICE_MS;
  }

  /** Returns the slot of a finished tree; null if the tree was put on the stack. */
  #enter(id: Uint8Array, path: string, stack: Frame[]): number | null {
    const entry = this.#index.lookup(id, 0, TREE_BLOB);
    if (entry < 0) {
      this.#isSuspicious = true;
      return UNREADABLE;
    }
    const only = path === "" ? this.#only : null;
    const remember = only === null && !this.#folder.special.has(path);
    const known = this.#slotOf[entry]!;
    if (remember && known !== 0) return known;
    if (only === null) this.live.add(entry);
    try {
      const bytes = this.#blobs.view(entry);
      const place = { entry, path, remember };
      const frame =
        (remember ? this.#plain(bytes, place) : null) ??
        this.#general(this.#withAdded(nodesOf(this.#blobs.own(bytes), only), path), place);
      if (frame.names.length === 0) return this.#finish(frame);
      stack.push(frame);
      return null;
    } catch (error) {
      if (toCairnError(error).code !== "damaged") throw error;
      this.#isSuspicious = true;
      return this.#keep({ entry, remember }, UNREADABLE);
    }
  }

  #keep(of: { entry: number; remember: boolean }, slot: number): number {
    if (of.remember) this.#slotOf[of.entry] = slot;
    return slot;
  }

  /** Digests a tree without making nodes; null if it has unusual entries. */
  #plain(tree: Uint8Array, place: Pick<Frame, "entry" | "path" | "remember">): Frame | null {
    const cursor = this.#cursor;
    const names: string[] = [];
    let files = 0;
    let bytes = 0;
    this.#plainDigester.begin(tree.length > LARGE ? this.#countFlat(tree) : 0);
    cursor.open(tree);
    while (cursor.next()) {
      let hash: Uint8Array | null = cursor.ids;
      if (!isPlain(cursor)) return null;
      if (cursor.type === "dir") names.push(latin1(cursor.names.subarray(cursor.nameStart, cursor.nameEnd)));
      else if (cursor.type === "file") {
        files++;
        bytes += cursor.size;
        this.#needBlobs(cursor.ids, cursor.idCount * 32, cursor.size);
        if (cursor.idCount === 0) hash = NOTHING;
        else if (cursor.idCount > 1) hash = this.#chunkedHash(cursor, place.path);
        if (hash === null) return null;
      }
      this.#plainDigester.add(cursor, hash);
    }
    if (!cursor.usual) return null;
    const { node, subtrees } = this.#plainDigester.end();
    return { ...place, content: node, subtrees, names, children: [], files, bytes };
  }

  /** Counts the entries of a tree; 0 if it has directories. */
  #countFlat(tree: Uint8Array): number {
    const cursor = this.#cursor;
    let count = 0;
    for (cursor.open(tree); cursor.next(); count++) if (cursor.type === "dir") return 0;
    return cursor.usual ? count : 0;
  }

  #withAdded(nodes: TreeNodes, path: string): TreeNodes {
    const added = this.#folder.added?.get(path);
    if (added === undefined) return nodes;
    return [...nodes, ...added].toSorted((a, b) => compareBytes(a.name, b.name));
  }

  #general(nodes: TreeNodes, place: Pick<Frame, "entry" | "path" | "remember">): Frame {
    const subtrees: Uint8Array[] = [];
    const frame: Frame = { ...place, content: nodes, subtrees: EMPTY, names: [], children: [], files: 0, bytes: 0 };
    for (const node of nodes) {
      if (node.type === "file") this.#file(frame, node);
      if (node.subtree === undefined) continue;
      subtrees.push(node.subtree);
      frame.names.push(latin1(node.name));
    }
    frame.subtrees = Buffer.concat(subtrees);
    return frame;
  }

  #file(frame: Frame, node: TreeNode): void {
    frame.files++;
    frame.bytes += node.size;
    if (this.#folder.added?.get(frame.path)?.includes(node) !== true) this.#needContent(node);
    const group = linkedInode(node);
    if (group !== null) {
      const path = Buffer.from(pathIn(frame.path, node.name), "latin1");
      const first = this.#firstMembers.get(group);
      if (first === undefined || comparePaths(path, first) < 0) this.#firstMembers.set(group, path);
    }
    if ((node.content?.length ?? 0) > 32) this.#chunkedFile(node.content!, node.size, pathIn(frame.path, node.name));
  }

  #chunkedHash(cursor: TreeCursor, directory: string): Uint8Array | null {
    const name = cursor.names.subarray(cursor.nameStart, cursor.nameEnd);
    return this.#chunkedFile(cursor.ids.subarray(0, cursor.idCount * 32), cursor.size, pathIn(directory, name));
  }

  /** Notes a file of several blobs. Returns the hash of its whole content if known. */
  #chunkedFile(content: Uint8Array, size: number, path: string): Uint8Array | null {
    const key = latin1(content);
    const recorded = this.#folder.hashes.get(path);
    const sha256 = recorded?.size === size ? recorded.sha256 : null;
    const known = this.chunked.get(key);
    if (known === undefined) this.chunked.set(key, { content: Uint8Array.from(content), sha256 });
    else known.sha256 ??= sha256;
    return known?.sha256 ?? sha256;
  }

  #needContent(node: TreeNode): void {
    if (node.content !== undefined) this.#needBlobs(node.content, node.content.length, node.size);
  }

  #needBlobs(content: Uint8Array, length: number, wanted: number): void {
    const { table } = this.#index;
    let size = 0;
    for (let at = 0; at < length; at += 32) {
      const entry = table.lookup(content, at, DATA_BLOB);
      if (entry < 0) {
        this.#isSuspicious = true;
        continue;
      }
      this.live.add(entry);
      size += table.plainLengthOf(entry);
    }
    if (size !== wanted) this.#isSuspicious = true;
  }

  /** Continues with the topmost directory. Returns its slot if it is finished. */
  #step(stack: Frame[]): number | null {
    const frame = stack[stack.length - 1]!;
    while (frame.children.length < frame.names.length) {
      const n = frame.children.length;
      const path = frame.path === "" ? frame.names[n]! : `${frame.path}/${frame.names[n]!}`;
      const slot = this.#enter(frame.subtrees.subarray(n * 32, n * 32 + 32), path, stack);
      if (slot === null) return null;
      frame.children.push(slot);
      // Directories without subdirectories finish at once: thousands of them must not take one turn.
      if (performance.now() >= this.#resumeAt && frame.children.length < frame.names.length) return null;
    }
    stack.pop();
    const slot = this.#finish(frame);
    stack.at(-1)?.children.push(slot);
    return slot;
  }

  #finish(frame: Frame): number {
    return this.#keep(frame, this.#slotFor(frame));
  }

  #slotFor(frame: Frame): number {
    const worst = frame.children.reduce((least, child) => Math.min(least, child), 0);
    if (worst < 0) return frame.children.includes(UNREADABLE) ? UNREADABLE : UNHASHED;
    const child = (n: number): Uint8Array =>
      this.#digests.subarray(frame.children[n]! * 64, frame.children[n]! * 64 + 64);
    const { content } = frame;
    const digest =
      "gaps" in content
        ? this.#plainDigester.digest(content, child)
        : this.#digester.digest(content, this.#facts(frame, child));
    if (digest === null) return UNHASHED;
    const slot = this.#newSlot();
    this.#digests.set(digest, slot * 64);
    let { files, bytes } = frame;
    for (const child of frame.children) {
      files += this.#totals[child * 2]!;
      bytes += this.#totals[child * 2 + 1]!;
    }
    this.#totals[slot * 2] = files;
    this.#totals[slot * 2 + 1] = bytes;
    return slot;
  }

  #facts(frame: Frame, child: NodeFacts["child"]): NodeFacts {
    const { overrides } = this.#folder;
    const lossless = (node: TreeNode) => (frame.remember ? undefined : overrides.get(pathIn(frame.path, node.name)));
    return {
      child,
      fileHash: (node) => this.chunked.get(latin1(node.content!))?.sha256 ?? null,
      linkedTo: (node) => {
        if (node.type === "file") return this.#firstMembers.get(linkedInode(node) ?? "");
        return lossless(node)?.find((field) => field.field === "hard_link")?.value;
      },
      lossless,
    };
  }

  #newSlot(): number {
    const slot = this.#slots++;
    if ((slot + 1) * 64 > this.#digests.length) {
      const digests = new Uint8Array(this.#digests.length * 2);
      digests.set(this.#digests);
      this.#digests = digests;
      const totals = new Float64Array(this.#totals.length * 2);
      totals.set(this.#totals);
      this.#totals = totals;
    }
    return slot;
  }
}

function nodesOf(tree: Uint8Array, only: Uint8Array | null): TreeNodes {
  const nodes = decodeTree(tree);
  return only === null ? nodes : [...nodes].filter(({ name }) => compareBytes(name, only) === 0);
}
