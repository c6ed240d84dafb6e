import { closeSync, constants, fstatSync, lstatSync, openSync, readFileSync } from "node:fs";
import { type Change, FanotifyQueue, fileSystemId } from "../../fs/linux/fanotify.ts";
import { mappedInodes } from "../../fs/linux/holders.ts";
import { parseMountinfo, resolveMount } from "../../fs/linux/mounts.ts";
import { waitReadable } from "../../fs/linux/wait-readable.ts";
import { isAtOrBelow, printablePath } from "../../fs/safe-path.ts";
import { above, Arrivals, ChangeJournal, type ChangeNotice, type Shared } from "./journal.ts";

/** File systems that tell each change of their files, whoever makes it and by which path. */
const TELLING = new Set(["ext2", "ext3", "ext4", "xfs", "f2fs", "tmpfs", "bcachefs"]);
/** Milliseconds for which changes gather: programs make many at once. */
const GATHER_MS = 20;
/** Most that the kernel's queue holds: what was in it when a reading began is read after so many. */
const QUEUE = 16_384;
/** Directories whose paths are known. */
const MOST_PATHS = 50_000;
/** Bytes of stat caches in memory, of all folders. */
const MOST_HELD = 128 << 20;

interface Watched {
  journal: ChangeJournal;
  /** The folder's path as latin1. */
  root: string;
  /** Paths below it of which no change counts, as latin1. */
  skip: readonly string[];
  fileSystem: string;
  /** Number of the mount that it lies on. */
  mount: number;
  device: number;
  inode: number;
  /** Mounts at the folder and below it, as the kernel lists them. */
  mounts: string;
  /** Directories below it on which something is mounted, as latin1: their parents are looked at in any case. */
  mountedIn: readonly string[];
}

export type ChangeListener = (root: Buffer, notice: ChangeNotice) => void;

/** Tells what changes in folders, and keeps a journal of each. For root, on file systems that tell it. */
export class Watcher {
  readonly #queue: FanotifyQueue;
  readonly #log: (message: string) => void;
  readonly #listeners = new Set<ChangeListener>();
  readonly #watched = new Map<string, Watched>();
  readonly #marked = new Set<string>();
  /** Paths of directories by what the kernel says of each; null: in none of the folders. */
  readonly #paths = new Map<string, string | null>();
  readonly #endWaiting: () => Promise<void>;
  readonly #shared: Shared;
  readonly #arrivals = new Arrivals();
  #mark = 0;
  #mapped: readonly number[] = [];
  #mountTable = "";
  #lastLoss = "";

  private constructor(queue: FanotifyQueue, log: (message: string) => void) {
    this.#queue = queue;
    this.#log = log;
    this.#endWaiting = waitReadable(queue.fd, async () => this.#onChanges()).stop;
    this.#shared = {
      takeNote: (journal) => this.#takeNote(journal),
      mark: () => this.#mark,
      arrivals: this.#arrivals,
      mapped: () => this.#mapped,
      onHold: (journal) => this.#limitHeld(journal),
    };
  }

  /** Null where the kernel tells this user nothing. */
  static start(log: (message: string) => void): Watcher | null {
    const queue = FanotifyQueue.open();
    return queue === null ? null : new Watcher(queue, log);
  }

  /** The journal of a folder; null where it is not watched. */
  journalOf(root: Uint8Array): ChangeJournal | null {
    return this.#watched.get(Buffer.from(root).toString("latin1"))?.journal ?? null;
  }

  /** Watches a folder from now on. `skip`: absolute paths below it of which no change counts. Nothing where its file system does not tell. */
  add(folder: Buffer, skip: readonly string[]): void {
    const root = folder.toString("latin1");
    if (this.#watched.has(root)) return;
    const facts = lstatSync(folder, { throwIfNoEntry: false });
    const mount = facts?.isDirectory() === true ? resolveMount(folder, parseMountinfo(this.#readMounts())) : null;
    const path = folder.toString("utf8");
    if (mount === null || !TELLING.has(mount.type) || !Buffer.from(path).equals(folder)) return;
    const fileSystem = fileSystemId(path);
    if (fileSystem === null || (!this.#marked.has(fileSystem) && !this.#queue.watch(path))) return;
    this.#marked.add(fileSystem);
    this.#paths.clear();
    const journal = new ChangeJournal(folder, this.#shared);
    const below = skip.filter((each) => each.startsWith(`${root}/`)).map((each) => each.slice(root.length + 1));
    const { dev, ino } = facts!;
    const place = { fileSystem, device: dev, inode: ino };
    this.#watched.set(root, { journal, root, skip: below, ...place, ...this.#mountsAt(folder) });
  }

  remove(folder: Buffer): void {
    const root = folder.toString("latin1");
    this.#watched.get(root)?.journal.letGo();
    this.#watched.delete(root);
  }

  /** Calls the listener some time after changes in a folder; returns what ends that. */
  onChange(listener: ChangeListener): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  async stop(): Promise<void> {
    await this.#endWaiting();
    for (const { journal } of this.#watched.values()) journal.letGo();
    this.#watched.clear();
    this.#queue.close();
  }

  async #onChanges(): Promise<void> {
    await new Promise((done) => setTimeout(done, GATHER_MS).unref());
    this.#read();
    for (const { journal } of this.#watched.values()) {
      const notice = journal.takeNotice();
      if (notice !== null) for (const listener of this.#listeners) listener(Buffer.from(journal.root), notice);
    }
  }

  /** All that was changed before is noted, and what the kernel tells nobody. */
  #takeNote(journal: ChangeJournal): number {
    this.#read();
    const table = this.#readMounts();
    if (table !== this.#mountTable) {
      this.#mountTable = table;
      this.#paths.clear();
      for (const watched of this.#watched.values()) {
        const found = this.#mountsAt(Buffer.from(watched.root, "latin1"));
        if (found.mounts !== watched.mounts) watched.journal.lose();
        Object.assign(watched, found);
      }
    }
    const mapped = mappedInodes();
    if (mapped === null) this.#loseAll("not all processes tell which files they have mapped");
    this.#mapped = mapped ?? [];
    const facts = lstatSync(journal.root as Buffer, { throwIfNoEntry: false });
    const watched = this.#watched.get(Buffer.from(journal.root).toString("latin1"));
    if (watched?.journal !== journal || facts?.ino !== watched.inode || facts.dev !== watched.device) {
      journal.lose();
      if (watched !== undefined && facts !== undefined) Object.assign(watched, { inode: facts.ino, device: facts.dev });
    }
    for (const path of watched?.mountedIn ?? []) journal.touch(above(path), null);
    return ++this.#mark;
  }

  #loseAll(why: string): void {
    for (const { journal } of this.#watched.values()) journal.lose();
    if (this.#lastLoss !== why) this.#log(`changes may be missed, so folders are looked at as a whole: ${why}`);
    this.#lastLoss = why;
  }

  #read(): void {
    const mounts = new Map<number, number>();
    try {
      for (let left = QUEUE; left > 0;) {
        const isMore = this.#queue.read(
          (change) => {
            left--;
            this.#note(change, mounts);
          },
          () => this.#loseAll("more changed at once than the kernel keeps"),
        );
        if (!isMore) break;
      }
    } finally {
      for (const fd of mounts.values()) closeSync(fd);
    }
  }

  #note(change: Change, mounts: Map<number, number>): void {
    const { directory, name, isDirectory } = change;
    const path = directory === null ? null : this.#pathOf(directory, mounts);
    // A directory with another name gives all below it other paths.
    if (isDirectory && change.moved) this.#paths.clear();
    const watched = path === null ? undefined : this.#folderAbove(path);
    if (watched === undefined) {
      if (!isDirectory && (change.arrived || directory === null))
        for (const word of change.words) this.#arrivals.note(word, this.#mark);
      return;
    }
    const below = path!.slice(watched.root.length + 1);
    const whole = name === null || name === "." ? below : below === "" ? name : `${below}/${name}`;
    if (watched.skip.some((each) => isAtOrBelow(Buffer.from(whole, "latin1"), Buffer.from(each, "latin1")))) return;
    watched.journal.note({ ...change, directory: below });
  }

  #folderAbove(path: string): Watched | undefined {
    for (let at = path; at !== ""; at = at.slice(0, at.lastIndexOf("/"))) {
      const watched = this.#watched.get(at);
      if (watched !== undefined) return watched;
    }
    return undefined;
  }

  /** The path of a directory that lies in one of the folders, or is one; null for others. */
  #pathOf(directory: string, mounts: Map<number, number>): string | null {
    const known = this.#paths.get(directory);
    if (known !== undefined) return known;
    const fileSystem = directory.slice(0, 8);
    let found: string | null = null;
    const asked = new Set<number>();
    for (const watched of this.#watched.values()) {
      if (watched.fileSystem !== fileSystem || asked.has(watched.mount)) continue;
      const fd = this.#mountOf(watched, mounts);
      if (fd < 0) continue;
      asked.add(watched.mount);
      const path = this.#queue.pathOf(directory, fd);
      if (path === undefined) this.#loseAll("the kernel does not tell where something changed");
      else if (path !== null && this.#folderAbove(path) !== undefined) found = path;
      if (found !== null) break;
    }
    if (this.#paths.size >= MOST_PATHS) this.#paths.clear();
    this.#paths.set(directory, found);
    return found;
  }

  /** A descriptor on the folder's mount, or -1; open as long as changes are read, since it keeps the mount in use. */
  #mountOf({ root, device, mount }: Watched, mounts: Map<number, number>): number {
    const known = mounts.get(mount);
    if (known !== undefined) return known;
    try {
      const fd = openSync(
        Buffer.from(root, "latin1"),
        constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW,
      );
      if (fstatSync(fd).dev === device) {
        mounts.set(mount, fd);
        return fd;
      }
      closeSync(fd);
    } catch {
      // The folder is gone, and another one on the mount is asked for.
    }
    return -1;
  }

  #readMounts(): string {
    return readFileSync("/proc/self/mountinfo", "latin1");
  }

  #mountsAt(folder: Buffer): Pick<Watched, "mount" | "mounts" | "mountedIn"> {
    const all = parseMountinfo(this.#readMounts());
    const own = resolveMount(folder, all);
    const below = all.filter(({ mountPoint }) => isAtOrBelow(mountPoint, folder));
    const mounts = [...below, ...(own === null ? [] : [own])];
    return {
      mount: own?.id ?? -1,
      mounts: mounts.map(({ id, device, mountPoint }) => `${id} ${device} ${printablePath(mountPoint)}`).join("\n"),
      mountedIn: below.flatMap(({ mountPoint }) =>
        mountPoint.equals(folder) ? [] : [mountPoint.toString("latin1", folder.length + 1)],
      ),
    };
  }

  /** Keeps the stat caches in memory within bounds: that of the folder that was scanned last stays. */
  #limitHeld(last: ChangeJournal): void {
    let left = MOST_HELD - last.heldBytes;
    for (const { journal } of this.#watched.values()) {
      if (journal === last) continue;
      left -= journal.heldBytes;
      if (left < 0) journal.letGo();
    }
    if (last.heldBytes > MOST_HELD) last.letGo();
  }
}
