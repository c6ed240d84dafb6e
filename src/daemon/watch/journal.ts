import { readdirSync } from "node:fs";
import { collectMemory, trimMemory } from "../../native.ts";
import type { TouchedFolder } from "../../archive/cache/unchanged.ts";
import { joinPath } from "../../formats/bytes.ts";
import { IGNORE_FILE } from "../../fs/ignore.ts";
import type { Change } from "../../fs/linux/fanotify.ts";
import type { BlobIndex } from "../../repository/index/blob-index.ts";
import type { FolderChanges, HeldCache, ScanBasis, SeenEntries } from "../../workspace/store/engine.ts";

/** If more directories or names of files changed, the next scan reads the whole folder. */
const MOST = 20_000;
const MOST_NAMES = 500_000;
const MOST_INODES = 200_000;
/** Milliseconds after which a stat cache in memory is written to its file, and after which the memory is freed. */
const SAVED_AFTER_MS = 30_000;
const LET_GO_AFTER_MS = 600_000;
/** With more seen entries, the kernel's table of locks is read sooner than each of them. */
const MOST_SEEN = 500;
const FREED_AFTER_MS = 3_000;
let freeing: NodeJS.Timeout | undefined;

/** Gives memory that journals let go back to the system once that has paused: V8 frees shared memory late. */
function freeSoon(): void {
  const free = (): void => {
    collectMemory();
    trimMemory();
  };
  freeing ??= setTimeout(free, FREED_AFTER_MS).unref();
  freeing.refresh();
}
/** The most names of changed entries in a notice. */
const NAMED = 20;

/** A change in a folder. Its directory is a path below the folder, as latin1. */
export type FolderChange = Change & { directory: string };

/** Changes of a folder since the last notice. */
export interface ChangeNotice {
  /** The number of changes; each change of the same entry counts. */
  count: number;
  /** Some of the entries' paths below the folder, as latin1. */
  paths: string[];
}

/** Inodes of files that were changed or got a name outside the watched folders. The file may be in a folder by another name. */
export class Arrivals {
  /** Inodes by the mark after which they were noted, oldest first. */
  readonly #byMark = new Map<number, Set<number>>();
  #count = 0;
  #lostBefore = 0;

  /** `inode`: the low 32 bits of the inode's number. */
  note(inode: number, mark: number): void {
    let noted = this.#byMark.get(mark);
    if (noted === undefined) this.#byMark.set(mark, (noted = new Set()));
    const before = noted.size;
    noted.add(inode);
    this.#count += noted.size - before;
    for (const [oldest, { size }] of this.#byMark) {
      if (this.#count <= MOST_INODES) break;
      this.#byMark.delete(oldest);
      this.#count -= size;
      this.#lostBefore = oldest;
    }
  }

  /** Returns the inodes after a mark; null if some may be missing. */
  since(mark: number): number[] | null {
    if (mark <= this.#lostBefore) return null;
    return [...this.#byMark].flatMap(([at, inodes]) => (at >= mark ? [...inodes] : []));
  }
}

/** Functions that the journals of all folders use together. */
export interface Shared {
  /** Notes all changes until now. Returns the next mark. */
  takeNote(journal: ChangeJournal): number;
  /** Notes all changes until now, but for writes through mappings. */
  catchUp(journal: ChangeJournal): void;
  mark(): number;
  readonly arrivals: Arrivals;
  /** True if the mappings of all processes are visible. */
  readonly seesMappings: boolean;
  /** Inodes of files that a process has mapped, by their low 32 bits: the kernel does not report writes through a mapping. */
  mapped(): readonly number[];
  /** Called when a stat cache is kept in memory. */
  onHold(journal: ChangeJournal): void;
}

/** Changes of one folder since its last scan, if none was missed. */
export class ChangeJournal implements FolderChanges, SeenEntries {
  readonly root: Uint8Array;
  readonly #shared: Shared;
  /** Changed directories, each with the mark after which it changed last. */
  readonly #touched = new Map<string, { names: Set<string> | null; deep: boolean; mark: number }>();
  /** Changes before this mark may be missing. */
  #lostBefore = 0;
  /** The latest mark that a state was kept for. */
  #keptMark = 0;
  #basis: (ScanBasis & { mark: number; young: boolean }) | null = null;
  /** The file with the stat cache of that state; null: the cache is not written yet. */
  #saved: string | null = null;
  #held: HeldCache | null = null;
  #save: (() => string | null) | null = null;
  #saveLater: NodeJS.Timeout | undefined;
  #letGoLater: NodeJS.Timeout | undefined;
  #index: BlobIndex | null = null;
  /** Names noted since `#touched` was empty. */
  #names = 0;
  #notice: ChangeNotice = { count: 0, paths: [] };
  readonly databases = new Set<string>();
  /** A new directory ends with a slash: its entries may have come before its watch. Null: some may be missing. */
  #seen: Set<string> | null = null;
  /** False while directories may be without a watch: changes in them are not reported. */
  isSetUp = true;

  constructor(root: Uint8Array, shared: Shared) {
    this.root = root;
    this.#shared = shared;
    this.#lostBefore = shared.mark();
  }

  mark(): number {
    return this.#shared.takeNote(this);
  }

  since(basis: ScanBasis): TouchedFolder | null {
    const known = this.#basis;
    if (known === null || known.cache !== basis.cache || known.rules !== basis.rules) return null;
    const arrived = this.#shared.arrivals.since(known.mark);
    if (arrived === null) return null;
    const inodes = [...arrived, ...this.#shared.mapped()];
    return { directories: this.#touched, inodes, young: known.young || !this.#shared.seesMappings };
  }

  renamedIn(mark: number): string[] | null {
    this.#shared.catchUp(this);
    if (mark <= this.#lostBefore) return null;
    return [...this.#touched].flatMap(([path, { names, mark: at }]) => (names === null && at >= mark ? [path] : []));
  }

  keep(basis: ScanBasis, mark: number, isWhole: boolean): void {
    // A later scan has removed entries that this scan needs.
    if (mark <= this.#lostBefore || mark < this.#keptMark) return;
    this.#keptMark = mark;
    if (this.#basis?.cache !== basis.cache) this.#saved = null;
    this.#basis = { ...basis, mark, young: !isWhole };
    for (const [path, touched] of this.#touched) if (touched.mark < mark) this.#touched.delete(path);
    if (this.#touched.size === 0) this.#names = 0;
  }

  takeSeen(): ReadonlySet<string> | null {
    this.#shared.catchUp(this);
    // Entries of new directories join at the end of the set.
    for (const path of this.#seen ?? []) if (path.endsWith("/")) this.#seeEntries(path);
    const seen = this.#seen;
    this.#seen = this.isSetUp ? new Set() : null;
    return seen;
  }

  loseSeen(): void {
    this.#seen = null;
  }

  get held(): HeldCache | null {
    return this.#held;
  }

  hold(held: HeldCache, save: () => string | null): void {
    this.#held = held;
    this.#save = save;
    clearTimeout(this.#letGoLater);
    this.#letGoLater = setTimeout(() => this.letGo(), LET_GO_AFTER_MS).unref();
    this.#saveLater ??= setTimeout(() => this.#saveNow(), SAVED_AFTER_MS).unref();
    this.#shared.onHold(this);
  }

  /** Writes the stat cache to its file. After a successful write, changes count from the file. */
  #saveNow(): void {
    clearTimeout(this.#saveLater);
    this.#saveLater = undefined;
    const file = this.#save?.() ?? null;
    this.#save = null;
    if (file !== null && this.#basis?.cache === this.#held?.name) this.#saved = file;
  }

  takeIndex(): BlobIndex | null {
    const index = this.#index;
    this.#index = null;
    return index;
  }

  giveIndex(index: BlobIndex): void {
    this.#index = index;
  }

  /** Frees the memory. Writes a stat cache that is not in its file yet. */
  letGo(): void {
    clearTimeout(this.#letGoLater);
    this.#saveNow();
    if (this.#basis !== null && this.#saved !== null) this.#basis.cache = this.#saved;
    if (this.#held !== null || this.#index !== null) freeSoon();
    this.#held = null;
    this.#index = null;
  }

  /** Bytes of the stat cache and index in memory. */
  get heldBytes(): number {
    const { records, names, extras } = this.#held?.cache.table.buffers ?? {};
    const index = this.#index?.shared.table.byteLength ?? 0;
    return (records?.byteLength ?? 0) + (names?.byteLength ?? 0) + (extras?.byteLength ?? 0) + index;
  }

  note({ directory, name, names, arrived, isDirectory }: FolderChange): void {
    const path = name === null || name === "." ? directory : directory === "" ? name : `${directory}/${name}`;
    this.#notice.count++;
    if (this.#notice.paths.length < NAMED && !this.#notice.paths.includes(path)) this.#notice.paths.push(path);
    if (!isDirectory) this.#see(path);
    else if (arrived) this.#see(`${path}/`);
    // An ignore file may hide entries anywhere below it.
    if (name === IGNORE_FILE) return this.#loseBasis();
    this.touch(directory, names || name === null || name === "." ? null : name);
    // The directory's own times and rights are in the record of its parent.
    if ((names || name === ".") && directory !== "") this.touch(above(directory), nameOf(directory));
    // A moved directory brings a tree whose entries had no report.
    if (arrived && isDirectory) this.touch(path, null, true);
  }

  #see(path: string): void {
    this.#seen?.add(path);
    if (this.#seen !== null && this.#seen.size > MOST_SEEN) this.#seen = null;
  }

  #seeEntries(directory: string): void {
    const place = joinPath(this.root, Buffer.from(directory, "latin1"));
    try {
      for (const entry of readdirSync(place, { encoding: "latin1", withFileTypes: true }))
        this.#see(`${directory}${entry.name}${entry.isDirectory() ? "/" : ""}`);
    } catch (error) {
      // Later changes of a directory that is gone or was moved have another path.
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") this.#seen = null;
    }
  }

  /** `name`: the entry that may have changed; null: any entry, and names may have been added or removed. */
  touch(directory: string, name: string | null, deep = false): void {
    const known = this.#touched.get(directory);
    const names = name === null || known?.names === null ? null : (known?.names ?? new Set());
    if (names?.has(name!) === false) {
      names.add(name!);
      this.#names++;
    }
    this.#touched.set(directory, { names, deep: deep || known?.deep === true, mark: this.#shared.mark() });
    if (this.#touched.size > MOST || this.#names > MOST_NAMES) this.#loseBasis();
  }

  /** Notes that changes may be missing: the next scan reads the whole folder. */
  lose(): void {
    this.#seen = null;
    this.#loseBasis();
  }

  #loseBasis(): void {
    this.#basis = null;
    this.#touched.clear();
    this.#names = 0;
    this.#lostBefore = this.#shared.mark();
    this.#notice.count++;
  }

  /** Changes since the last call; null if there were none. */
  takeNotice(): ChangeNotice | null {
    const notice = this.#notice;
    if (notice.count === 0) return null;
    this.#notice = { count: 0, paths: [] };
    return notice;
  }
}

/** The directory of an entry. */
export function above(path: string): string {
  return path.slice(0, Math.max(path.lastIndexOf("/"), 0));
}

function nameOf(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}
