import { constants as system, endianness } from "node:os";
import { type Arena, bindNative, lastErrno, type NativeFunction, newArena } from "../../native.ts";
import { type Change, CHANGES, kindOf } from "./fanotify.ts";

/** The kernel's reports of changes in single directories, for any user: inotify(7). */

const [CLOEXEC, NONBLOCK] = [0o2000000, 0o4000];
const [OVERFLOW, IGNORED, ONLY_DIRECTORY, NO_LINK] = [0x4000, 0x8000, 0x1000000, 0x2000000];
const HEAD_BYTES = 16;
const BUFFER_BYTES = 256 << 10;
const PATH_BYTES = 4096;
const LITTLE = endianness() === "LE";

interface Calls {
  read: NativeFunction;
  close: NativeFunction;
  add: NativeFunction;
  remove: NativeFunction;
}

/** Changes in each directory since its watch began, in order. */
export class InotifyQueue {
  readonly fd: number;
  readonly #calls: Calls;
  readonly #buffer: Arena = newArena(BUFFER_BYTES);
  readonly #path: Arena = newArena(PATH_BYTES);
  readonly #view: DataView;

  private constructor(fd: number, calls: Calls) {
    this.fd = fd;
    this.#calls = calls;
    this.#view = new DataView(this.#buffer.bytes.buffer, this.#buffer.bytes.byteOffset);
  }

  /** Null if the kernel lacks inotify, or this user has too many instances. */
  static open(): InotifyQueue | null {
    const init = bindNative("int inotify_init1(int flags)");
    const add = bindNative("int inotify_add_watch(int fd, uint64_t path, uint32_t mask)");
    const remove = bindNative("int inotify_rm_watch(int fd, int watch)");
    const read = bindNative("int64_t read(int fd, uint64_t bytes, uint64_t length)");
    const close = bindNative("int close(int fd)");
    if (init === null || add === null || remove === null || read === null || close === null) return null;
    const fd = init(CLOEXEC | NONBLOCK);
    return fd < 0 ? null : new InotifyQueue(fd, { read, close, add, remove });
  }

  /** Watches a directory by its path as latin1. Returns the watch number, the same for the same directory; or minus errno. */
  add(path: string): number {
    const bytes = Buffer.from(`${path}\0`, "latin1");
    if (bytes.length > PATH_BYTES) return -system.errno.ENAMETOOLONG;
    this.#path.bytes.set(bytes);
    const watch = this.#calls.add(this.fd, this.#path.address, CHANGES | ONLY_DIRECTORY | NO_LINK);
    return watch < 0 ? -lastErrno() : watch;
  }

  remove(watch: number): void {
    this.#calls.remove(this.fd, watch);
  }

  /**
   * Reports waiting changes, at most one buffer. False: no change waits. `gone`: a watch has ended. `lost`: the kernel
   * dropped some changes.
   */
  read(told: {
    change: (watch: number, change: Change) => void;
    gone: (watch: number) => void;
    lost: () => void;
  }): boolean {
    const length = this.#calls.read(this.fd, this.#buffer.address, BUFFER_BYTES);
    if (length <= 0) {
      if (length < 0 && lastErrno() !== system.errno.EAGAIN) told.lost();
      return false;
    }
    const view = this.#view;
    for (let at = 0, next = 0; at + HEAD_BYTES <= length; at = next) {
      next = at + HEAD_BYTES + view.getUint32(at + 12, LITTLE);
      const [watch, mask] = [view.getInt32(at, LITTLE), view.getUint32(at + 4, LITTLE)];
      if (mask & OVERFLOW) told.lost();
      else if (mask & IGNORED) told.gone(watch);
      else told.change(watch, this.#change(mask, at + HEAD_BYTES, next));
    }
    return true;
  }

  #change(mask: number, from: number, to: number): Change {
    const { bytes } = this.#buffer;
    const text = Buffer.from(bytes.buffer, bytes.byteOffset + from, to - from).toString("latin1");
    const name = text.replace(/\0.*$/s, "");
    return { directory: null, name: name === "" ? "." : name, words: [], ...kindOf(mask) };
  }

  close(): void {
    this.#calls.close(this.fd);
  }
}
