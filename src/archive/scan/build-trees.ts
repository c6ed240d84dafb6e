import { HashedWriter } from "../../repository/verify/hashed-writer.ts";
import {
  appendMetadataEntry,
  appendStateEntry,
  beginMetadataNode,
  beginStateNode,
  type DigestEntry,
} from "../../formats/digest.ts";
import { appendNode, beginTree, endTree } from "../../formats/restic/tree.ts";
import { mayBePaged } from "../../formats/payloads/sqlite-pages.ts";
import { C, D, DIRECTORY_FLAG, DIRECTORY_WORDS, FLAG, R, RECORD_WORDS, type ScanTable } from "../cache/scan-table.ts";
import { TYPE } from "../../fs/linux/syscalls.ts";
import { type Arena, arenaOver } from "../../native.ts";
import { type NodeWriters, PlainFiles } from "./plain-files.ts";
import { linkKey, type LinkGroups, nodeOfRecord } from "./record-node.ts";
import type { ScanThread } from "./scan-thread.ts";

const BATCH = 16;
/** Number of a directory's entries after which hashed bytes are released. */
const PART = 4096;
const DIGEST_TYPE: Record<number, DigestEntry["type"]> = {
  [TYPE.FILE]: "f",
  [TYPE.DIRECTORY]: "d",
  [TYPE.LINK]: "l",
  [TYPE.BLOCKDEV]: "b",
  [TYPE.CHARDEV]: "c",
  [TYPE.PIPE]: "p",
  [TYPE.SOCKET]: "s",
};

/**
 * Phase two on one thread: trees and digests of all directories, children before parents.
 * Directories are numbered so that a child's number is above its parent's; threads count down.
 */
export function buildTrees(thread: ScanThread, groups: LinkGroups): void {
  const builder = new TreeBuilder(thread, groups);
  const { control } = thread.table;
  const count = control[C.DIRECTORIES]!;
  for (;;) {
    thread.checkStop();
    const next = Atomics.add(control, C.NEXT_TREE, BATCH);
    if (next >= count) return;
    for (let i = next; i < Math.min(next + BATCH, count); i++) builder.build(count - 1 - i);
  }
}

class TreeBuilder {
  readonly #thread: ScanThread;
  readonly #groups: LinkGroups;
  readonly #tree = new HashedWriter();
  readonly #state = new HashedWriter();
  readonly #meta = new HashedWriter();
  readonly #digests: Arena;
  readonly #newOfOld: ReadonlyMap<number, number>;
  readonly #plain = new PlainFiles();
  readonly #writers: NodeWriters;
  /** True if a backup replaces this tree by one without the many blobs of a database. */
  #stays = false;

  constructor(thread: ScanThread, groups: LinkGroups) {
    this.#thread = thread;
    this.#groups = groups;
    this.#digests = arenaOver(thread.table.directoryBytes);
    this.#writers = { tree: this.#tree.writer, state: this.#state.writer, metadata: this.#meta.writer };
    this.#newOfOld = thread.table.numbersByOld();
  }

  build(directory: number): void {
    const { table } = this.#thread;
    const base = directory * DIRECTORY_WORDS;
    const flags = table.directories[base + D.FLAGS]!;
    if ((flags & DIRECTORY_FLAG.OMITTED) === 0 && !this.#reuse(directory, flags)) this.#encode(directory, flags);
    Atomics.store(table.directoryState, base + D.DONE, 1);
    Atomics.notify(table.directoryState, base + D.DONE);
  }

  #await(child: number): number {
    const { directoryState, directories } = this.#thread.table;
    const at = child * DIRECTORY_WORDS + D.DONE;
    while (Atomics.load(directoryState, at) === 0) {
      this.#thread.checkStop();
      Atomics.wait(directoryState, at, 0, 50);
    }
    return directories[child * DIRECTORY_WORDS + D.FLAGS]!;
  }

  #source(flags: number): ScanTable {
    return flags & DIRECTORY_FLAG.SAME ? this.#thread.old! : this.#thread.table;
  }

  #child(flags: number, sub: number): number {
    return flags & DIRECTORY_FLAG.SAME ? this.#newOfOld.get(sub)! : sub;
  }

  /** Takes tree and digests of an unchanged subtree over; false if it must be encoded. */
  #reuse(directory: number, flags: number): boolean {
    const { table, old, task, sink } = this.#thread;
    if ((flags & DIRECTORY_FLAG.SAME) === 0) return false;
    const base = directory * DIRECTORY_WORDS;
    const first = table.directories[base + D.FIRST]!;
    const count = table.directories[base + D.COUNT]!;
    let reusable = (flags & DIRECTORY_FLAG.LINKED) === 0;
    for (let record = first; record < first + count; record++) {
      if (old!.records[record * RECORD_WORDS + R.MODE]! >>> 12 !== TYPE.DIRECTORY) continue;
      const child = this.#await(this.#child(flags, old!.records[record * RECORD_WORDS + R.SUB]!));
      if ((child & DIRECTORY_FLAG.REUSED) === 0) reusable = false;
    }
    if (!reusable) return false;
    const oldBase = (table.directories[base + D.OLD]! - 1) * DIRECTORY_WORDS;
    if (task.distrust && sink !== null && !sink.known(old!.directoryBytes, (oldBase + D.TREE) * 4)) return false;
    for (let word = D.TREE; word < D.META + 8; word++)
      table.directories[base + word] = old!.directories[oldBase + word]!;
    table.addDirectoryFlag(directory, DIRECTORY_FLAG.REUSED);
    return true;
  }

  #encode(directory: number, flags: number): void {
    const { table } = this.#thread;
    const base = directory * DIRECTORY_WORDS;
    const from = this.#source(flags);
    const first = table.directories[base + D.FIRST]!;
    const end = first + table.directories[base + D.COUNT]!;
    let present = 0;
    for (let record = first; record < end; record++) if (this.#isPresent(from, record, flags)) present++;
    this.#stays = false;
    beginTree(this.#tree.writer);
    beginStateNode(this.#state.writer, present);
    beginMetadataNode(this.#meta.writer, present);
    for (let record = first; record < end; record++) {
      record = this.#plain.append(from, { first: record, end: Math.min(end, record + PART) }, this.#writers);
      if (record < end && this.#isPresent(from, record, flags)) this.#entry(from, record, flags);
      this.#state.letGo();
      this.#meta.letGo();
      if (this.#thread.sink === null) this.#tree.letGo();
    }
    endTree(this.#tree.writer);
    const at = base * 4;
    this.#finish(this.#state, at + D.STATE * 4);
    this.#finish(this.#meta, at + D.META * 4);
    this.#finish(this.#tree, at + D.TREE * 4, true);
  }

  /** Tells whether a record is part of the state. */
  #isPresent(from: ScanTable, record: number, flags: number): boolean {
    const base = record * RECORD_WORDS;
    const mode = from.records[base + R.MODE]!;
    if (mode === 0 || from.recordFlags(record) & FLAG.OMITTED) return false;
    if (mode >>> 12 !== TYPE.DIRECTORY) return true;
    return (this.#await(this.#child(flags, from.records[base + R.SUB]!)) & DIRECTORY_FLAG.OMITTED) === 0;
  }

  #finish(encoder: HashedWriter, at: number, store = false): void {
    encoder.hash(this.#digests, at);
    const blob = { id: this.#digests.bytes, offset: at, stays: this.#stays };
    if (store) this.#thread.sink?.add("tree", blob, encoder.arena(), 0, encoder.writer.length);
    encoder.writer.reset();
  }

  #entry(from: ScanTable, record: number, flags: number): void {
    const words = from.records;
    const base = record * RECORD_WORDS;
    const type = words[base + R.MODE]! >>> 12;
    const group =
      type !== TYPE.DIRECTORY && words[base + R.NLINK]! > 1 ? this.#groups.get(linkKey(from, record)) : undefined;
    const bytes = this.#digests.bytes;
    const child = type === TYPE.DIRECTORY ? this.#child(flags, words[base + R.SUB]!) * DIRECTORY_WORDS : 0;
    const node = nodeOfRecord(from, record, {
      group,
      subtree: type === TYPE.DIRECTORY ? bytes.subarray((child + D.TREE) * 4, (child + D.TREE + 8) * 4) : null,
    });
    const device = type === TYPE.CHARDEV || type === TYPE.BLOCKDEV;
    const entry: DigestEntry = {
      type: DIGEST_TYPE[type] ?? "s",
      name: node.name,
      mode: node.mode,
      size: node.size,
      major: device ? words[base + R.RDEV_MAJOR]! : 0,
      minor: device ? words[base + R.RDEV_MINOR]! : 0,
      mtimeSec: node.mtimeSec,
      mtimeNs: node.mtimeNs,
      uid: node.uid,
      gid: node.gid,
      xattrs: node.xattrs,
    };
    if (type === TYPE.FILE) entry.contentHash = from.recordBytes.subarray((base + R.HASH) * 4, (base + R.HASH + 8) * 4);
    else if (type === TYPE.LINK) entry.target = node.linktarget!;
    else if (type === TYPE.DIRECTORY) entry.node = bytes.subarray((child + D.STATE) * 4, (child + D.STATE + 8) * 4);
    appendNode(this.#tree.writer, node);
    if (node.content !== undefined && mayBePaged(node.size, node.content.length / 32)) this.#stays = true;
    appendStateEntry(this.#state.writer, entry);
    if (group !== undefined) entry.linkedTo = group.first;
    if (type === TYPE.DIRECTORY) entry.node = bytes.subarray((child + D.META) * 4, (child + D.META + 8) * 4);
    appendMetadataEntry(this.#meta.writer, entry);
  }
}
