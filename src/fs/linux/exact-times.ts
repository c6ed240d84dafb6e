import { bindNative, newArena, settleResult } from "../../native.ts";
import type { Syscalls } from "./syscall-abi.ts";

/** What AT_SYMLINK_NOFOLLOW is, by system: Linux's fcntl.h, and Apple's bsd/sys/fcntl.h. */
const NO_FOLLOW: Partial<Record<NodeJS.Platform, number>> = { linux: 0x100, darwin: 0x20 };

/**
 * Times to the nanosecond by futimens(2) and utimensat(2), which node:fs does not call; struct timespec is two 64-bit
 * words on Linux and macOS alike. Null where they cannot be called.
 */
export function bindExactTimes(): Syscalls["utimens"] | null {
  const noFollow = NO_FOLLOW[process.platform];
  const utimensat = bindNative("int utimensat(int d, uint64_t n, uint64_t t, int f)");
  const futimens = bindNative("int futimens(int fd, uint64_t t)");
  if (noFollow === undefined || utimensat === null || futimens === null) return null;
  const times = newArena(32);
  const nanoseconds = new Uint32Array(times.bytes.buffer, times.bytes.byteOffset, 8);
  const seconds = new BigInt64Array(times.bytes.buffer, times.bytes.byteOffset, 4);
  return (d, names, n, s, ns) => {
    seconds[0] = BigInt(s);
    seconds[2] = seconds[0];
    nanoseconds[2] = ns;
    nanoseconds[6] = ns;
    if (names.bytes[n] === 0) return settleResult(futimens(d, times.address));
    return settleResult(utimensat(d, names.address + n, times.address, noFollow));
  };
}
