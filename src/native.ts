import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { CairnError, RAN_OUT } from "./errors.ts";

/**
 * The one door to native code: libc and what Node itself exports (libzstd, libcrypto), called
 * through koffi with plain numbers as addresses. Without it nothing works, and the first call says so.
 */

/** A C function: integers and addresses in, one integer out. 64-bit results come back as number when exact. */
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
 * The shared object of koffi's platform package without the scripts that look for it: they cost every
 * process and every thread 10 ms. Where it is not at its place or does not load, they find what does.
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

/** Tells whether /proc leads to what is below descriptors, as it does but in a chroot and some containers. */
export function hasProc(): boolean {
  return (proc ??= existsSync("/proc/self/fd"));
}

/**
 * Binds an exported C function by its signature, e.g. `int close(int fd)`.
 * Addresses are declared `uint64_t` and passed as numbers. Null where this system has no such function.
 */
export function bindNative(signature: string): NativeFunction | null {
  koffi();
  try {
    return library!.func(signature);
  } catch {
    return null;
  }
}

/** errno of the last native call of this thread; read it before any other native call. */
export function lastErrno(): number {
  return koffi().errno();
}

/** Returns what a native call returned, or minus its errno where it failed. */
export function settleResult(result: number): number {
  return result >= 0 ? result : -lastErrno();
}

/** Bytes that native code may read and write: a view and the address of its first byte. */
export interface Arena {
  readonly bytes: Uint8Array;
  readonly address: number;
}

/** The arena over an existing view. Its backing store does not move as long as the view is referenced. */
export function arenaOver(bytes: Uint8Array): Arena {
  return { bytes, address: Number(koffi().address(bytes)) };
}

/** A fresh zeroed arena. Pages are only committed once touched, so a large one costs address space. */
export function newArena(size: number, shared = false): Arena {
  const buffer = shared ? new SharedArrayBuffer(size) : new ArrayBuffer(size);
  return arenaOver(Buffer.from(buffer as ArrayBuffer));
}

/** From here on an array's memory is its own and not part of a pool. */
const OWN_MEMORY = 1024 * 1024;

/** Frees large memory that nobody uses any more at once: the collector lets a hundred megabytes gather. The array is empty then. */
export function giveBack(bytes: Uint8Array): void {
  const { buffer } = bytes;
  if (buffer instanceof ArrayBuffer && buffer.byteLength >= OWN_MEMORY) buffer.transfer(0);
}

/** Binds a function when it is first asked for: a module that only might need it loads no native code. */
export function bindNativeLater(signature: string): () => NativeFunction | null {
  let bound: NativeFunction | null | undefined;
  return () => (bound === undefined ? (bound = bindNative(signature)) : bound);
}

const madvise = bindNativeLater("int madvise(uint64_t address, uint64_t length, int advice)");
const MADV_DONTNEED = 4;
/** Size of a page on systems that have the largest; an address that is no multiple of the page's size is refused. */
const LARGEST_PAGE = 64 * 1024;

/**
 * Fills shared memory with zeros, and gives the system back what it takes up; its address stays taken until it is collected.
 * False if the system took nothing back: then large memory is as it was.
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

/** Gives the system back what the C library keeps of memory that was freed: before large work of another kind than the last. */
export function trimMemory(): void {
  mallocTrim()?.(0);
}

let collect: (() => void) | undefined;

/** Frees what nobody uses any more, in some tens of ms: the collector counts no shared memory, and comes late for it. */
export function collectMemory(): void {
  if (collect === undefined) {
    setFlagsFromString("--expose-gc");
    const gc = runInNewContext("gc") as (how: object) => void;
    collect = () => gc({ type: "major", flavor: "last-resort" });
  }
  collect();
  trimMemory();
}
