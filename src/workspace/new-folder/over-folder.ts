import fs from "node:fs";
import { append } from "../../append.ts";
import { exactNode, firstOfGroup, type LosslessByPath } from "../../archive/write/exact-nodes.ts";
import { NodeWriter, protectionOf } from "../../archive/write/node-writer.ts";
import { databasesAmong, holdOrRefuse, logsBeside } from "../../capture/sqlite/quiet-database.ts";
import type { Overwrite } from "../../contract/snapshots.ts";
import { advice, call, toCairnError, word } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { joinPath, latin1 } from "../../formats/bytes.ts";
import { linkedInode, type NodeType, type TreeNode, type TreeNodes } from "../../formats/restic/tree.ts";
import { beside, besideWhich, mayBeDatabase } from "../../formats/sqlite-header.ts";
import { EACCES, EBUSY, EEXIST, EISDIR, ENOENT, EPERM, errnoName, EXDEV } from "../../fs/linux/errno.ts";
import { type OpenPlace, renameToFree } from "../../fs/linux/exchange-folders.ts";
import { openBelow } from "../../fs/linux/open-below.ts";
import {
  ATTRIBUTE_MOUNT_ROOT,
  newStatBuffer,
  openDirectory,
  putName,
  signedWide,
  STAT,
  syscallError,
  syscalls,
  TYPE,
  wide,
} from "../../fs/linux/syscalls.ts";
import { letOwnerIn, letOwnerWrite, undoOwnerWrites } from "../../fs/owner-writes.ts";
import { PathSelection } from "../../fs/path-selection.ts";
import { quotedPath } from "../../fs/paths/safe-path.ts";
import { newArena } from "../../native.ts";
import { newPacer } from "../../pacer.ts";
import { type LeftOutEntry, notSetEntry } from "../points/left-out.ts";

/** A state that is written over a folder that has entries. */
export interface Over {
  /** real path of the folder */
  target: Buffer;
  /** the state's tree */
  root: Uint8Array;
  /** Returns the entries of a tree; null if the tree is damaged, which the writer reports. */
  nodes(tree: Uint8Array): Promise<TreeNodes | null>;
  lossless: LosslessByPath;
  /** raw paths; null: everything */
  chosen: readonly Uint8Array[] | null;
  overwrite: Overwrite;
  signal?: AbortSignal | undefined;
}

/** An entry of the state, all entries of its directory, and its path. */
interface Looked {
  node: TreeNode;
  nodes: TreeNodes;
  own: Uint8Array;
}

const NOTHING = new Uint8Array(0);
const DIRECTORY = fs.constants.O_RDONLY | fs.constants.O_DIRECTORY | fs.constants.O_NOFOLLOW;
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
const IS_NONE = "there is no directory at its path, so nothing below it is restored";

/**
 * Writes a state over a folder: new entries are written into a folder inside it, then renamed to their places. A kill
 * leaves each entry old or new. Entries that the state lacks stay. A directory never replaces another kind of entry,
 * nor the reverse: such entries are listed.
 */
export class OverFolder {
  /** Entries that were not written, and entries whose metadata could not be set. */
  readonly leftOut: LeftOutEntry[] = [];
  readonly counts = { written: 0, left: 0, unchanged: 0 };
  readonly #over: Over;
  readonly #chosen: PathSelection | null;
  readonly #sys = syscalls();
  readonly #target: number;
  readonly #device: string;
  readonly #name = newArena(1024);
  readonly #path = newArena(8192);
  readonly #stat = newStatBuffer();
  /** Unchanged names of each hard-linked file. All are written again if one name has to be written. */
  readonly #groups = new Map<string, { unchanged: Uint8Array[]; isWritten: boolean }>();
  /** Entries that stay instead of being written, and new folders; latin1 paths. */
  readonly #kept = new Set<string>();
  readonly #made = new Set<string>();
  /** Absolute paths, by latin1, of possible databases of which a file is written. */
  readonly #databases = new Map<string, Uint8Array>();
  /** Raw paths to write, each with all below it; null: everything. */
  #planned: Uint8Array[] | null = null;

  constructor(over: Over) {
    this.#over = over;
    this.#chosen = over.chosen === null ? null : new PathSelection(over.chosen);
    this.#target = openDirectory(over.target);
    this.#sys.fstat(this.#target, this.#stat);
    this.#device = this.#deviceFound();
  }

  /** Compares the folder with the state. Returns the raw paths to write, each with all below it; null: everything. */
  async plan(): Promise<readonly Uint8Array[] | null> {
    const { found, isWhole } = await this.#planDirectory(this.#over.root, NOTHING, newPacer(this.#over.signal));
    this.#planned = isWhole ? null : found;
    holdOrRefuse(this.#databases.values(), IN_USE)[Symbol.dispose]();
    for (const { unchanged, isWritten } of this.#groups.values())
      if (isWritten && this.#planned !== null) {
        append(this.#planned, unchanged);
        this.counts.unchanged -= unchanged.length;
      }
    return this.#planned;
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
    let isWhole = (this.#chosen?.of(path) ?? "whole") === "whole";
    const below: TreeNode[] = [];
    this.#inTarget(path, (fd) => {
      for (const node of nodes) {
        const own = joinPath(path, node.name);
        const wanted = this.#wanted(own, node);
        const is = wanted === "no" ? "left" : this.#look(fd, { node, nodes, own, isWhole: wanted === "whole" });
        if (is === "below") below.push(node);
        else if (is === "write") found.push(own);
        else isWhole = false;
      }
    });
    for (const { name, subtree } of below) {
      const own = joinPath(path, name);
      const inside = await this.#planDirectory(subtree!, own, pace);
      if (inside.isWhole) found.push(own);
      else append(found, inside.found);
      isWhole &&= inside.isWhole;
    }
    return { found, isWhole };
  }

  #wanted(path: Uint8Array, { type }: TreeNode): "whole" | "part" | "no" {
    const wanted = this.#chosen?.of(path) ?? "whole";
    return wanted === "part" && type !== "dir" ? "no" : wanted;
  }

  /** Decides about one of a directory's `nodes`. `isWhole`: the entry itself is chosen. */
  #look(fd: number, looked: Looked & { isWhole: boolean }): "write" | "below" | "left" {
    const { node: stored, own, isWhole } = looked;
    const isDirectory = stored.type === "dir";
    const there = fd < 0 ? ENOENT : this.#statOf(fd, stored.name);
    if (there === ENOENT) {
      if (isDirectory && !isWhole) return "below";
      if (this.#isBesideLog(looked)) return this.#stays(own, "keep_present", BESIDE_LOG);
      if (this.#isLogOfAnother(stored, own)) return this.#stays(own, "keep_present", BESIDE_DATABASE);
      if (!isDirectory) this.#grouped(stored, own, true);
      this.#noteDatabase(stored, own, stored.size);
      return "write";
    }
    if (there < 0) throw syscallError(there, `cannot look at ${quotedPath(own)}`);
    const { words } = this.#stat;
    if ((words[STAT.ATTRIBUTES]! & ATTRIBUTE_MOUNT_ROOT) !== 0 || this.#deviceFound() !== this.#device)
      return this.#stays(own, "mounted", MOUNTED);
    const isDirectoryThere = kindOf(words) === TYPE.DIRECTORY;
    if (isDirectory !== isDirectoryThere) return this.#stays(own, "keep_present", isDirectory ? IS_NONE : IS_DIRECTORY);
    if (isDirectory) return "below";
    const size = wide(words, STAT.SIZE);
    const { overwrite, lossless } = this.#over;
    if (overwrite === "never") {
      this.counts.left++;
      return "left";
    }
    const node = exactNode(stored, lossless.get(latin1(own)));
    const isSame = overwrite === "if-changed" && this.#isAsSaved(fd, node);
    if (!isSame && this.#isBesideLog(looked)) return this.#stays(own, "keep_present", BESIDE_LOG);
    this.#grouped(node, own, !isSame);
    if (!isSame) {
      this.#noteDatabase(stored, own, size);
      return "write";
    }
    this.counts.unchanged++;
    return "left";
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

  /** Notes the database that a written entry belongs to. `size`: of the present file, else of the entry. */
  #noteDatabase({ type }: TreeNode, own: Uint8Array, size: number): void {
    const database = type !== "file" ? null : (besideWhich(own) ?? (mayBeDatabase({ size }) ? own : null));
    if (database !== null) this.#databases.set(latin1(database), joinPath(this.#over.target, database));
  }

  #stays(path: Uint8Array, reason: LeftOutEntry["reason"], detail: string): "left" {
    this.#kept.add(latin1(path));
    this.leftOut.push({ path, reason, detail });
    return "left";
  }

  #grouped(node: TreeNode, path: Uint8Array, isWritten: boolean): void {
    const group = firstOfGroup(this.#over.lossless.get(latin1(path))) ?? linkedInode(node);
    if (group === null) return;
    const known = this.#groups.get(group) ?? { unchanged: [], isWritten: false };
    if (isWritten) known.isWritten = true;
    else known.unchanged.push(path);
    this.#groups.set(group, known);
  }

  /** Tells by the `#stat` result if an entry is unchanged. Devices never are: they are made again. */
  #isAsSaved(fd: number, node: TreeNode): boolean {
    const { words } = this.#stat;
    const isRoot = process.geteuid?.() === 0;
    return (
      kindOf(words) === KINDS[node.type] &&
      signedWide(words, STAT.MTIME) === node.mtimeSec &&
      words[STAT.MTIME_NS] === node.mtimeNs &&
      (!isRoot || (words[STAT.UID] === node.uid && words[STAT.GID] === node.gid)) &&
      (node.type === "symlink" ? this.#leadsTo(fd, node) : (words[STAT.MODE]! & 0o7777) === node.mode) &&
      (node.type !== "file" || wide(words, STAT.SIZE) === node.size)
    );
  }

  #leadsTo(fd: number, { name, linktarget = NOTHING }: TreeNode): boolean {
    putName(this.#name, 0, name);
    const length = this.#sys.readlink(fd, this.#name, 0, this.#path);
    return length >= 0 && Buffer.compare(this.#path.bytes.subarray(0, length), linktarget) === 0;
  }

  #statOf(fd: number, name: Uint8Array): number {
    putName(this.#name, 0, name);
    return this.#sys.stat(fd, this.#name, 0, this.#stat);
  }

  #deviceFound(): string {
    return `${this.#stat.words[STAT.DEV_MAJOR]}:${this.#stat.words[STAT.DEV_MINOR]}`;
  }

  /** Runs `work` with a directory of the target, or with -1 if it is missing. Follows no link. */
  #inTarget(path: Uint8Array, work: (fd: number) => void): void {
    const fd = openBelow(this.#sys, this.#target, path, DIRECTORY, this.#path);
    if (fd < 0 && fd !== ENOENT) throw syscallError(fd, `cannot open the directory ${quotedPath(path)}`);
    try {
      work(Math.max(fd, -1));
    } finally {
      if (fd >= 0) this.#sys.close(fd);
    }
  }

  /**
   * Moves the written entries to their places, and sets the metadata of the state's directories, but not of the target
   * itself. Cannot be aborted: a half-written state is neither old nor new. Throws `refused`, before any move, if a
   * process has an affected database open.
   */
  async place(staging: Buffer): Promise<void> {
    using _quiet = holdOrRefuse(this.#databases.values(), IN_USE);
    const from = openDirectory(staging);
    try {
      const planned = this.#planned === null ? null : new PathSelection(this.#planned);
      await this.#placeDirectory({ tree: this.#over.root, path: NOTHING, from, planned, writer: new NodeWriter() });
    } finally {
      this.#sys.close(from);
    }
  }

  async #placeDirectory(at: Placing): Promise<void> {
    const { path, planned, writer } = at;
    const nodes = (await this.#over.nodes(at.tree)) ?? [];
    const below: TreeNode[] = [];
    this.#inTarget(path, (fd) => {
      if (fd < 0) return;
      const staged = openBelow(this.#sys, at.from, path, DIRECTORY, this.#path);
      const { mode } = fs.fstatSync(fd);
      try {
        letOwnerWrite(fd);
        for (const node of nodes) {
          const own = joinPath(path, node.name);
          if (this.#wanted(own, node) === "no" || this.#kept.has(latin1(own))) continue;
          const isPlanned = staged >= 0 && (planned?.of(own) ?? "whole") !== "no";
          const entry = { staged, own, name: node.name };
          if (node.type === "dir") {
            if (!isPlanned || this.#hasFolder(fd, entry, writer)) below.push(node);
          } else if (isPlanned) this.#placeEntry(fd, entry);
          failpoint("restore-over.placed");
        }
      } finally {
        undoOwnerWrites(fd, mode);
        if (staged >= 0) this.#sys.close(staged);
      }
    });
    for (const stored of below) {
      const own = joinPath(path, stored.name);
      await this.#placeDirectory({ ...at, tree: stored.subtree!, path: own });
      const node = exactNode(stored, this.#over.lossless.get(latin1(own)));
      if (this.#wanted(own, node) === "whole" || this.#made.has(latin1(own)))
        this.#inTarget(own, (fd) => fd >= 0 && writer.finishDirectory(fd, node, own));
      append(this.leftOut, writer.notSet.splice(0).map(notSetEntry));
    }
  }

  /** Makes a directory if the target has none. Returns false if there is no folder to put entries into. */
  #hasFolder(fd: number, { staged, own, name }: Staged, writer: NodeWriter): boolean {
    // The staged directory's mode may lock out this user, who has to move its entries.
    if (this.#statOf(staged, name) < 0) return false;
    letOwnerIn(this.#sys, { fd: staged, name: this.#name, at: 0 });
    if (this.#statOf(fd, name) === 0) {
      if (kindOf(this.#stat.words) === TYPE.DIRECTORY) return true;
      this.#stays(own, "keep_present", IS_NONE);
      return false;
    }
    try {
      writer.directory(fd, { name, path: own });
    } catch (error) {
      const errno = toCairnError(error).details?.["errno"];
      if (errno !== "EACCES" && errno !== "EPERM") throw error;
      this.#stays(own, "not_permitted", `it could not be made: ${errno}${protectionOf(this.#sys, fd, name)}`);
      return false;
    }
    this.#made.add(latin1(own));
    return true;
  }

  #placeEntry(fd: number, { staged, own, name }: Staged): void {
    putName(this.#name, 0, name);
    const [from, to] = [staged, fd].map((each) => ({ fd: each, name: this.#name })) as [OpenPlace, OpenPlace];
    const isFree = this.#over.overwrite === "never";
    const result = isFree ? renameToFree(from, to) : this.#sys.rename(from.fd, from.name, 0, to.fd, to.name, 0, 0);
    if (result === 0) this.counts.written++;
    else if (isFree && result === EEXIST) this.counts.left++;
    else if (result === EISDIR) this.#stays(own, "keep_present", IS_DIRECTORY);
    else if (result === EBUSY || result === EXDEV) this.#stays(own, "mounted", MOUNTED);
    else if (result === EACCES || result === EPERM)
      this.#stays(
        own,
        "not_permitted",
        `it could not be put in place: ${errnoName(-result)}${protectionOf(this.#sys, fd, name)}`,
      );
    // An entry that could not be staged is listed already.
    else if (result !== ENOENT) throw syscallError(result, `cannot put ${quotedPath(own)} in place`);
  }

  close(): void {
    this.#sys.close(this.#target);
  }
}

interface Placing {
  tree: Uint8Array;
  path: Uint8Array;
  /** descriptor of the staging folder */
  from: number;
  planned: PathSelection | null;
  writer: NodeWriter;
}

interface Staged {
  /** descriptor of the staging folder's directory that has the entry */
  staged: number;
  own: Uint8Array;
  name: Uint8Array;
}

function kindOf(words: Uint32Array): number {
  return (words[STAT.MODE]! >>> 12) & 15;
}
