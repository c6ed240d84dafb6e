import { closeSync, constants, fstatSync, openSync } from "node:fs";
import { type Change, FanotifyQueue } from "../../fs/linux/fanotify.ts";
import type { ChangeSource, Lost, Told, WatchedPlace } from "./change-source.ts";

/** File systems that can be watched as a whole. btrfs cannot, because of its subvolumes. */
const TELLING = new Set(["ext2", "ext3", "ext4", "xfs", "f2fs", "tmpfs", "bcachefs"]);
/** The most directories whose paths are kept. */
const MOST_PATHS = 50_000;

/** Changes on whole file systems, for root: none is missed, whichever process makes it and by whichever name. */
export class FanotifySource implements ChangeSource {
  readonly isWhole = true;
  readonly #queue: FanotifyQueue;
  readonly #places = new Map<string, WatchedPlace>();
  /** Paths of directories by the kernel's file handle; null: the directory is in no watched folder. */
  readonly #paths = new Map<string, string | null>();
  /** Descriptors of the mounts, open as long as changes are read: they keep the mounts in use. */
  readonly #mounts = new Map<number, number>();

  private constructor(queue: FanotifyQueue) {
    this.#queue = queue;
  }

  /** Null if the kernel lacks fanotify, or does not allow it to this user. */
  static open(): FanotifySource | null {
    const queue = FanotifyQueue.open();
    return queue === null ? null : new FanotifySource(queue);
  }

  get fd(): number {
    return this.#queue.fd;
  }

  tells(type: string): boolean {
    return TELLING.has(type);
  }

  watch(place: WatchedPlace): boolean {
    const path = Buffer.from(place.root, "latin1").toString("utf8");
    // A repeated call has no effect, unless the file system was unmounted meanwhile, which removes the mark.
    if (!this.#queue.watch(path)) return false;
    this.#places.set(place.root, place);
    this.forget();
    return true;
  }

  unwatch({ root }: WatchedPlace): void {
    this.#places.delete(root);
  }

  /** The watcher compares device and inode, which are enough without subvolumes. */
  isAt(): boolean {
    return true;
  }

  seesAll(): boolean {
    return true;
  }

  read(told: Told, lost: Lost): boolean {
    return this.#queue.read(
      (change) => {
        const path = this.#pathOf(change, lost);
        // A renamed directory changes the paths of everything below it.
        if (change.isDirectory && change.moved) this.forget();
        told(path, change);
      },
      () => lost.all("more files changed at once than the kernel's queue holds"),
    );
  }

  forget(): void {
    this.#paths.clear();
  }

  #pathOf({ directory }: Change, lost: Lost): string | null {
    if (directory === null) return null;
    const known = this.#paths.get(directory);
    if (known !== undefined) return known;
    const fileSystem = directory.slice(0, 8);
    let found: string | null = null;
    let isSure = true;
    const asked = new Set<number>();
    for (const place of this.#places.values()) {
      if (place.fileSystem !== fileSystem || asked.has(place.mount)) continue;
      const fd = this.#mountOf(place, lost);
      if (fd < 0) {
        isSure = false;
        continue;
      }
      asked.add(place.mount);
      const path = this.#queue.pathOf(directory, fd);
      if (path === undefined) lost.all("the kernel reported a change without its place");
      else if (path !== null && isIn(path, this.#places)) found = path;
      if (found !== null) break;
    }
    if (this.#paths.size >= MOST_PATHS) this.forget();
    if (isSure) this.#paths.set(directory, found);
    return found;
  }

  /** Minus one if the folder is not at its path: the caller tries another folder of the mount. */
  #mountOf({ root, device, mount }: WatchedPlace, lost: Lost): number {
    const known = this.#mounts.get(mount);
    if (known !== undefined) return known;
    const flags = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW;
    try {
      const fd = openSync(Buffer.from(root, "latin1"), flags);
      if (fstatSync(fd).dev === device) {
        this.#mounts.set(mount, fd);
        return fd;
      }
      closeSync(fd);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code !== "ENOENT" && code !== "ENOTDIR") lost.all(`a folder cannot be opened: ${code}`);
    }
    lost.away(root);
    return -1;
  }

  pause(): void {
    for (const fd of this.#mounts.values()) closeSync(fd);
    this.#mounts.clear();
  }

  close(): void {
    this.#queue.close();
  }
}

function isIn(path: string, places: ReadonlyMap<string, WatchedPlace>): boolean {
  for (let at = path; at !== ""; at = at.slice(0, at.lastIndexOf("/"))) if (places.has(at)) return true;
  return false;
}
