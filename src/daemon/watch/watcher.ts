import { lstatSync, readFileSync } from "node:fs";
import { type Change, fileSystemId } from "../../fs/linux/fanotify.ts";
import { MountTable } from "../../fs/linux/mount-changes.ts";
import { type Mount, parseMountinfo, resolveMount, uniqueMountId } from "../../fs/linux/mounts.ts";
import { writtenUntold } from "../../fs/linux/written-untold.ts";
import { waitReadable } from "../../fs/linux/wait-readable.ts";
import { isAtOrBelow, printablePath } from "../../fs/paths/safe-path.ts";
import { bindNative, newArena } from "../../native.ts";
import type { ChangeSource, Lost, WatchedPlace } from "./change-source.ts";
import { above, Arrivals, ChangeJournal, type ChangeNotice, type Shared } from "./journal.ts";

/** Milliseconds for which changes gather, because programs make many at once. */
const GATHER_MS = 20;
/** The most bytes of stat caches in memory, of all folders. */
const MOST_HELD = 128 << 20;
/** The part of it for all folders but the one that was scanned last. */
const MOST_HELD_OF_OTHERS = 24 << 20;

interface Watched extends WatchedPlace {
  journal: ChangeJournal;
  /** Paths below the folder whose changes are ignored, as latin1. */
  skip: readonly string[];
  inode: number;
  /** A mount number that the kernel never reuses; null: the kernel does not report one. */
  mountId: bigint | null;
  /** False if the file system does not report each change. */
  isTelling: boolean;
  /** Path on the file system itself, as latin1, independent of the mount. */
  within: string;
  /** Mounts at the folder and below it, in the kernel's order. */
  mounts: string;
  /** Watches that are being set up, for directories that came to the path later. */
  comings?: number;
  /** Directories below the folder on which a file system is mounted, as latin1. A scan always reads their parents. */
  mountedIn: readonly string[];
}

export type ChangeListener = (root: Buffer, notice: ChangeNotice) => void;

/** Reports changes in folders, and keeps a journal of each folder, on file systems that report changes. */
export class Watcher {
  readonly #source: ChangeSource;
  readonly #log: (message: string) => void;
  readonly #listeners = new Set<ChangeListener>();
  readonly #watched = new Map<string, Watched>();
  /** Folders whose watch is being set up. */
  readonly #coming = new Set<string>();
  /** The most entries of the kernel's queue, and the overflow entry: after so many, all that waited at the start was read. */
  readonly #mostQueued = Math.max(...["fanotify", "inotify"].map(queueOf)) + 1;
  readonly #endWaiting: () => Promise<void>;
  readonly #shared: Shared;
  readonly #arrivals = new Arrivals();
  #mark = 0;
  #mapped: readonly number[] = [];
  readonly #mountTable = new MountTable({ bindNative, newArena });
  #lastLoss = "";
  #mayBeAway = false;

  private constructor(source: ChangeSource, log: (message: string) => void) {
    this.#source = source;
    this.#log = log;
    this.#endWaiting = waitReadable(source.fd, async () => this.#onChanges());
    this.#shared = {
      takeNote: (journal) => this.#takeNote(journal),
      catchUp: (journal) => void this.#catchUp(journal),
      mark: () => this.#mark,
      arrivals: this.#arrivals,
      seesMappings: source.isWhole,
      mapped: () => this.#mapped,
      onHold: (journal) => this.#limitHeld(journal),
    };
  }

  /** Null if the kernel reports no changes to this user. */
  static start(log: (message: string) => void, source: ChangeSource | null): Watcher | null {
    return source === null ? null : new Watcher(source, log);
  }

  /** The journal of a folder; null if the folder is not watched. */
  journalOf(root: Uint8Array): ChangeJournal | null {
    return this.#watched.get(Buffer.from(root).toString("latin1"))?.journal ?? null;
  }

  /** True if a scan may rely on the journals. */
  get isWhole(): boolean {
    return this.#source.isWhole;
  }

  /** Watches a folder if its file system reports changes. `skip`: absolute paths below the folder whose changes are ignored. */
  async add(folder: Buffer, skip: readonly string[]): Promise<void> {
    const root = folder.toString("latin1");
    if (this.#watched.has(root) || this.#coming.has(root)) return;
    const facts = lstatSync(folder, { throwIfNoEntry: false });
    const mount = facts?.isDirectory() === true ? resolveMount(folder, parseMountinfo(this.#readMounts())) : null;
    const path = folder.toString("utf8");
    if (mount === null || !this.#source.tells(mount.type) || !Buffer.from(path).equals(folder)) return;
    const fileSystem = fileSystemId(path);
    if (fileSystem === null) return;
    const { dev, ino } = facts!;
    const place = { root, fileSystem, device: dev, ...this.#mountsAt(folder) };
    // A change that lies in two folders would be reported for only one.
    if ([...this.#watched.values()].some((other) => overlaps(other, place))) return;
    this.#coming.add(root);
    const isWatched = this.#source.watch(place);
    // If the watch is set up at once, its journal exists before the first report.
    const can = typeof isWatched === "boolean" ? isWatched : await isWatched;
    if (!this.#coming.delete(root) || !can) return this.#source.unwatch(place);
    const journal = new ChangeJournal(folder, this.#shared);
    const below = skip.filter((each) => each.startsWith(`${root}/`)).map((each) => each.slice(root.length + 1));
    this.#watched.set(root, { ...place, journal, skip: below, inode: ino, mountId: uniqueMountId(root) });
    // Listeners get changes of this folder from now on.
    for (const listener of this.#listeners) listener(folder, { count: 0, paths: [] });
  }

  remove(folder: Buffer): void {
    const root = folder.toString("latin1");
    this.#coming.delete(root);
    const watched = this.#watched.get(root);
    if (watched === undefined) return;
    watched.journal.letGo();
    this.#source.unwatch(watched);
    this.#watched.delete(root);
  }

  /** Calls the listener some time after changes in a folder. Returns a function that ends that. */
  onChange(listener: ChangeListener): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  async stop(): Promise<void> {
    this.#coming.clear();
    await this.#endWaiting();
    for (const { journal } of this.#watched.values()) journal.letGo();
    this.#watched.clear();
    this.#source.close();
    this.#mountTable.close();
  }

  async #onChanges(): Promise<void> {
    await new Promise((done) => setTimeout(done, GATHER_MS).unref());
    this.#read();
    for (const { journal } of this.#watched.values()) {
      const notice = journal.takeNotice();
      if (notice !== null) for (const listener of this.#listeners) listener(Buffer.from(journal.root), notice);
    }
  }

  /** Notes all earlier changes, and files whose writes the kernel does not report. */
  #takeNote(journal: ChangeJournal): number {
    const watched = this.#catchUp(journal);
    const mapped = writtenUntold();
    if (mapped === null) this.#loseAll("some processes do not show which files they have mapped");
    this.#mapped = mapped ?? [];
    for (const path of watched?.mountedIn ?? []) journal.touch(above(path), null);
    return ++this.#mark;
  }

  /** Notes all earlier changes that the kernel reports. Watches the folder anew if another directory is at its path. */
  #catchUp(journal: ChangeJournal): Watched | undefined {
    this.#read();
    if (this.#mountTable.hasChanged()) this.#lookAtMounts();
    const watched = this.#watched.get(Buffer.from(journal.root).toString("latin1"));
    if (watched?.journal !== journal || !isAtPlace(watched) || (journal.isSetUp && !this.#source.isAt(watched))) {
      journal.lose();
      if (watched?.journal === journal) this.#watchAnew(watched);
    } else if (!this.#source.seesAll(watched)) journal.loseSeen();
    return watched;
  }

  /**
   * Handles changes of the mount table. A folder whose mount changed may show other files, and its watch may be gone.
   */
  #lookAtMounts(): void {
    this.#source.forget();
    const all = parseMountinfo(this.#readMounts());
    for (const watched of this.#watched.values()) {
      const found = this.#mountsAt(Buffer.from(watched.root, "latin1"), all);
      const isSame = found.mounts === watched.mounts && watched.mountId !== null;
      if (isSame && uniqueMountId(watched.root) === watched.mountId) continue;
      watched.journal.lose();
      this.#watchAnew(watched);
    }
  }

  /** Watches the directory that is at the path now. */
  #watchAnew(watched: Watched): void {
    const folder = Buffer.from(watched.root, "latin1");
    const facts = lstatSync(folder, { throwIfNoEntry: false });
    const fileSystem = fileSystemId(folder.toString("utf8"));
    if (facts?.isDirectory() !== true || fileSystem === null) return;
    const place = { fileSystem, device: facts.dev, inode: facts.ino, mountId: uniqueMountId(watched.root) };
    Object.assign(watched, place, this.#mountsAt(folder));
    this.#source.unwatch(watched);
    const isWatched = watched.isTelling && this.#source.watch(watched);
    if (isWatched === true) return;
    if (isWatched === false) return this.remove(folder);
    const { journal } = watched;
    journal.isSetUp = false;
    watched.comings = (watched.comings ?? 0) + 1;
    void isWatched.then((can) => {
      journal.lose();
      // Another directory may have come to the path meanwhile.
      journal.isSetUp = --watched.comings! === 0;
      if (!can && this.#watched.get(watched.root) === watched) this.remove(folder);
    });
  }

  #loseAll(why: string): void {
    for (const { journal } of this.#watched.values()) journal.lose();
    if (this.#lastLoss !== why) this.#log(`changes may have been missed, so the next save reads whole folders: ${why}`);
    this.#lastLoss = why;
  }

  #read(): void {
    try {
      for (let left = this.#mostQueued; left > 0;) {
        const isMore = this.#source.read((directory, change) => {
          left--;
          this.#note(directory, change);
        }, this.#lost);
        if (!isMore) break;
      }
    } finally {
      this.#source.pause();
    }
    if (!this.#mayBeAway) return;
    this.#mayBeAway = false;
    for (const watched of this.#watched.values()) if (!isAtPlace(watched)) watched.journal.lose();
  }

  readonly #lost: Lost = {
    all: (why) => this.#loseAll(why),
    away: (root) => this.#watched.get(root)?.journal.lose(),
    ended: (root, why) => {
      this.#log(`${printablePath(Buffer.from(root, "latin1"))} is not watched any more: ${why}`);
      this.remove(Buffer.from(root, "latin1"));
    },
  };

  #note(directory: string | null, change: Change): void {
    const { name, isDirectory } = change;
    const watched = directory === null ? undefined : this.#folderAbove(directory);
    // The name may be one of several, or already removed.
    if (!isDirectory) for (const word of change.words) this.#arrivals.note(word, this.#mark);
    if (watched === undefined) {
      // A watched folder, or one above it, may be moved away for a while. Changes in it are outside every folder then.
      if (isDirectory && change.moved) this.#mayBeAway = true;
      return;
    }
    const below = directory!.slice(watched.root.length + 1);
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

  #readMounts(): string {
    return readFileSync("/proc/self/mountinfo", "latin1");
  }

  #mountsAt(
    folder: Buffer,
    all: readonly Mount[] = parseMountinfo(this.#readMounts()),
  ): Pick<Watched, "mount" | "mounts" | "mountedIn" | "within" | "isTelling"> {
    const own = resolveMount(folder, all);
    const below = all.filter(({ mountPoint }) => isAtOrBelow(mountPoint, folder));
    const mounts = [...below, ...(own === null ? [] : [own])];
    return {
      mount: own?.id ?? -1,
      within: own === null ? "" : withinFileSystem(own, folder),
      isTelling: own !== null && this.#source.tells(own.type),
      mounts: mounts.map(({ id, device, mountPoint }) => `${id} ${device} ${printablePath(mountPoint)}`).join("\n"),
      mountedIn: below.flatMap(({ mountPoint }) =>
        mountPoint.equals(folder) ? [] : [mountPoint.toString("latin1", folder.length + 1)],
      ),
    };
  }

  /** Limits the stat caches in memory: the cache of the folder that was scanned last stays. */
  #limitHeld(last: ChangeJournal): void {
    let left = Math.min(MOST_HELD - last.heldBytes, MOST_HELD_OF_OTHERS);
    for (const { journal } of this.#watched.values()) {
      if (journal === last) continue;
      left -= journal.heldBytes;
      if (left < 0) journal.letGo();
    }
    if (last.heldBytes > MOST_HELD) last.letGo();
  }
}

function queueOf(name: string): number {
  try {
    return Number(readFileSync(`/proc/sys/fs/${name}/max_queued_events`, "latin1"));
  } catch {
    return 16_384;
  }
}

function isAtPlace({ root, inode, device }: Watched): boolean {
  const facts = lstatSync(Buffer.from(root, "latin1"), { throwIfNoEntry: false });
  return facts?.ino === inode && facts.dev === device;
}

function withinFileSystem({ root, mountPoint }: Mount, folder: Buffer): string {
  const [above, at] = [root, mountPoint].map((each) => (each.length === 1 ? "" : each.toString("latin1"))) as [
    string,
    string,
  ];
  return above + folder.toString("latin1").slice(at.length);
}

/** True if one of two folders lies in the other, perhaps through another mount. */
function overlaps(a: Pick<Watched, "device" | "within">, b: Pick<Watched, "device" | "within">): boolean {
  return a.device === b.device && (isIn(a.within, b.within) || isIn(b.within, a.within));
}

function isIn(path: string, folder: string): boolean {
  return path === folder || path.startsWith(`${folder}/`);
}
