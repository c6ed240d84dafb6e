import type { TouchedFolder } from "../../archive/cache/unchanged.ts";
import { IGNORE_FILE } from "../../fs/ignore.ts";
import type { Change } from "../../fs/linux/fanotify.ts";
import type { BlobIndex } from "../../repository/index/blob-index.ts";
import type { FolderChanges, HeldCache, ScanBasis } from "../../workspace/store/engine.ts";

/** With more changed directories than this, or names of files, all is looked at. */
const MOST = 20_000;
const MOST_NAMES = 500_000;
const MOST_INODES = 200_000;
/** Milliseconds after which a stat cache in memory is written into its file, and after which it need not be in memory. */
const SAVED_AFTER_MS = 30_000;
const LET_GO_AFTER_MS = 600_000;
/** Names of changed entries that a notice has. */
const NAMED = 20;

/** A change in a folder, by the directory below its root as latin1. */
export type FolderChange = Change & { directory: string };

/** Changes of a folder since its listeners were told last. */
export interface ChangeNotice {
  /** Changes of entries; one that changed often counts as often. */
  count: number;
  /** Some of the entries' paths below the root, as latin1. */
  paths: string[];
}

/** Inodes of files that were changed or got a name somewhere: the name may be gone since, and the file be in a folder by another one. */
export class Arrivals {
  /** By the mark after which they were noted, oldest first. */
  readonly #byMark = new Map<number, Set<number>>();
  #count = 0;
  #lostBefore = 0;

  /** `inode`: the low 32 bits of its number. */
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

  /** Those after a mark; null where some may be missing. */
  since(mark: number): number[] | null {
    if (mark <= this.#lostBefore) return null;
    return [...this.#byMark].flatMap(([at, inodes]) => (at >= mark ? [...inodes] : []));
  }
}

/** Things that the journals of all folders share. */
export interface Shared {
  /** All that has changed until now is noted. Returns the next mark. */
  takeNote(journal: ChangeJournal): number;
  /** The last mark. */
  mark(): number;
  readonly arrivals: Arrivals;
  /** True where the mappings of all are seen. */
  readonly seesMappings: boolean;
  /** Inodes of files that somebody has mapped, by their low 32 bits: what is stored through a mapping is told by nobody. */
  mapped(): readonly number[];
  /** Called when a stat cache is kept in memory. */
  onHold(journal: ChangeJournal): void;
}

/** Changes of one folder since its last scan, as long as none was missed. */
export class ChangeJournal implements FolderChanges {
  readonly root: Uint8Array;
  readonly #shared: Shared;
  /** Changed directories, and the mark after which each changed last. */
  readonly #touched = new Map<string, { names: Set<string> | null; deep: boolean; mark: number }>();
  /** Changes before this mark may be missing. */
  #lostBefore = 0;
  /** The latest mark that a state was kept for. */
  #keptMark = 0;
  #basis: (ScanBasis & { mark: number; young: boolean }) | null = null;
  /** The file in which the stat cache of that state was written; null: in none yet. */
  #saved: string | null = null;
  #held: HeldCache | null = null;
  #save: (() => string | null) | null = null;
  #saveLater: NodeJS.Timeout | undefined;
  #letGoLater: NodeJS.Timeout | undefined;
  #index: BlobIndex | null = null;
  /** Names that were noted since it was empty. */
  #names = 0;
  #notice: ChangeNotice = { count: 0, paths: [] };

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

  keep(basis: ScanBasis, mark: number, isWhole: boolean): void {
    // One that began later has pruned what this one does not know.
    if (mark <= this.#lostBefore || mark < this.#keptMark) return;
    this.#keptMark = mark;
    if (this.#basis?.cache !== basis.cache) this.#saved = null;
    this.#basis = { ...basis, mark, young: !isWhole };
    for (const [path, touched] of this.#touched) if (touched.mark < mark) this.#touched.delete(path);
    if (this.#touched.size === 0) this.#names = 0;
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

  /** The state that changes are counted from is the one in the file from then on, where it was written. */
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

  /** Keeps nothing in memory; what is not in its file yet is written. */
  letGo(): void {
    clearTimeout(this.#letGoLater);
    this.#saveNow();
    if (this.#basis !== null && this.#saved !== null) this.#basis.cache = this.#saved;
    this.#held = null;
    this.#index = null;
  }

  /** Bytes of what is in memory. */
  get heldBytes(): number {
    const { records, names, extras } = this.#held?.cache.table.buffers ?? {};
    const index = this.#index?.shared.table.byteLength ?? 0;
    return (records?.byteLength ?? 0) + (names?.byteLength ?? 0) + (extras?.byteLength ?? 0) + index;
  }

  /** Takes note of a change. */
  note({ directory, name, names, arrived, isDirectory }: FolderChange): void {
    const path = name === null || name === "." ? directory : directory === "" ? name : `${directory}/${name}`;
    this.#notice.count++;
    if (this.#notice.paths.length < NAMED && !this.#notice.paths.includes(path)) this.#notice.paths.push(path);
    // What it hides may lie anywhere below.
    if (name === IGNORE_FILE) return this.lose();
    this.touch(directory, names || name === null || name === "." ? null : name);
    // Its own times, or rights, are in the record that the directory above has of it.
    if ((names || name === ".") && directory !== "") this.touch(above(directory), nameOf(directory));
    // Another tree may lie there now, of which nothing was told.
    if (arrived && isDirectory) this.touch(path, null, true);
  }

  /** `name`: of the entry that may have changed; null: any, and there may be other names now. */
  touch(directory: string, name: string | null, deep = false): void {
    const known = this.#touched.get(directory);
    const names = name === null || known?.names === null ? null : (known?.names ?? new Set());
    if (names?.has(name!) === false) {
      names.add(name!);
      this.#names++;
    }
    this.#touched.set(directory, { names, deep: deep || known?.deep === true, mark: this.#shared.mark() });
    if (this.#touched.size > MOST || this.#names > MOST_NAMES) this.lose();
  }

  /** Changes may have been missed: the next scan looks at all. */
  lose(): void {
    this.#basis = null;
    this.#touched.clear();
    this.#names = 0;
    this.#lostBefore = this.#shared.mark();
    this.#notice.count++;
  }

  /** Changes since this was asked last; null where there were none. */
  takeNotice(): ChangeNotice | null {
    const notice = this.#notice;
    if (notice.count === 0) return null;
    this.#notice = { count: 0, paths: [] };
    return notice;
  }
}

/** The path of the directory that an entry lies in. */
export function above(path: string): string {
  return path.slice(0, Math.max(path.lastIndexOf("/"), 0));
}

function nameOf(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}
