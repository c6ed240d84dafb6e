import { append } from "../../append.ts";
import fs from "node:fs";
import { CairnError } from "../../errors.ts";
import { comparePaths, directoryOf, joinPath, latin1 } from "../../formats/bytes.ts";
import { openBelow } from "../../fs/linux/open-below.ts";
import { changingInside } from "../../fs/owner-writes.ts";
import { PathSelection } from "../../fs/path-selection.ts";
import { quotedPath } from "../../fs/paths/safe-path.ts";
import { openDirectory, syscallError } from "../../fs/linux/syscalls.ts";
import { arenaOver, newArena } from "../../native.ts";
import { BlobIndex, DATA_BLOB, TREE_BLOB } from "../../repository/index/blob-index.ts";
import { BlobSource, type BlobSourceOptions } from "../../repository/read/blob-source.ts";
import { packFolder } from "../../repository/read/near-packs.ts";
import { canBeOne, decodeTree, linkedInode, type TreeNode, type TreeNodes } from "../../formats/restic/tree.ts";
import type { BlobTable } from "../../repository/index/blob-table.ts";
import { WORTH_SHARING, workOf } from "../../threads/shared-work.ts";
import { HeldFiles } from "./held-files.ts";
import { exactNode, firstOfGroup, OwnersByName } from "./exact-nodes.ts";
import { LeftEntries } from "./left-entries.ts";
import { isAnother, NodeWriter, type NotSet } from "./node-writer.ts";
import {
  type DirectoryJob,
  type FilesJob,
  type LargeFile,
  type LinkedEntry,
  newOutcome,
  type RangeJob,
  type Share,
  type WriteEvent,
  type WriteOutcome,
  type WriteRequest,
  type WriteTask,
} from "./write-jobs.ts";

const LARGE = 16 * 1024 * 1024;
const FILE = fs.constants.O_RDWR | fs.constants.O_NOFOLLOW;
const DIRECTORY = fs.constants.O_RDONLY | fs.constants.O_DIRECTORY | fs.constants.O_NOFOLLOW;
const OWNER_READS = 0o400;
const IDLE = 0;
const STOP = 1;

/** Number of small files written between two checks for waiting threads. */
const RUN = 256;

/** A file that one thread writes as a whole. */
interface WholeFile {
  /** number of its node in its tree */
  at: number;
  /** number of its only blob in the index; -1 for several blobs or for holes */
  entry: number;
  size: number;
}

/** Files of a directory that are written together. */
interface FilesOf extends Omit<FilesJob, "nodes"> {
  nodes: TreeNodes;
  files: WholeFile[];
}

/** Writes the share of a tree that one thread has. */
export class WriteRunner {
  readonly #post: (event: WriteEvent) => void;
  readonly #share: Share = (work) => this.#post({ work });
  #writer: TreeWriter | null = null;

  constructor(post: (event: WriteEvent) => void) {
    this.#post = post;
  }

  handle(request: WriteRequest): unknown {
    switch (request.kind) {
      case "write-begin":
        this.#writer?.close();
        this.#writer = new TreeWriter(request.task, {
          onDamagedPack: (damaged, isElsewhere) => this.#post({ damaged, isElsewhere }),
        });
        return null;
      case "write-directories":
        return this.#writer!.directories(request.jobs, this.#share);
      case "write-files":
        return this.#writer!.files(request.job, this.#share);
      case "write-range":
        return this.#writer!.range(request.job);
      case "write-finish":
        return this.#writer!.finishLarge(request.file, request.isDamaged);
      case "write-last":
        return this.#writer!.last(request);
      case "write-end":
        this.#writer?.close();
        this.#writer = null;
        return null;
    }
  }
}

/** Writes directories of a tree, top down, on one thread. */
export class TreeWriter {
  readonly #task: WriteTask;
  readonly #index: BlobIndex;
  readonly #blobs: BlobSource;
  #nodes: NodeWriter;
  readonly #control: Int32Array;
  readonly #held: HeldFiles | null;
  readonly #left: LeftEntries | null;
  readonly #owners: OwnersByName | null;
  readonly #selection: PathSelection;
  readonly #path = newArena(8192);
  readonly #target: number;
  #out = newOutcome();
  #partsOf: { tree: Uint8Array; nodes: TreeNodes } | null = null;

  constructor(task: WriteTask, told: Pick<BlobSourceOptions, "onDamagedPack">) {
    this.#task = task;
    this.#index = BlobIndex.fromShared(task.index);
    const { keys, derived } = task;
    this.#blobs = new BlobSource({ keys, index: this.#index, packs: packFolder(task.packs), derived, ...told });
    this.#control = new Int32Array(task.control);
    this.#target = openDirectory(Buffer.from(task.target));
    this.#selection = new PathSelection(task.paths ?? []);
    this.#held = task.held === undefined ? null : new HeldFiles(task.held);
    // After a resume the root does not show which group and access lists the existing directories pass on.
    const { readOnly, newBits, sparse, resumes = false } = task;
    this.#nodes = new NodeWriter({ readOnly, newBits, sparse, ...(resumes ? {} : { within: this.#target }) });
    this.#owners = task.ownersByName === true ? new OwnersByName() : null;
    this.#left = resumes ? new LeftEntries(this.#nodes.sys, this.#index) : null;
  }

  /** Writes a stack of directories; gives half of it, or of a directory's files, to `share` whenever another thread waits. */
  directories(jobs: DirectoryJob[], share: Share): WriteOutcome {
    return this.#noting(() => {
      const stack = jobs;
      while (stack.length > 0) {
        this.#checkStop();
        if (stack.length > 1 && this.#isWaitedFor()) share(stack.splice(0, stack.length >> 1));
        const job = stack.pop()!;
        const nodes = this.#tree(job);
        const packs = this.#onTheirWay(nodes);
        if (packs.length > 0) this.#out.waiting.push({ job, packs });
        else append(stack, this.#directory(job, nodes, share));
      }
    });
  }

  /** Writes files that another thread gave away. */
  files(job: FilesJob, share: Share): WriteOutcome {
    return this.#noting(() => {
      const { path, tree } = job;
      // The files of a long directory come in several jobs, so its nodes are kept.
      if (this.#partsOf === null || Buffer.compare(this.#partsOf.tree, tree) !== 0)
        this.#partsOf = { tree, nodes: this.#tree({ path, tree }) };
      const { nodes } = this.#partsOf;
      // The tree cannot be read, which `#tree()` has reported. The next job reads it again and reports its own
      // directory.
      if (nodes.length === 0) return void (this.#partsOf = null);
      const fd = this.#open(path);
      try {
        // The thread that gave the files away has found them in the index.
        const files = Array.from(job.nodes, (at) => this.#wholeFile(this.#nodeAt({ path, nodes }, at), at)!);
        this.#writeFiles(fd, { path, tree, nodes, files }, share);
      } finally {
        this.#nodes.sys.close(fd);
      }
    });
  }

  #noting(work: () => void): WriteOutcome {
    this.#out = newOutcome();
    work();
    this.#out.notSet = this.#nodes.notSet.splice(0);
    this.#out.unknownOwners = [...(this.#owners?.unknown ?? [])];
    return this.#out;
  }

  #checkStop(): void {
    if (Atomics.load(this.#control, STOP) !== 0) throw new CairnError("interrupted", "the restore was stopped");
  }

  /** True once per waiting thread: the work given away then is for that thread. */
  #isWaitedFor(): boolean {
    if (Atomics.load(this.#control, IDLE) <= 0) return false;
    Atomics.sub(this.#control, IDLE, 1);
    return true;
  }

  #open(path: Uint8Array, flags = DIRECTORY): number {
    const fd = openBelow(this.#nodes.sys, this.#target, path, flags, this.#path);
    if (fd < 0) throw syscallError(fd, `cannot open ${quotedPath(path)}`);
    return fd;
  }

  /** Packs that files of a directory still wait for, also unselected files; not those of files that the caller writes later. */
  #onTheirWay(nodes: TreeNodes): number[] {
    const { here } = this.#task;
    if (here === null) return [];
    const packs = new Set<number>();
    const { packOf } = this.#index.table;
    for (const node of nodes) {
      const { type, content, size } = node;
      if (type !== "file" || content === undefined) continue;
      if (linkedInode(node) !== null || (size > LARGE && content.length > 32 && this.#sizeOf(node) > LARGE)) continue;
      for (let at = 0; at < content.length; at += 32) {
        const entry = this.#index.lookup(content, at, DATA_BLOB);
        if (entry >= 0 && Atomics.load(here, packOf[entry]!) === 0) packs.add(packOf[entry]!);
      }
    }
    return [...packs];
  }

  #directory(job: DirectoryJob, nodes: TreeNodes, share: Share): DirectoryJob[] {
    const fd = this.#open(job.path);
    const children: DirectoryJob[] = [];
    try {
      const files: WholeFile[] = [];
      for (let at = 0; at < nodes.length; at++) {
        if (at % RUN === 0) this.#checkStop();
        const stored = nodes.at(at)!;
        const path = joinPath(job.path, stored.name);
        const wanted = job.whole ? "whole" : this.#wanted(path, stored);
        if (wanted === "no") continue;
        const { node, group, claimed } = this.#exact(path, stored);
        if (claimed !== null) this.#out.damaged.push({ path, detail: otherSize(node.size, claimed) });
        if (node.type === "dir") {
          const make = (): void => this.#nodes.directory(fd, { name: node.name, path });
          if (this.#left?.enters(fd, node.name) !== true && !this.#nodes.holds(path, "type", make)) continue;
          this.#out.others++;
          const { content: _content, ...own } = node;
          children.push({ path, tree: node.subtree!, node: own, whole: wanted === "whole" });
        } else if (node.type === "file")
          this.#nodes.holds(path, "type", () => this.#file(fd, { node, path }, { at, files }));
        else if (group !== null) this.#out.linked.push({ path, node, group });
        else if (node.type !== "irregular") {
          this.#left?.clear(fd, node.name);
          if (this.#nodes.special(fd, node, { name: node.name, path })) this.#out.others++;
        }
      }
      // Read in the order of the packs, in large reads.
      files.sort(byPlace(this.#index.table));
      const isShared = this.#writeFiles(fd, { ...job, nodes, files }, share);
      if (job.node !== null) this.#finishDirectory(fd, { path: job.path, node: job.node }, isShared);
    } finally {
      this.#nodes.sys.close(fd);
    }
    return children;
  }

  /**
   * A node with the manifest's facts of it, and its hard-link group. `size` is the size of its pieces; `claimed` the
   * node's own size, if it differs.
   */
  #exact(path: Uint8Array, stored: TreeNode): Exact {
    const { lossless } = this.#task;
    const fields = lossless === undefined || lossless.size === 0 ? undefined : lossless.get(latin1(path));
    const exact = exactNode(stored, fields);
    const node = this.#owners?.of(exact) ?? exact;
    const group = firstOfGroup(fields) ?? linkedInode(node);
    const size = this.#sizeOf(node);
    return size === node.size
      ? { path, node, group, claimed: null }
      : { path, node: { ...node, size }, group, claimed: node.size };
  }

  #nodeAt({ path, nodes }: Pick<FilesOf, "path" | "nodes">, at: number): Exact {
    const node = nodes.at(at)!;
    return this.#exact(joinPath(path, node.name), node);
  }

  /**
   * Returns the size of a file's pieces; the node's size if the index lacks one, which is reported when the pieces are
   * read.
   */
  #sizeOf({ type, content, size: claimed }: TreeNode): number {
    if (type !== "file" || content === undefined) return claimed;
    let size = 0;
    for (let at = 0; at < content.length; at += 32) {
      const entry = this.#index.lookup(content, at, DATA_BLOB);
      if (entry < 0) return claimed;
      size += this.#index.table.plainLengthOf(entry);
    }
    return size;
  }

  /** Tells whether an entry is selected as a whole, leads to a selected one, or neither. */
  #wanted(path: Uint8Array, node: TreeNode): "whole" | "part" | "no" {
    const wanted = this.#selection.of(path);
    return wanted === "part" && node.type !== "dir" ? "no" : wanted;
  }

  #finishDirectory(fd: number, directory: WriteOutcome["closed"][number], isShared: boolean): void {
    const { path, node } = directory;
    // Also for root, which may have no additional rights.
    const locksOut = (node.mode & 0o700) !== 0o700 && this.#task.readOnly !== true;
    if (isShared || locksOut) this.#out.closed.push(directory);
    else this.#nodes.finishDirectory(fd, node, path);
  }

  #tree(job: Pick<DirectoryJob, "path" | "tree">): TreeNodes {
    const entry = this.#index.lookup(job.tree, 0, TREE_BLOB);
    try {
      if (entry < 0) throw notInStore("tree", job.tree);
      return decodeTree(this.#blobs.read(entry));
    } catch (error) {
      if (!(error instanceof CairnError) || error.code !== "damaged") throw error;
      this.#out.damaged.push({ path: job.path, detail: error.message });
      return [];
    }
  }

  /** Writes a file, or adds it to `files` to be written later as a whole. */
  #file(fd: number, file: LargeFile, { at, files }: { at: number; files: WholeFile[] }): void {
    const { node, path } = file;
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
    if (this.#isCloned(fd, node, path)) return;
    if (isLarge) {
      const isLeft = this.#left?.opens(fd, node.name) === true;
      const created = isLeft ? this.#open(path, FILE) : this.#nodes.create(fd, place);
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
    const one = this.#wholeFile(file, at);
    if (one === null) this.#out.damaged.push({ path, detail: notInStore("blob", content).message });
    else files.push(one);
  }

  /** Clones a file of the held tree; false if that tree does not have it. */
  #isCloned(fd: number, node: TreeNode, path: Uint8Array): boolean {
    const held = this.#held;
    const place = { name: node.name, path };
    if (held === null || !this.#nodes.filledFile(fd, node, place, (to) => held.fill(path, node, to))) return false;
    this.#out.files++;
    this.#out.bytes += node.size;
    return true;
  }

  /** Null if the store lacks its only blob. */
  #wholeFile({ node, path }: LargeFile, at: number): WholeFile | null {
    const content = node.content!;
    const { size } = node;
    if (content.length > 32 || this.#task.holes.has(latin1(path))) return { at, entry: -1, size };
    const entry = this.#index.lookup(content, 0, DATA_BLOB);
    if (entry < 0) return null;
    return { at, entry: this.#blobs.isInPieces(entry) ? -1 : entry, size };
  }

  /** Writes a file on this thread alone. Returns false, and lists the file, if its content is damaged. */
  #whole(fd: number, node: TreeNode, path: Uint8Array): boolean {
    const holes = this.#task.holes.get(latin1(path));
    try {
      this.#nodes.file(
        fd,
        node,
        { name: node.name, path, ...(holes === undefined ? {} : { holes }) },
        this.#pieces({ ...node, content: node.content ?? EMPTY }),
      );
      this.#out.files++;
      this.#out.bytes += node.size;
      return true;
    } catch (error) {
      if (!(error instanceof CairnError) || error.code !== "damaged") throw error;
      this.#out.damaged.push({ path, detail: error.message });
      this.#nodes.remove(fd, node.name);
      return false;
    }
  }

  /** The content of a file, or of a run of its chunks; each piece is valid until the next one. */
  *#pieces(file: { content: Uint8Array; mode: number }): Iterable<Uint8Array> {
    const { content } = file;
    for (let at = 0; at < content.length; at += 32) {
      const entry = this.#index.lookup(content, at, DATA_BLOB);
      if (entry < 0) throw notInStore("blob", content.subarray(at, at + 32));
      for (const piece of this.#blobs.pieces(entry, this.#compares(file))) {
        this.#checkStop();
        yield piece;
      }
    }
  }

  /**
   * True if the pieces of a file are compared with their ids: a later full read may not be allowed to read this file.
   */
  #compares({ mode }: { mode: number }): boolean {
    return this.#task.comparesPieces !== false || (mode & OWNER_READS) === 0;
  }

  /** Writes files of a directory, giving half of the rest to another thread whenever one waits. True if it gave some away. */
  #writeFiles(fd: number, what: FilesOf, share: Share): boolean {
    const { path, tree, files } = what;
    let work = workOfAll(files);
    let isShared = false;
    for (let from = 0; from < files.length;) {
      this.#checkStop();
      if (files.length - from > 1 && work >= WORTH_SHARING && this.#isWaitedFor()) {
        const given = files.splice(halfOf(files, from, work));
        work -= workOfAll(given);
        // Posts copies: posting a view would move its whole buffer to the other thread.
        share({
          path: Uint8Array.from(path),
          tree: Uint8Array.from(tree),
          nodes: Uint32Array.from(given, ({ at }) => at),
        });
        isShared = true;
      }
      const to = runEnd(this.#index.table, files, from);
      const run = files.slice(from, to);
      const nodes = run.map(({ at }) => this.#nodeAt(what, at));
      const { node, path: first } = nodes[0]!;
      if (run[0]!.entry < 0) this.#nodes.holds(first, "type", () => this.#whole(fd, node, first));
      else this.#writePack(fd, nodes, run);
      work -= workOfAll(run);
      from = to;
    }
    return isShared;
  }

  /** Files of one blob each, all of one pack. */
  #writePack(fd: number, files: readonly LargeFile[], of: readonly WholeFile[]): void {
    const entries = of.map(({ entry }) => entry);
    this.#blobs.readWindow(entries, {
      compares: (i) => this.#compares(files[i]!.node),
      each: (i, arena, offset, length) => {
        this.#checkStop();
        const { node, path } = files[i]!;
        let created = -1;
        const mode = this.#nodes.firstMode(node);
        const create = (): void => void (created = this.#nodes.create(fd, { name: node.name, path }, mode));
        if (!this.#nodes.holds(path, "type", create)) return;
        this.#nodes.content(created, arena, { offset, length, path });
        this.#nodes.finishFile(created, node, path, mode);
        this.#nodes.sys.close(created);
        this.#out.files++;
        this.#out.bytes += length;
      },
      onDamage: (i, error) => void this.#out.damaged.push({ path: files[i]!.path, detail: error.message }),
    });
  }

  /** Writes a run of chunks into an existing file; returns the bytes written. */
  range(job: RangeJob): { bytes: number; kept: number; damaged: string | null } {
    const sys = this.#nodes.sys;
    const fd = this.#open(job.path, FILE);
    const holes = this.#task.holes.get(latin1(job.path));
    const left = job.compares ? this.#left : null;
    const content = Buffer.from(job.content);
    let bytes: Uint8Array | undefined;
    let position = job.position;
    let kept = 0;
    try {
      for (let at = 0; at < job.content.length; at += 32) {
        this.#checkStop();
        const there = left?.heldBytes(fd, position, { ids: job.content, at }) ?? 0;
        if (there > 0) {
          position += there;
          kept += there;
          bytes = undefined;
          continue;
        }
        // A hole repeats one piece of zeros.
        const isAgain = bytes !== undefined && content.compare(content, at - 32, at, at, at + 32) === 0;
        const pieces = isAgain ? [bytes!] : this.#pieces({ ...job, content: job.content.subarray(at, at + 32) });
        const start = position;
        for (bytes of pieces) {
          const part = { offset: 0, length: bytes.length, position, path: job.path, holes, over: job.compares };
          this.#nodes.write(fd, arenaOver(bytes), part);
          position += bytes.length;
        }
        if (bytes?.length !== position - start) bytes = undefined;
      }
      return { bytes: position - job.position, kept, damaged: null };
    } catch (error) {
      if (!(error instanceof CairnError) || error.code !== "damaged") throw error;
      return { bytes: position - job.position, kept, damaged: error.message };
    } finally {
      sys.close(fd);
    }
  }

  /** Sets the metadata of a large file whose runs are all written, or removes the file. */
  finishLarge({ path, node }: LargeFile, isDamaged: boolean): NotSet[] {
    const { sys } = this.#nodes;
    const fd = isDamaged ? this.#open(directoryOf(path)) : this.#open(path, FILE);
    if (isDamaged) this.#nodes.remove(fd, node.name);
    else this.#nodes.finishFile(fd, node, path);
    sys.close(fd);
    return this.#nodes.notSet.splice(0);
  }

  /**
   * Makes the members of hard-link groups, whose directories keep their times; then finishes directories, the deepest
   * first. All other work on the tree is done.
   */
  last({ linked, closed }: Pick<WriteOutcome, "linked" | "closed">): WriteOutcome {
    const { readOnly, sparse } = this.#task;
    // Finished directories may pass on a group or access lists that the target does not have.
    this.#nodes = new NodeWriter({ readOnly, sparse });
    const { sys } = this.#nodes;
    const inside = (path: Uint8Array, work: (fd: number) => void): void => {
      this.#checkStop();
      const fd = this.#open(path);
      try {
        work(fd);
      } finally {
        sys.close(fd);
      }
    };
    return this.#noting(() => {
      const first = new Map<string, LinkedEntry>();
      const sorted = linked.toSorted((a, b) => comparePaths(a.path, b.path));
      for (let from = 0, to = 0; from < sorted.length; from = to) {
        const parent = directoryOf(sorted[from]!.path);
        while (to < sorted.length && Buffer.compare(directoryOf(sorted[to]!.path), parent) === 0) to++;
        const members = sorted.slice(from, to);
        inside(parent, (fd) =>
          changingInside(sys, fd, () => {
            for (const each of members)
              this.#nodes.holds(each.path, "type", () => this.#member(fd, each, { first, inside }));
          }),
        );
      }
      for (const { path, node } of closed.toSorted((a, b) => comparePaths(b.path, a.path)))
        inside(path, (fd) => this.#nodes.finishDirectory(fd, node, path));
    });
  }

  /** Links a member to the first one of its group; writes the member if it is the first or cannot be linked. */
  #member(
    fd: number,
    member: LinkedEntry,
    by: { first: Map<string, LinkedEntry>; inside: (path: Uint8Array, work: (fd: number) => void) => void },
  ): void {
    const { path, node, group } = member;
    const place = { name: node.name, path };
    this.#left?.clear(fd, node.name);
    const existing = by.first.get(group);
    if (existing !== undefined && canBeOne(existing.node, node)) {
      const link = (): void =>
        by.inside(directoryOf(existing.path), (from) => this.#nodes.link(from, existing.node.name, fd, place));
      if (this.#nodes.holds(path, "links", link)) {
        if (node.type === "file") this.#out.files++;
        else this.#out.others++;
        return;
      }
    } else if (existing !== undefined) this.#nodes.cannotLink(path, isAnother(existing.path));
    if (node.type === "file" && !this.#isCloned(fd, node, path) && !this.#whole(fd, node, path)) return;
    if (node.type !== "file") {
      if (!this.#nodes.special(fd, node, place)) return;
      this.#out.others++;
    }
    by.first.set(group, member);
  }

  close(): void {
    this.#held?.close();
    this.#blobs.close();
    fs.closeSync(this.#target);
  }
}

interface Exact {
  path: Uint8Array;
  node: TreeNode;
  group: string | null;
  claimed: number | null;
}

function otherSize(held: number, claimed: number): string {
  return `its blobs have ${held} bytes, but its tree says ${claimed}; the blobs' content was written`;
}

function notInStore(what: "blob" | "tree", id: Uint8Array): CairnError {
  return new CairnError("damaged", `${what} ${Buffer.from(id).toString("hex").slice(0, 12)} is not in the store`);
}

const EMPTY = new Uint8Array(0);

/** Orders by pack and offset; files without a single place come last. */
function byPlace({ packOf, offsetOf }: BlobTable): (a: WholeFile, b: WholeFile) => number {
  return ({ entry: a }, { entry: b }) => {
    if (a < 0 || b < 0) return (a < 0 ? 1 : 0) - (b < 0 ? 1 : 0);
    return packOf[a]! - packOf[b]! || offsetOf[a]! - offsetOf[b]!;
  };
}

/**
 * Returns the end of the run of files that lie in one pack, at most the number written before the next look for waiting
 * threads.
 */
function runEnd({ packOf }: BlobTable, files: readonly WholeFile[], from: number): number {
  const { entry: first } = files[from]!;
  let to = from + 1;
  if (first < 0) return to;
  for (; to < files.length && to < from + RUN; to++) {
    const { entry } = files[to]!;
    if (entry < 0 || packOf[entry] !== packOf[first]) break;
  }
  return to;
}

/** The position from which on the files are half of `work`, the work of all from `from` on; at least one file stays. */
function halfOf(files: readonly WholeFile[], from: number, work: number): number {
  let half = files.length;
  for (let given = 0; half > from + 1 && given < work / 2;) given += workOf(1, files[--half]!.size);
  return half;
}

function workOfAll(files: readonly WholeFile[]): number {
  return files.reduce((sum, { size }) => sum + workOf(1, size), 0);
}
