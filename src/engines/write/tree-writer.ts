import fs from "node:fs";
import { CairnError, toCairnError } from "../../errors.ts";
import { latin1 } from "../../formats/bytes.ts";
import { openBelow } from "../../fs/open-below.ts";
import { PathSelection } from "../../fs/path-selection.ts";
import { quotedPath } from "../../fs/safe-path.ts";
import { openDirectory, putName, syscallError } from "../../fs/syscalls.ts";
import { arenaOver, newArena } from "../../native.ts";
import { BlobIndex, DATA_BLOB, type SharedIndex, TREE_BLOB } from "../../repository/blob-index.ts";
import { type BlobPlace, BlobReader } from "../../repository/blob-reader.ts";
import type { MasterKeys } from "../../crypto/seal.ts";
import { decodeTree, linkedInode, type TreeNode } from "../../formats/tree.ts";
import { HeldFiles, type HeldTree } from "../tree/held-files.ts";
import { exactNode, firstOfGroup, type LosslessByPath } from "./exact-nodes.ts";
import { LeftEntries } from "./left-entries.ts";
import { type HoleList, NodeWriter, type NotSet } from "./node-writer.ts";

/** What every thread that writes a tree is given. */
export interface WriteTask {
  keys: MasterKeys;
  index: SharedIndex;
  /** the repository's `data` folder */
  packs: string;
  /** absolute path of the folder being filled, raw bytes */
  target: Uint8Array;
  /** exact holes of sparse files: path in latin1 → [offset, length] pairs */
  holes: ReadonlyMap<string, HoleList>;
  lossless: LosslessByPath;
  /** raw paths to be written with what they are in; null: everything */
  paths: readonly Uint8Array[] | null;
  readOnly: boolean;
  /** the folder holds what one that was killed has written of the same */
  resumes: boolean;
  held: HeldTree | null;
  /** by number of a pack: 0 where some of it is still on its way; null: all are there. In shared memory */
  here: Uint8Array | null;
  /** word 0: threads that wait for work; word 1: stop */
  control: SharedArrayBuffer;
}

export interface DirectoryJob {
  /** path below the target, raw bytes, empty for the target itself */
  path: Uint8Array;
  tree: Uint8Array;
  /** own metadata, set when the content is complete; null for the target itself */
  node: Omit<TreeNode, "content"> | null;
  /** everything below is wanted, whatever the task's paths are */
  whole: boolean;
}

export interface LargeFile {
  path: Uint8Array;
  node: TreeNode;
  /** it was there, and holds some of its content or all */
  isLeft?: boolean;
}

/** A member of a hard-link group; equal groups are one entry. */
export interface LinkedEntry extends LargeFile {
  group: string;
}

/** A run of chunks of a large file. */
export interface RangeJob {
  file: number;
  path: Uint8Array;
  content: Uint8Array;
  /** offset of the run's first byte in the file; sizes are looked up in the index */
  position: number;
  /** some of it may be there already */
  compares: boolean;
}

/** What one thread did with one batch of work. */
export interface WriteOutcome {
  /** directories, links, pipes, … */
  others: number;
  files: number;
  bytes: number;
  /** of these, what was there already */
  keptBytes: number;
  /** files to be written in several runs, created and sized already */
  large: LargeFile[];
  /** directories of which nothing is done yet, because content of their files is still on its way in these packs */
  waiting: { job: DirectoryJob; packs: number[] }[];
  /** members of hard-link groups, left to the caller */
  linked: LinkedEntry[];
  /** directories whose final mode would lock their owner out, left to the caller */
  closed: { path: Uint8Array; node: Omit<TreeNode, "content"> }[];
  notSet: NotSet[];
  damaged: { path: Uint8Array; detail: string }[];
}

const LARGE = 16 * 1024 * 1024;
const OPEN_FLAGS = fs.constants.O_RDWR | fs.constants.O_NOFOLLOW;
const DIRECTORY = fs.constants.O_RDONLY | fs.constants.O_DIRECTORY | fs.constants.O_NOFOLLOW;
const IDLE = 0;
const STOP = 1;

/** Writes directories of a tree, top down, on one thread. */
export class TreeWriter {
  readonly #task: WriteTask;
  readonly #index: BlobIndex;
  readonly #reader: BlobReader;
  readonly #nodes: NodeWriter;
  readonly #control: Int32Array;
  readonly #held: HeldFiles | null;
  readonly #left: LeftEntries | null;
  readonly #selection: PathSelection;
  readonly #path = newArena(8192);
  readonly #target: number;
  #out = newOutcome();

  constructor(task: WriteTask) {
    this.#task = task;
    this.#index = BlobIndex.fromShared(task.index);
    this.#reader = new BlobReader({ keys: task.keys, openPack: (id) => openPack(task.packs, id) });
    this.#control = new Int32Array(task.control);
    this.#target = openDirectory(Buffer.from(task.target));
    this.#selection = new PathSelection(task.paths ?? []);
    this.#held = task.held === null ? null : new HeldFiles(task.held);
    // What a directory that is left passes on is not told by the root.
    this.#nodes = new NodeWriter({ readOnly: task.readOnly, ...(task.resumes ? {} : { within: this.#target }) });
    this.#left = task.resumes ? new LeftEntries(this.#nodes.sys, this.#index) : null;
  }

  /** Works a stack of directories off; hands half of it to `share` whenever another thread waits. */
  directories(jobs: DirectoryJob[], share: (jobs: DirectoryJob[]) => void): WriteOutcome {
    this.#out = newOutcome();
    const stack = jobs;
    while (stack.length > 0) {
      if (Atomics.load(this.#control, STOP) !== 0) throw new CairnError("interrupted", "the restore was stopped");
      if (stack.length > 1 && Atomics.load(this.#control, IDLE) > 0) share(stack.splice(0, stack.length >> 1));
      const job = stack.pop()!;
      const nodes = this.#tree(job);
      const packs = this.#onTheirWay(nodes);
      if (packs.length > 0) this.#out.waiting.push({ job, packs });
      else stack.push(...this.#directory(job, nodes));
    }
    this.#out.notSet = this.#nodes.notSet.splice(0);
    return this.#out;
  }

  #open(path: Uint8Array): number {
    return this.#checked(openBelow(this.#nodes.sys, this.#target, path, DIRECTORY, this.#path), path);
  }

  #checked(fd: number, path: Uint8Array): number {
    if (fd < 0) throw syscallError(fd, `cannot open the directory ${quotedPath(path)}`);
    return fd;
  }

  /** Packs that files of a directory still wait for, also those that are not wanted; what the caller writes later is left out. */
  #onTheirWay(nodes: readonly TreeNode[]): number[] {
    const { here } = this.#task;
    if (here === null) return [];
    const packs = new Set<number>();
    const { packOf } = this.#index.table;
    for (const node of nodes) {
      const { type, content, size } = node;
      if (type !== "file" || content === undefined) continue;
      if (linkedInode(node) !== null || (size > LARGE && content.length > 32)) continue;
      for (let at = 0; at < content.length; at += 32) {
        const entry = this.#index.lookup(content, at, DATA_BLOB);
        if (entry >= 0 && Atomics.load(here, packOf[entry]!) === 0) packs.add(packOf[entry]!);
      }
    }
    return [...packs];
  }

  #directory(job: DirectoryJob, nodes: readonly TreeNode[]): DirectoryJob[] {
    const fd = this.#open(job.path);
    const children: DirectoryJob[] = [];
    try {
      const small: { node: TreeNode; place: BlobPlace }[] = [];
      for (const stored of nodes) {
        const path = job.path.length === 0 ? stored.name : Buffer.concat([job.path, SLASH, stored.name]);
        const wanted = job.whole ? "whole" : this.#wanted(path, stored);
        if (wanted === "no") continue;
        const fields = this.#task.lossless.size === 0 ? undefined : this.#task.lossless.get(latin1(path));
        const node = exactNode(stored, fields);
        const group = firstOfGroup(fields) ?? linkedInode(node);
        if (node.type === "dir") {
          const make = (): void => this.#nodes.directory(fd, { name: node.name, path });
          if (this.#left?.enters(fd, node.name) !== true && !this.#nodes.holds(path, "type", make)) continue;
          this.#out.others++;
          const { content: _content, ...own } = node;
          children.push({ path, tree: node.subtree!, node: own, whole: wanted === "whole" });
        } else if (node.type === "file") this.#nodes.holds(path, "type", () => this.#file(fd, node, path, small));
        else if (group !== null) this.#out.linked.push({ path, node, group });
        else if (node.type !== "irregular" && this.#special(fd, node, path)) this.#out.others++;
      }
      this.#writeSmall(fd, job.path, small);
      if (job.node !== null) this.#finishDirectory(fd, job.node, job.path);
    } finally {
      this.#nodes.sys.close(fd);
    }
    return children;
  }

  #special(fd: number, node: TreeNode, path: Uint8Array): boolean {
    this.#left?.clear(fd, node.name);
    return this.#nodes.special(fd, node, { name: node.name, path });
  }

  /** Whether an entry is selected with all below it, only leads to one that is, or neither. */
  #wanted(path: Uint8Array, node: TreeNode): "whole" | "part" | "no" {
    const wanted = this.#selection.of(path);
    return wanted === "part" && node.type !== "dir" ? "no" : wanted;
  }

  #finishDirectory(fd: number, node: Omit<TreeNode, "content">, path: Uint8Array): void {
    // Also for user 0, whose rights may be no more than its own.
    if ((node.mode & 0o700) !== 0o700 && !this.#task.readOnly) this.#out.closed.push({ path, node });
    else this.#nodes.finishDirectory(fd, node, path);
  }

  #tree(job: DirectoryJob): TreeNode[] {
    const entry = this.#index.lookup(job.tree, 0, TREE_BLOB);
    try {
      if (entry < 0)
        throw new CairnError(
          "damaged",
          `tree ${Buffer.from(job.tree).toString("hex").slice(0, 12)} is not in the store`,
        );
      return decodeTree(this.#reader.read({ ...this.#index.place(entry), id: job.tree }));
    } catch (error) {
      if (!(error instanceof CairnError) || error.code !== "damaged") throw error;
      this.#out.damaged.push({ path: job.path, detail: error.message });
      return [];
    }
  }

  #file(fd: number, node: TreeNode, path: Uint8Array, small: { node: TreeNode; place: BlobPlace }[]): void {
    const content = node.content ?? EMPTY;
    const place = { name: node.name, path };
    const group = linkedInode(node);
    if (group !== null) return void this.#out.linked.push({ path, node, group });
    const isLarge = node.size > LARGE && (content.length > 32 || this.#task.holes.has(latin1(path)));
    if (!isLarge && this.#left?.keeps(fd, node) === true) {
      this.#out.files++;
      this.#out.bytes += node.size;
      this.#out.keptBytes += node.size;
      return;
    }
    if (content.length === 0) {
      this.#nodes.file(fd, node, place, []);
      this.#out.files++;
      return;
    }
    const held = this.#held;
    if (held !== null && this.#nodes.filledFile(fd, node, place, (to) => held.fill(path, node, to))) {
      this.#out.files++;
      this.#out.bytes += node.size;
      return;
    }
    if (content.length === 32 && !this.#task.holes.has(latin1(path))) {
      const entry = this.#index.lookup(content, 0, DATA_BLOB);
      if (entry < 0)
        return void this.#out.damaged.push({
          path,
          detail: `blob ${Buffer.from(content).toString("hex").slice(0, 12)} is not in the store`,
        });
      small.push({ node, place: { ...this.#index.place(entry), id: content } });
      return;
    }
    if (isLarge) {
      const isLeft = this.#left?.opens(fd, node.name) === true;
      const created = isLeft ? this.#openFile(path) : this.#nodes.create(fd, place);
      try {
        this.#nodes.setSize(created, node.size, path);
      } catch (error) {
        this.#nodes.remove(fd, node.name);
        throw error;
      } finally {
        this.#nodes.sys.close(created);
      }
      this.#out.large.push({ path, node, isLeft });
      return;
    }
    this.#whole(fd, node, path);
  }

  /** A file of several blobs, or with holes, on this thread alone. */
  #whole(fd: number, node: TreeNode, path: Uint8Array): void {
    const holes = this.#task.holes.get(latin1(path));
    try {
      this.#nodes.file(
        fd,
        node,
        { name: node.name, path, ...(holes === undefined ? {} : { holes }) },
        this.#pieces(node.content!),
      );
      this.#out.files++;
      this.#out.bytes += node.size;
    } catch (error) {
      if (!(error instanceof CairnError) || error.code !== "damaged") throw error;
      this.#out.damaged.push({ path, detail: error.message });
      this.#nodes.remove(fd, node.name);
    }
  }

  *#pieces(content: Uint8Array): Iterable<Uint8Array> {
    for (let at = 0; at < content.length; at += 32) yield this.#blob(content.subarray(at, at + 32));
  }

  /** Good until the next one. */
  #blob(id: Uint8Array): Uint8Array {
    const entry = this.#index.lookup(id, 0, DATA_BLOB);
    if (entry < 0)
      throw new CairnError("damaged", `blob ${Buffer.from(id).toString("hex").slice(0, 12)} is not in the store`);
    return this.#reader.view({ ...this.#index.place(entry), id });
  }

  /** Files of one blob each: read in the order of the packs, in large reads. */
  #writeSmall(fd: number, directory: Uint8Array, small: { node: TreeNode; place: BlobPlace }[]): void {
    small.sort((a, b) => Buffer.compare(a.place.pack, b.place.pack) || a.place.offset - b.place.offset);
    for (let from = 0; from < small.length;) {
      let to = from + 1;
      while (to < small.length && Buffer.compare(small[to]!.place.pack, small[from]!.place.pack) === 0) to++;
      this.#writePack(fd, directory, small.slice(from, to));
      from = to;
    }
  }

  #writePack(fd: number, directory: Uint8Array, files: { node: TreeNode; place: BlobPlace }[]): void {
    const pathOf = (node: TreeNode): Uint8Array =>
      directory.length === 0 ? node.name : Buffer.concat([directory, SLASH, node.name]);
    const seen = new Set<number>();
    const damaged = (i: number, error: CairnError): void => {
      seen.add(i);
      this.#out.damaged.push({ path: pathOf(files[i]!.node), detail: error.message });
    };
    try {
      this.#reader.readWindow(
        files.map((file) => file.place),
        (i, arena, offset, length) => {
          seen.add(i);
          const { node } = files[i]!;
          const path = pathOf(node);
          let created = -1;
          const create = (): void => void (created = this.#nodes.create(fd, { name: node.name, path }));
          if (!this.#nodes.holds(path, "type", create)) return;
          this.#nodes.write(created, arena, { offset, length, position: 0, path });
          this.#nodes.finishFile(created, node, path);
          this.#nodes.sys.close(created);
          this.#out.files++;
          this.#out.bytes += length;
        },
        damaged,
      );
    } catch (error) {
      if (!(error instanceof CairnError) || error.code !== "damaged") throw error;
      for (let i = 0; i < files.length; i++) if (!seen.has(i)) damaged(i, error);
    }
  }

  /** Writes a run of chunks into a file that exists; the bytes written. */
  range(job: RangeJob): { bytes: number; kept: number; damaged: string | null } {
    const sys = this.#nodes.sys;
    const fd = this.#openFile(job.path);
    const holes = this.#task.holes.get(latin1(job.path));
    const left = job.compares ? this.#left : null;
    let position = job.position;
    let kept = 0;
    try {
      for (let at = 0; at < job.content.length; at += 32) {
        const there = left?.heldBytes(fd, position, { ids: job.content, at }) ?? 0;
        if (there > 0) {
          position += there;
          kept += there;
          continue;
        }
        const bytes = this.#blob(job.content.subarray(at, at + 32));
        this.#nodes.write(fd, arenaOver(bytes), { offset: 0, length: bytes.length, position, path: job.path, holes });
        position += bytes.length;
      }
      return { bytes: position - job.position, kept, damaged: null };
    } catch (error) {
      if (!(error instanceof CairnError) || error.code !== "damaged") throw error;
      return { bytes: position - job.position, kept, damaged: error.message };
    } finally {
      sys.close(fd);
    }
  }

  #openFile(path: Uint8Array): number {
    const slash = Buffer.from(path).lastIndexOf(47);
    const directory = this.#open(path.subarray(0, Math.max(slash, 0)));
    putName(this.#path, 0, path.subarray(slash + 1));
    const fd = this.#nodes.sys.open(directory, this.#path, 0, OPEN_FLAGS, 0);
    this.#nodes.sys.close(directory);
    return this.#checked(fd, path);
  }

  /** Metadata of a large file whose runs are all written. */
  finishLarge(file: LargeFile): NotSet[] {
    const fd = this.#openFile(file.path);
    this.#nodes.finishFile(fd, file.node, file.path);
    this.#nodes.sys.close(fd);
    return this.#nodes.notSet.splice(0);
  }

  close(): void {
    this.#held?.close();
    this.#reader.close();
    fs.closeSync(this.#target);
  }
}

function openPack(folder: string, id: string): number {
  try {
    return fs.openSync(`${folder}/${id.slice(0, 2)}/${id}`, "r");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw toCairnError(error, "reading a pack");
    throw new CairnError("damaged", `pack ${id.slice(0, 12)} is missing from the store`);
  }
}

const SLASH = Buffer.from("/");
const EMPTY = new Uint8Array(0);

function newOutcome(): WriteOutcome {
  return {
    others: 0,
    files: 0,
    bytes: 0,
    keptBytes: 0,
    large: [],
    waiting: [],
    linked: [],
    closed: [],
    notSet: [],
    damaged: [],
  };
}
