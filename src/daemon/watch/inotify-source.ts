import { readdirSync } from "node:fs";
import { constants as system } from "node:os";
import type { Change } from "../../fs/linux/fanotify.ts";
import { InotifyQueue } from "../../fs/linux/inotify.ts";
import { newPacer } from "../../pacer.ts";
import type { ChangeSource, Lost, Told, WatchedPlace } from "./change-source.ts";

/** Elsewhere another machine may make changes, of which nobody is told here. */
const TELLING = new Set(["ext2", "ext3", "ext4", "xfs", "f2fs", "tmpfs", "bcachefs", "btrfs", "overlay"]);
/** Directories of one folder: each takes a kibibyte of the kernel, and some time before anything is told. */
const MOST_OF_ONE = 50_000;

/**
 * Changes in each directory of the folders, for any user. What is changed by a name outside of its folder is not told of, nor what
 * lies in a directory that was closed: it serves those who want to hear of changes, and no scan goes by it.
 */
export class InotifySource implements ChangeSource {
  readonly isWhole = false;
  readonly #queue: InotifyQueue;
  /** Paths by the numbers of their watches, and the folder of each. */
  readonly #watches = new Map<number, { path: string; root: string }>();
  readonly #roots = new Map<string, number>();
  #lost: Lost | null = null;

  readonly #most: number;

  private constructor(queue: InotifyQueue, most: number) {
    this.#queue = queue;
    this.#most = most;
  }

  /** `most`: directories of one folder. */
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
    this.#roots.set(root, 0);
    const pace = newPacer(undefined);
    for (const _directory of this.#walk(root, root)) await pace();
    return this.#roots.has(root);
  }

  /** Watches a directory and all below it; ends early where it cannot. */
  *#walk(path: string, root: string): Generator<string> {
    const left = [path];
    for (let at = left.pop(); at !== undefined; at = left.pop()) {
      const watch = this.#queue.add(at);
      if (watch === -system.errno.ENOSPC || (this.#roots.get(root) ?? this.#most) >= this.#most)
        return this.#giveUp(root);
      // It is gone, or closed to this user, as it is to a scan.
      if (watch < 0) continue;
      if (!this.#watches.has(watch)) this.#roots.set(root, this.#roots.get(root)! + 1);
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

  read(told: Told, lost: Lost): boolean {
    this.#lost = lost;
    return this.#queue.read({
      change: (watch, change) => this.#change(watch, change, told),
      gone: (watch) => void this.#watches.delete(watch),
      lost: () => {
        // Directories may have come of which nothing was told.
        for (const root of this.#roots.keys()) for (const _directory of this.#walk(root, root));
        lost.all("more files changed at once than the kernel's queue holds");
      },
    });
  }

  #change(watch: number, change: Change, told: Told): void {
    const at = this.#watches.get(watch);
    if (at === undefined) return;
    // What lies in it came before it was watched, or has another path now.
    if (change.isDirectory && change.arrived && change.name !== null)
      for (const _directory of this.#walk(`${at.path}/${change.name}`, at.root));
    told(at.path, change);
  }

  forget(): void {
    // Each watch is of a directory and not of a path.
  }

  pause(): void {
    // Nothing is open but the queue.
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
