import fs from "node:fs";
import { append } from "../../append.ts";
import type { Identity } from "../../archive/scan/find-record.ts";
import { exactNode, firstOfGroup, type LosslessByPath } from "../../archive/write/exact-nodes.ts";
import { databasesAmong, holdOrRefuse, logsBeside } from "../../capture/sqlite/quiet-database.ts";
import type { Overwrite } from "../../contract/snapshots.ts";
import { advice, call, toCairnError, word } from "../../errors.ts";
import { joinPath, latin1 } from "../../formats/bytes.ts";
import { linkedInode, type NodeType, type TreeNode, type TreeNodes } from "../../formats/restic/tree.ts";
import { beside, besideWhich, mayBeDatabase } from "../../formats/sqlite-header.ts";
import { ATTRIBUTE_MOUNT_ROOT, mayBeSameId, putName, STAT, TYPE, withFormerOwner } from "../../fs/linux/syscalls.ts";
import { letOwnerIn } from "../../fs/owner-writes.ts";
import { PathSelection } from "../../fs/path-selection.ts";
import { displayPath, isAtOrBelow } from "../../fs/paths/safe-path.ts";
import { newArena } from "../../native.ts";
import { newPacer } from "../../pacer.ts";
import { type LeftOutEntry, notSetEntry } from "../../workspace/points/left-out.ts";
import { metadataOf, type Step } from "../../workspace/points/steps.ts";
import { StepRunner } from "../../workspace/restore/apply.ts";
import { OtherOwners, type Owned, sharesDatabase, STAYS_WITH_DATABASE } from "../../workspace/restore/other-owners.ts";
import { comparisonOn, HeldDirectories, isDirectory } from "../../workspace/restore/held-directories.ts";

/** A snapshot that is written over a folder. */
export interface Over {
  /** real path of the folder */
  target: Buffer;
  root: Uint8Array;
  /** Returns the entries of a tree; null if the tree is damaged, which the writer reports. */
  nodes(tree: Uint8Array): Promise<TreeNodes | null>;
  lossless: LosslessByPath;
  /** raw paths; null: everything */
  chosen: readonly Uint8Array[] | null;
  overwrite: Overwrite;
  /** Returns the ids that an entry's owner and group get. */
  ownersOf(node: TreeNode): TreeNode;
  /** Files of other users are replaced, even if their owner or group cannot be kept. */
  takeOwnership: boolean;
  signal?: AbortSignal | undefined;
}

/** An entry of the snapshot, all entries of its directory, its path, and whether the entry itself is chosen. */
interface Looked {
  node: TreeNode;
  nodes: TreeNodes;
  own: Uint8Array;
  isWhole: boolean;
}

/** An entry to put in place. `old`: the entry that it replaces. */
export interface Put {
  path: Uint8Array;
  old: Identity | null;
  /** Owners of the entry that is replaced. */
  was: Owned;
  /** the snapshot's entry */
  wanted: TreeNode;
}

const ROOT = new Uint8Array(0);
/** The present mode of a directory that the folder lacks. */
const NONE = 0;
const KINDS: Partial<Record<NodeType, number>> = {
  file: TYPE.FILE,
  symlink: TYPE.LINK,
  fifo: TYPE.PIPE,
  socket: TYPE.SOCKET,
};
const MOUNTED = "another file system is mounted there, and its content stays unchanged";
const BESIDE_LOG =
  "a SQLite log beside it would damage the restored database: move the log away, then restore the database again";
const BESIDE_DATABASE = "it is a SQLite log, and would damage the database beside it, which is not replaced";
const IN_USE = advice`end the programs that use the database, or restore into another folder and use ${call("database restore --through-sqlite", "restoreDatabase", word("image"), { throughSqlite: true })}`;
const IS_DIRECTORY = "there is a directory at its path";
const LEFT_NAMED = 10;
const IS_NONE = "there is no directory at its path, so nothing below it is restored";

/**
 * Writes a snapshot over a folder: new entries are written into a folder inside it, then the steps of a restore rename
 * them to their places. A kill leaves each entry old or new. Entries that the snapshot lacks stay. A directory never
 * replaces another kind of entry, nor the reverse: such entries are listed.
 */
export class OverFolder {
  /** Entries that were not written, and entries whose metadata could not be set. */
  readonly leftOut: LeftOutEntry[] = [];
  readonly counts = { written: 0, left: 0, unchanged: 0 };
  /** The first entries that `never` left. */
  readonly left: ReturnType<typeof displayPath>[] = [];
  readonly #over: Over;
  readonly #chosen: PathSelection | null;
  readonly #held: HeldDirectories;
  readonly #device: string;
  readonly #name = newArena(1024);
  readonly #link = newArena(8192);
  /** Unchanged names of each hard-linked file. All are written again if one name has to be written. */
  readonly #groups = new Map<string, { unchanged: Put[]; isWritten: boolean }>();
  /** Absolute paths, by latin1, of possible databases of which a file is written. */
  readonly #databases = new Map<string, Uint8Array>();
  readonly #puts: Put[] = [];
  /** New directories, and compared present ones. `node`: the metadata that they get; null: they keep theirs. */
  readonly #directories: { path: Uint8Array; mode: number; node: TreeNode | null }[] = [];

  constructor(over: Over) {
    this.#over = over;
    this.#chosen = over.chosen === null ? null : new PathSelection(over.chosen);
    this.#held = new HeldDirectories(over.target);
    const { mode } = this.#held.identity(this.#held.root, Buffer.from("."))!;
    this.#device = this.#deviceFound();
    this.#directories.push({ path: ROOT, mode, node: null });
  }

  /** Compares the folder with the snapshot. Returns raw paths to write, each with all below it; null: everything. */
  async plan(): Promise<readonly Uint8Array[] | null> {
    const { found, isWhole } = await this.#planDirectory(this.#over.root, ROOT, newPacer(this.#over.signal));
    this.#requireUnused();
    for (const { unchanged, isWritten } of this.#groups.values()) {
      if (!isWritten) continue;
      append(this.#puts, unchanged);
      append(
        found,
        unchanged.map(({ path }) => path),
      );
      this.counts.unchanged -= unchanged.length;
    }
    return isWhole ? null : found;
  }

  /** Throws `refused` if a process has an affected database open. */
  #requireUnused(): void {
    holdOrRefuse(this.#databases.values(), IN_USE)[Symbol.dispose]();
  }

  async #planDirectory(
    tree: Uint8Array,
    path: Uint8Array,
    pace: () => Promise<void>,
  ): Promise<{ found: Uint8Array[]; isWhole: boolean }> {
    await pace();
    const found: Uint8Array[] = [];
    const nodes = await this.#over.nodes(tree);
    if (nodes === null) return { found, isWhole: true };
    let isWhole = this.#wanted(path) === "whole";
    const below: TreeNode[] = [];
    for (const node of nodes) {
      const own = joinPath(path, node.name);
      const wanted = this.#wanted(own, node);
      const is = wanted === "no" ? [] : this.#look({ node, nodes, own, isWhole: wanted === "whole" });
      if (is === "below") below.push(node);
      else append(found, is);
      isWhole &&= is === "below" || (is.length === 1 && wanted === "whole");
    }
    for (const { name, subtree } of below) {
      const own = joinPath(path, name);
      const inside = await this.#planDirectory(subtree!, own, pace);
      if (inside.isWhole) found.push(own);
      else append(found, inside.found);
      isWhole &&= inside.isWhole;
    }
    return { found, isWhole };
  }

  /** The entries to put in place, after `plan`; a new directory stands for all below it. */
  get puts(): readonly Put[] {
    return this.#puts;
  }

  #wanted(path: Uint8Array, node?: TreeNode): "whole" | "part" | "no" {
    const wanted = this.#chosen?.of(path) ?? "whole";
    return wanted === "part" && node !== undefined && node.type !== "dir" ? "no" : wanted;
  }

  /** Returns the paths to write for an entry; `below`: the entries below it must be compared first. */
  #look(looked: Looked): Uint8Array[] | "below" {
    const { node: stored, own, isWhole } = looked;
    const node = this.#over.ownersOf(exactNode(stored, this.#over.lossless.get(latin1(own))));
    const isFolder = node.type === "dir";
    const { fd, name } = this.#held.parentOf(own);
    const old = this.#held.identity(fd, name);
    if (old === null) {
      if (this.#isBesideLog(looked)) return this.#stays(own, "keep_present", BESIDE_LOG);
      if (this.#isLogOfAnother(node, own)) return this.#stays(own, "keep_present", BESIDE_DATABASE);
      if (isFolder) this.#directories.push({ path: own, mode: NONE, node });
      this.#put(node, { path: own, old, was: node, wanted: node });
      return isWhole ? [own] : this.#over.chosen!.filter((each) => isAtOrBelow(each, own));
    }
    if ((this.#held.looked[STAT.ATTRIBUTES]! & ATTRIBUTE_MOUNT_ROOT) !== 0 || this.#deviceFound() !== this.#device)
      return this.#stays(own, "mounted", MOUNTED);
    if (isFolder !== isDirectory(old)) return this.#stays(own, "keep_present", isFolder ? IS_NONE : IS_DIRECTORY);
    if (isFolder) {
      this.#directories.push({ path: own, mode: old.mode, node: isWhole ? node : null });
      return "below";
    }
    if (this.#over.overwrite === "never") {
      if (this.counts.left++ < LEFT_NAMED) this.left.push(displayPath(own));
      return [];
    }
    const words = this.#held.looked;
    const put = { path: own, old, was: { uid: words[STAT.UID]!, gid: words[STAT.GID]! }, wanted: node };
    if (this.#over.overwrite === "if-changed" && this.#isAsSaved(old, node, fd)) {
      const group = this.#groupOf(node, own);
      group?.unchanged.push(put);
      this.counts.unchanged++;
      return [];
    }
    if (this.#isBesideLog(looked)) return this.#stays(own, "keep_present", BESIDE_LOG);
    this.#put(node, put);
    return [own];
  }

  /** Notes an entry that is written, the database that it belongs to, and its hard-link group. */
  #put(node: TreeNode, put: Put): void {
    const { path, old } = put;
    this.#puts.push(put);
    const { type, size } = node;
    if (type === "dir") return;
    const group = this.#groupOf(node, path);
    if (group !== null) group.isWritten = true;
    const isOne = type === "file" && mayBeDatabase({ size: old?.size ?? size });
    const database = type === "file" ? (besideWhich(path) ?? (isOne ? path : null)) : null;
    if (database !== null) this.#databases.set(latin1(database), joinPath(this.#over.target, database));
  }

  /** Tells if the written file would lie beside a SQLite log that stays. */
  #isBesideLog({ node, nodes, own }: Looked): boolean {
    if (node.type !== "file" || !mayBeDatabase(node)) return false;
    return logsBeside(joinPath(this.#over.target, own)).some((ending) => {
      const name = beside(node.name, ending);
      const log = Iterator.from(nodes).find((each) => Buffer.compare(each.name, name) === 0);
      const isReplaced = log?.type === "file" && this.#over.overwrite !== "never";
      return !isReplaced || this.#wanted(beside(own, ending), log) === "no";
    });
  }

  /** Tells if the written file is a non-empty log of a database that stays. */
  #isLogOfAnother({ type, size }: TreeNode, own: Uint8Array): boolean {
    const database = type === "file" && size > 0 && this.#over.overwrite === "never" ? besideWhich(own) : null;
    return database !== null && databasesAmong([joinPath(this.#over.target, database)]).length > 0;
  }

  #stays(path: Uint8Array, reason: LeftOutEntry["reason"], detail: string): [] {
    this.leftOut.push({ path, reason, detail });
    return [];
  }

  #groupOf(node: TreeNode, path: Uint8Array): { unchanged: Put[]; isWritten: boolean } | null {
    const group = firstOfGroup(this.#over.lossless.get(latin1(path))) ?? linkedInode(node);
    if (group === null) return null;
    const known = this.#groups.get(group) ?? { unchanged: [], isWritten: false };
    this.#groups.set(group, known);
    return known;
  }

  /** Tells if an entry that was just looked at is unchanged. Devices never are: they are made again. */
  #isAsSaved(old: Identity, node: TreeNode, fd: number): boolean {
    const words = this.#held.looked;
    const isRoot = process.geteuid?.() === 0;
    return (
      old.mode >>> 12 === KINDS[node.type] &&
      old.mtimeSec === node.mtimeSec &&
      old.mtimeNs === node.mtimeNs &&
      (!isRoot || (mayBeSameId(words[STAT.UID], node.uid) && mayBeSameId(words[STAT.GID], node.gid))) &&
      (node.type === "symlink" ? this.#leadsTo(fd, node) : (old.mode & 0o7777) === node.mode) &&
      (node.type !== "file" || old.size === node.size)
    );
  }

  #leadsTo(fd: number, { name, linktarget = ROOT }: TreeNode): boolean {
    putName(this.#name, 0, name);
    const length = this.#held.sys.readlink(fd, this.#name, 0, this.#link);
    return length >= 0 && Buffer.compare(this.#link.bytes.subarray(0, length), linktarget) === 0;
  }

  #deviceFound(): string {
    const words = this.#held.looked;
    return `${words[STAT.DEV_MAJOR]}:${words[STAT.DEV_MINOR]}`;
  }

  /**
   * Puts the written entries in place, and sets the metadata of the snapshot's directories, but not of the target
   * itself. An entry that changed since the plan stays and is listed. Cannot be aborted: a half-written state is
   * neither old nor new. Throws `refused`, before any change, if a process has an affected database open.
   */
  place(staging: Buffer): void {
    this.#requireUnused();
    this.#held.forget();
    const steps = this.#steps(staging);
    const { target } = this.#over;
    const runner = new StepRunner({
      root: target,
      staging,
      tree: { isSame: comparisonOn(target) },
      resuming: false,
      hidesIgnored: () => false,
    });
    let isDone = false;
    try {
      const { kept, notSet } = runner.run(steps);
      isDone = true;
      append(this.leftOut, kept);
      append(this.leftOut, notSet.map(notSetEntry));
      // An entry that stays leaves the one that should replace it in the staging folder.
      this.counts.written -= filesBelow(staging);
    } finally {
      // The last steps set the modes of the snapshot's directories, unless the restore fails before.
      for (const { path, mode, node } of this.#directories)
        if (mode !== NONE && (node === null || !isDone)) this.#held.closeAgain(path, mode);
    }
  }

  /** Returns the steps, and opens staged directories whose mode may keep this user from moving their entries. */
  #steps(staging: Buffer): Step[] {
    const staged = new HeldDirectories(staging);
    const { sys } = staged;
    try {
      const metadata: Step[] = [];
      for (const { path, mode, node } of this.#directories) {
        const isStaged = path.length > 0 && identityAt(staged, path) !== null;
        if (isStaged) {
          const { fd, name } = staged.parentOf(path);
          putName(this.#name, 0, name);
          letOwnerIn(sys, { fd, name: this.#name, at: 0 });
        }
        const isThere = isStaged || mode !== NONE;
        if (isThere && node !== null) metadata.push({ op: "dirmeta", path, metadata: metadataOf(node, null) });
      }
      const owners = new OtherOwners(sys, staged.root);
      const stays: Uint8Array[] = [];
      const puts = this.#puts.flatMap(({ path, old, was, wanted }, i): Step[] => {
        // An entry that could not be staged is listed already.
        const inode = identityAt(staged, path)?.inode;
        if (inode === undefined) return [];
        const known = old === null ? wanted : withFormerOwner(wanted, { ...wanted, ...was }, false);
        if (known !== wanted) {
          const { fd, name } = staged.parentOf(path);
          putName(this.#name, 0, name);
          sys.lchown(fd, this.#name, 0, known.uid, known.gid);
          identityAt(staged, path);
        }
        const is = { uid: staged.looked[STAT.UID]!, gid: staged.looked[STAT.GID]! };
        const isLink = old !== null && old.mode >>> 12 === TYPE.LINK;
        const why =
          old === null || isLink || this.#over.takeOwnership ? null : owners.whyTaken({ was, is, wanted: known });
        if (why === null) return [{ op: "put", path, staged: i, inode, old }];
        stays.push(path);
        this.#stays(path, "not_permitted", why);
        return [];
      });
      // A database and its log are replaced together.
      const isShared = sharesDatabase(stays);
      for (const { path } of puts) if (isShared(path)) this.#stays(path, "not_permitted", STAYS_WITH_DATABASE);
      return [...puts.filter(({ path }) => !isShared(path)), ...metadata.reverse()];
    } finally {
      staged.close();
    }
  }

  close(): void {
    this.#held.close();
  }
}

/** Returns the identity of an entry; null if the entry, or a directory of its path, does not exist. */
function identityAt(held: HeldDirectories, path: Uint8Array): Identity | null {
  try {
    const { fd, name } = held.parentOf(path);
    return held.identity(fd, name);
  } catch (error) {
    if (toCairnError(error).code !== "not_found") throw error;
    return null;
  }
}

/** Counts the entries below a folder that are no directories, except entries of directories that cannot be listed. */
function filesBelow(folder: Buffer): number {
  let count = 0;
  try {
    for (const entry of fs.readdirSync(folder, { encoding: "buffer", withFileTypes: true }))
      count += entry.isDirectory() ? filesBelow(joinPath(folder, entry.name)) : 1;
  } catch {
    // A count must not fail a finished restore.
  }
  return count;
}
