import { readdirSync } from "node:fs";
import { constants as system } from "node:os";
import type { Change } from "../../fs/linux/fanotify.ts";
import { InotifyQueue } from "../../fs/linux/inotify.ts";
import { newPacer } from "../../pacer.ts";
import type { ChangeSource, Lost, Told, WatchedPlace } from "./change-source.ts";

/** File systems on which only this machine makes changes. Elsewhere the kernel does not report the changes of other machines. */
const TELLING = new Set(["ext2", "ext3", "ext4", "xfs", "f2fs", "tmpfs", "bcachefs", "btrfs", "overlay"]);
/** The most directories of one folder: each takes a kibibyte of kernel memory, and delays the start of the watch. */
const MOST_OF_ONE = 50_000;

/**
 * Changes in each directory of the folders, for any user. Misses changes by a name outside the folder and changes in
 * unreadable directories, so no scan relies on the reports. A btrfs subvolume has no names outside: a save of one relies
 * on them for databases if {@link seesAll}.
 */
export class InotifySource implements ChangeSource {
  readonly isWhole = false;
  readonly #queue: InotifyQueue;
  readonly #watches = new Map<number, { path: string; root: string }>();
  readonly #roots = new Map<string, { directories: number; own: number; isBlind: boolean }>();
  #lost: Lost | null = null;

  readonly #most: number;

  private constructor(queue: InotifyQueue, most: number) {
    this.#queue = queue;
    this.#most = most;
  }

  /** `most`: the most directories of one folder. */
  static open(most = MOST_OF_ONE): InotifySource | null {
    const queue = InotifyQueue.open();
    return queue === null ? null : new InotifySource(queue, most);
  }

  get fd(): number {
    return this.#queue.fd;
  }

  tells(type: string): boolean {
    return TELLING.has(type);
  }

  async watch({ root }: WatchedPlace): Promise<boolean> {
    this.#roots.set(root, { directories: 0, own: -1, isBlind: false });
    const pace = newPacer(undefined);
    for (const _directory of this.#walk(root, root)) await pace();
    return this.#roots.has(root);
  }

  /** Watches a directory and all below it; stops early at the limit. */
  *#walk(path: string, root: string): Generator<string> {
    const left = [path];
    for (let at = left.pop(); at !== undefined; at = left.pop()) {
      const watch = this.#queue.add(at);
      const facts = this.#roots.get(root);
      if (watch === -system.errno.ENOSPC || facts === undefined || facts.directories >= this.#most)
        return this.#giveUp(root);
      if (watch < 0) {
        // The directory is gone, or this user may not read it; a scan cannot read it either.
        facts.isBlind ||= watch !== -system.errno.ENOENT && watch !== -system.errno.ENOTDIR;
        continue;
      }
      if (!this.#watches.has(watch)) facts.directories++;
      if (at === root) facts.own = watch;
      this.#watches.set(watch, { path: at, root });
      yield at;
      for (const name of directoriesIn(at)) left.push(`${at}/${name}`);
    }
  }

  #giveUp(root: string): void {
    this.#remove(root);
    this.#lost?.ended(root, "the folder has more directories than may be watched (fs.inotify.max_user_watches)");
  }

  #remove(root: string): void {
    this.#roots.delete(root);
    for (const [watch, each] of this.#watches) {
      if (each.root !== root) continue;
      this.#watches.delete(watch);
      this.#queue.remove(watch);
    }
  }

  unwatch({ root }: WatchedPlace): void {
    this.#remove(root);
  }

  /** btrfs gives the device number of a removed subvolume to the next one; the kernel's watch is of one directory. */
  isAt({ root }: WatchedPlace): boolean {
    return this.#roots.get(root)?.own === this.#queue.add(root);
  }

  seesAll({ root }: WatchedPlace): boolean {
    return this.#roots.get(root)?.isBlind === false;
  }

  read(told: Told, lost: Lost): boolean {
    this.#lost = lost;
    return this.#queue.read({
      change: (watch, change) => this.#change(watch, change, told),
      gone: (watch) => void this.#watches.delete(watch),
      lost: () => {
        // Directories may have been created without a report.
        for (const root of this.#roots.keys()) for (const _directory of this.#walk(root, root));
        lost.all("more files changed at once than the kernel's queue holds");
      },
    });
  }

  #change(watch: number, change: Change, told: Told): void {
    const at = this.#watches.get(watch);
    if (at === undefined) return;
    // Entries of a new or moved directory came before its watch, or have another path now.
    if (change.isDirectory && change.arrived && change.name !== null)
      for (const _directory of this.#walk(`${at.path}/${change.name}`, at.root));
    told(at.path, change);
  }

  forget(): void {
    // Each watch follows its directory, not a path.
  }

  pause(): void {
    // The queue is the only open descriptor.
  }

  close(): void {
    this.#queue.close();
  }
}

function directoriesIn(path: string): string[] {
  try {
    return readdirSync(Buffer.from(path, "latin1"), { encoding: "latin1", withFileTypes: true }).flatMap((each) =>
      each.isDirectory() ? [each.name] : [],
    );
  } catch {
    return [];
  }
}
