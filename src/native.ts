import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { CairnError, RAN_OUT } from "./errors.ts";

/**
 * The only access to native code: libc and functions that Node exports (libzstd, libcrypto), called through koffi with
 * plain numbers as addresses. Nothing works without koffi; the first call reports that.
 */

/** A C function: integers and addresses in, one integer out. 64-bit results are numbers if exact. */
// eslint-disable-next-line @typescript-eslint/no-explicit-any
export type NativeFunction = (...args: any[]) => number;

interface Koffi {
  load(path: string | null): { func(signature: string): NativeFunction };
  address(value: unknown): bigint;
  errno(value?: number): number;
  os: { errno: Record<string, number> };
}

let loaded: Koffi | undefined;
let library: { func(signature: string): NativeFunction } | undefined;

function koffi(): Koffi {
  if (loaded !== undefined) return loaded;
  const { platform, arch } = process;
  const wanted = `Cairn runs on Linux (x64 or arm64, glibc or musl), and this is ${platform} on ${arch}`;
  if (platform !== "linux") throw new CairnError("unsupported", wanted);
  try {
    const found = requireKoffi();
    library = found.load(null);
    loaded = found;
  } catch (error) {
    if (/EMFILE|too many open files/i.test((error as Error).message))
      throw new CairnError("io", "native calls cannot be loaded: EMFILE", {
        hint: RAN_OUT.get("EMFILE"),
        cause: error,
      });
    throw new CairnError(
      "unsupported",
      `${wanted}: native calls do not work, ${(error as Error).message.split("\n")[0]}`,
      {
        hint: "install the packages again, with optional dependencies",
      },
    );
  }
  return loaded;
}

/**
 * Loads koffi's platform package directly. Its search scripts cost every process and thread 10 ms, and run only if the
 * package is not in the usual place or does not load.
 */
function requireKoffi(): Koffi {
  const require = createRequire(import.meta.url);
  const { platform, arch } = process;
  try {
    const fromKoffi = createRequire(require.resolve("koffi"));
    return fromKoffi(`@koromix/koffi-${platform}-${arch}/${platform}_${arch}/koffi.node`) as Koffi;
  } catch {
    return require("koffi") as Koffi;
  }
}

let proc: boolean | undefined;

/** True if /proc shows open descriptors, which it does not in a chroot and some containers. */
export function hasProc(): boolean {
  return (proc ??= existsSync("/proc/self/fd"));
}

/**
 * Binds an exported C function by its signature, for example `int close(int fd)`. Addresses are declared `uint64_t` and
 * passed as numbers. Null if this system lacks the function.
 */
export function bindNative(signature: string): NativeFunction | null {
  koffi();
  try {
    return library!.func(signature);
  } catch {
    return null;
  }
}

/** The errno of the last native call of this thread. Read it before any other native call. */
export function lastErrno(): number {
  return koffi().errno();
}

/** Returns a native call's result, or minus its errno if the call failed. */
export function settleResult(result: number): number {
  return result >= 0 ? result : -lastErrno();
}

/** Bytes that native code may read and write: a view and the address of its first byte. */
export interface Arena {
  readonly bytes: Uint8Array;
  readonly address: number;
}

/** Makes an arena over an existing view. Its memory does not move while the view is referenced. */
export function arenaOver(bytes: Uint8Array): Arena {
  return { bytes, address: Number(koffi().address(bytes)) };
}

/** Makes a zeroed arena. Pages take memory only once touched, so a large arena costs only address space. */
export function newArena(size: number, shared = false): Arena {
  const buffer = shared ? new SharedArrayBuffer(size) : new ArrayBuffer(size);
  return arenaOver(Buffer.from(buffer as ArrayBuffer));
}

/** An array of this size or more has its own memory, not a part of a pool. */
const OWN_MEMORY = 1024 * 1024;

/** Frees large unused memory at once, because the collector lets a hundred megabytes gather. The array is empty afterwards. */
export function giveBack(bytes: Uint8Array): void {
  const { buffer } = bytes;
  if (buffer instanceof ArrayBuffer && buffer.byteLength >= OWN_MEMORY) buffer.transfer(0);
}

/** Binds a function at its first use, so that a module that may not need it loads no native code. */
export function bindNativeLater(signature: string): () => NativeFunction | null {
  let bound: NativeFunction | null | undefined;
  return () => (bound === undefined ? (bound = bindNative(signature)) : bound);
}

const madvise = bindNativeLater("int madvise(uint64_t address, uint64_t length, int advice)");
const MADV_DONTNEED = 4;
/** The largest page size of any system. The kernel refuses an address that is no multiple of the page size. */
const LARGEST_PAGE = 64 * 1024;

/**
 * Fills shared memory with zeros and returns its pages to the system; the address range stays until collection. False
 * if the system took nothing back: large memory is unchanged then.
 */
export function dropPages(buffer: SharedArrayBuffer): boolean {
  const bytes = new Uint8Array(buffer);
  if (buffer.byteLength < 2 * LARGEST_PAGE) {
    bytes.fill(0);
    return true;
  }
  const start = arenaOver(bytes).address;
  const from = Math.ceil(start / LARGEST_PAGE) * LARGEST_PAGE;
  const length = Math.floor((start + buffer.byteLength) / LARGEST_PAGE) * LARGEST_PAGE - from;
  if (start <= 0 || length <= 0 || madvise()?.(from, length, MADV_DONTNEED) !== 0) return false;
  bytes.fill(0, 0, from - start);
  bytes.fill(0, from - start + length);
  return true;
}

const mallocTrim = bindNativeLater("int malloc_trim(uint64_t pad)");

/** Returns memory that the C library has kept to the system, before large work of another kind. */
export function trimMemory(): void {
  mallocTrim()?.(0);
}

let collect: (() => void) | undefined;

/** Runs the garbage collector, in some tens of ms. V8 does not count shared memory, so on its own it frees that late. */
export function collectMemory(): void {
  if (collect === undefined) {
    setFlagsFromString("--expose-gc");
    const gc = runInNewContext("gc") as (how: object) => void;
    collect = () => gc({ type: "major", flavor: "last-resort" });
  }
  collect();
  trimMemory();
}
