import { constants, readlinkSync } from "node:fs";
import { constants as system, endianness } from "node:os";
import { type Arena, bindNative, bindNativeLater, lastErrno, type NativeFunction, newArena } from "../../native.ts";
import { AT_FDCWD } from "./syscall-abi.ts";

/** The kernel's reports of changes on a whole file system, each with a handle of its directory: fanotify(7). Only for root. */

const [CLOEXEC, NONBLOCK, REPORT_TARGET, REPORT_FID, REPORT_DIRECTORY, REPORT_NAME] = [
  1, 2, 0x1000, 0x200, 0x400, 0x800,
];
const MARK_ADD_FILE_SYSTEM = 0x1 | 0x100;
const [MODIFY, ATTRIBUTES, CLOSE_WRITE, MOVED_FROM, MOVED_TO, CREATE, DELETE] = [2, 4, 8, 0x40, 0x80, 0x100, 0x200];
const [OVERFLOW, FILE_SYSTEM_ERROR, ON_DIRECTORY] = [0x4000, 0x8000, 0x40000000];
/**
 * Kinds of records that follow an event: a handle of the object, of a directory with an entry's name, of a directory.
 */
const [OF_OBJECT, OF_NAME, OF_DIRECTORY] = [1, 2, 3];
const [HEAD_BYTES, INFO_BYTES] = [24, 12];
const BUFFER_BYTES = 256 << 10;
const PATH_ONLY = 0o10000000;

export interface Change {
  /** The changed entry's directory, by file system and handle; null if the kernel does not report it. */
  directory: string | null;
  /** The entry's name, raw bytes as latin1; `.`: the directory itself; null without a name. */
  name: string | null;
  /** Words of the entry's handle; one has the low 32 bits of the inode number. Empty if the kernel does not report a handle. */
  words: readonly number[];
  /** True: names in the directory were added, removed or changed. */
  names: boolean;
  /** True: the entry got this name by a creation, link or move. */
  arrived: boolean;
  /** True: the entry was renamed from or to this name. */
  moved: boolean;
  isDirectory: boolean;
}

/** The events to report; inotify uses the same numbers. */
export const CHANGES = MODIFY | ATTRIBUTES | CLOSE_WRITE | MOVED_FROM | MOVED_TO | CREATE | DELETE;
const NOWHERE = { directory: null, name: null, words: [] };

/** Returns the kind of change for an event's mask; inotify uses the same numbers. */
export function kindOf(mask: number): Pick<Change, "names" | "arrived" | "moved" | "isDirectory"> {
  return {
    names: (mask & (MOVED_FROM | MOVED_TO | CREATE | DELETE)) !== 0,
    arrived: (mask & (MOVED_TO | CREATE)) !== 0,
    moved: (mask & (MOVED_FROM | MOVED_TO)) !== 0,
    isDirectory: (mask & ON_DIRECTORY) !== 0,
  };
}

interface Calls {
  read: NativeFunction;
  close: NativeFunction;
  openByHandle: NativeFunction;
  mark: NativeFunction;
}

/** Changes on each file system since its watch began, in order. */
export class FanotifyQueue {
  readonly fd: number;
  readonly #calls: Calls;
  readonly #buffer: Arena = newArena(BUFFER_BYTES);
  readonly #view: DataView;

  private constructor(fd: number, calls: Calls) {
    this.fd = fd;
    this.#calls = calls;
    this.#view = new DataView(this.#buffer.bytes.buffer, this.#buffer.bytes.byteOffset);
  }

  /** Null if the kernel lacks fanotify, or does not allow it to this user. */
  static open(): FanotifyQueue | null {
    const init = bindNative("int fanotify_init(unsigned int flags, unsigned int event_flags)");
    const mark = bindNative("int fanotify_mark(int fd, unsigned int flags, uint64_t mask, int dirfd, str path)");
    const read = bindNative("int64_t read(int fd, uint64_t bytes, uint64_t length)");
    const close = bindNative("int close(int fd)");
    const openByHandle = bindNative("int open_by_handle_at(int mount_fd, uint64_t handle, int flags)");
    if (init === null || mark === null || read === null || close === null || openByHandle === null) return null;
    const reports = REPORT_FID | REPORT_DIRECTORY | REPORT_NAME | REPORT_TARGET;
    const fd = init(CLOEXEC | NONBLOCK | reports, constants.O_RDONLY);
    return fd < 0 ? null : new FanotifyQueue(fd, { read, close, openByHandle, mark });
  }

  /** Watches the whole file system of a path. False if the file system does not support that. */
  watch(path: string): boolean {
    return this.#calls.mark(this.fd, MARK_ADD_FILE_SYSTEM, CHANGES | ON_DIRECTORY, AT_FDCWD, path) === 0;
  }

  /** Reports waiting changes, at most one buffer. False: no change waits. `lost`: the kernel dropped some changes. */
  read(told: (change: Change) => void, lost: () => void): boolean {
    const length = this.#calls.read(this.fd, this.#buffer.address, BUFFER_BYTES);
    if (length <= 0) {
      if (length < 0 && lastErrno() !== system.errno.EAGAIN) lost();
      return false;
    }
    const view = this.#view;
    for (let at = 0; at + HEAD_BYTES <= length; at += view.getUint32(at, LITTLE)) {
      const mask = view.getUint32(at + 8, LITTLE);
      if (mask & (OVERFLOW | FILE_SYSTEM_ERROR)) lost();
      else told(this.#change(at, mask));
    }
    return true;
  }

  #change(at: number, mask: number): Change {
    const view = this.#view;
    const change: { -readonly [K in keyof Change]: Change[K] } = { ...NOWHERE, ...kindOf(mask) };
    const end = at + view.getUint32(at, LITTLE);
    for (let info = at + view.getUint16(at + 6, LITTLE); info + INFO_BYTES <= end;) {
      const [kind, length] = [view.getUint8(info), view.getUint16(info + 2, LITTLE)];
      const handleBytes = view.getUint32(info + INFO_BYTES, LITTLE);
      const handleEnd = info + INFO_BYTES + 8 + handleBytes;
      if (kind === OF_NAME || kind === OF_DIRECTORY) {
        change.directory = this.#text(info + 4, handleEnd);
        if (kind === OF_NAME) change.name = this.#text(handleEnd, info + length).replace(/\0.*$/s, "");
      } else if (kind === OF_OBJECT) {
        const words = Math.min(handleBytes >> 2, HANDLE_WORDS);
        change.words = Array.from({ length: words }, (_, i) => view.getUint32(info + INFO_BYTES + 8 + i * 4, LITTLE));
      }
      info += Math.max(length, INFO_BYTES);
    }
    return change;
  }

  #text(from: number, to: number): string {
    const { bytes } = this.#buffer;
    return Buffer.from(bytes.buffer, bytes.byteOffset + from, to - from).toString("latin1");
  }

  /**
   * Returns the path of a directory handle of {@link Change}, as latin1, through the mount of an open descriptor. Null
   * if the directory is gone; undefined if its path cannot be read.
   */
  pathOf(directory: string, mount: number): string | null | undefined {
    const handle = newArena(directory.length);
    handle.bytes.set(Buffer.from(directory, "latin1"));
    const fd = this.#calls.openByHandle(mount, handle.address + FSID_BYTES, PATH_ONLY | constants.O_DIRECTORY);
    if (fd < 0) return lastErrno() === system.errno.ESTALE ? null : undefined;
    try {
      return readlinkSync(`/proc/self/fd/${fd}`, "latin1");
    } catch {
      return undefined;
    } finally {
      this.#calls.close(fd);
    }
  }

  close(): void {
    this.#calls.close(this.fd);
  }
}

const LITTLE = endianness() === "LE";
const FSID_BYTES = 8;
/** The inode number is the first word, or follows the generation (tmpfs). */
const HANDLE_WORDS = 2;

const statfs = bindNativeLater("int statfs(str path, uint64_t facts)");
const FSID_AT = 56;

/** The id of a path's file system, with which each {@link Change.directory} begins: statfs(2). Null if it cannot be read. */
export function fileSystemId(path: string): string | null {
  const facts = newArena(120);
  if (statfs()?.(path, facts.address) !== 0) return null;
  return Buffer.from(facts.bytes.subarray(FSID_AT, FSID_AT + FSID_BYTES)).toString("latin1");
}
