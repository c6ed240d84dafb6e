import fs from "node:fs";
import { CairnError } from "../../errors.ts";
import { type Arena, arenaOver, bindNative, hasProc, newArena, settleResult } from "../../native.ts";
import { EBADF, ENODATA, ENOSYS, EOPNOTSUPP, EPERM } from "./errno.ts";
import { withoutShadows } from "./shadow-attributes.ts";
import { AT_FDCWD, newStatBuffer, STAT, type Syscalls, TYPE } from "./syscall-abi.ts";

/** Extended attributes by a name below a held directory, for what cannot be opened. */
export type AttributesByName = Pick<Syscalls, "llistxattr" | "lgetxattr" | "lsetxattr">;

const EMPTY = new Uint8Array(1);

/** By way of /proc; where there is none by the calls of Linux 6.13, before it by opening what can be. */
export function attributesByName(sys: Omit<Syscalls, keyof AttributesByName>): AttributesByName {
  if (hasProc()) return throughProc();
  return directly() ?? byOpening(sys);
}

function throughProc(): AttributesByName {
  const llistxattr = bound("int64_t llistxattr(uint64_t p, uint64_t b, size_t l)");
  const lgetxattr = bound("int64_t lgetxattr(uint64_t p, uint64_t n, uint64_t b, size_t l)");
  const lsetxattr = bound("int lsetxattr(uint64_t p, uint64_t n, uint64_t v, size_t l, int f)");
  const scratch = newArena(8192);
  const path = (dirfd: number, names: Arena, name: number): number => {
    let length = scratch.bytes.length;
    const prefix = `/proc/self/fd/${dirfd}/`;
    let at = Buffer.from(scratch.bytes.buffer, scratch.bytes.byteOffset).write(prefix, 0, "latin1");
    for (let i = name; length > 0; i++, length--) {
      const byte = names.bytes[i]!;
      scratch.bytes[at++] = byte;
      if (byte === 0) break;
    }
    return scratch.address;
  };
  // Behind the path.
  const called = (attribute: Uint8Array): number => put(scratch, 6000, attribute);
  return {
    llistxattr: (d, names, n, out) =>
      withoutShadows(settleResult(llistxattr(path(d, names, n), out.address, out.bytes.length)), out.bytes),
    lgetxattr: (d, names, n, a, out, o) =>
      settleResult(lgetxattr(path(d, names, n), called(a), out.address + o, out.bytes.length - o)),
    lsetxattr: (d, names, n, a, v) =>
      settleResult(lsetxattr(path(d, names, n), called(a), over(v).address, v.length, 0)),
  };
}

const SETXATTRAT = 463;
const GETXATTRAT = 464;
const LISTXATTRAT = 465;
const NO_FOLLOW = 0x100;
/** struct xattr_args: where the value is, 8 bytes; its size and flags, 4 each. */
const ARGUMENTS = 16;

/** Null where the kernel has no such calls, or does not let them be made. */
export function directly(): AttributesByName | null {
  const list = bound("int64_t syscall(int64_t n, int64_t d, uint64_t p, uint64_t f, uint64_t b, uint64_t l)");
  const call = bound(
    "int64_t syscall(int64_t n, int64_t d, uint64_t p, uint64_t f, uint64_t a, uint64_t v, uint64_t s)",
  );
  const scratch = newArena(512);
  const called = (attribute: Uint8Array): number => put(scratch, 0, attribute);
  const tried = settleResult(list(LISTXATTRAT, AT_FDCWD, called(Buffer.from(".")), NO_FOLLOW, 0, 0));
  if (tried === ENOSYS || tried === EPERM) return null;
  const value = newArena(ARGUMENTS);
  const view = new DataView(value.bytes.buffer, value.bytes.byteOffset, ARGUMENTS);
  const of = (address: number, size: number): number => {
    view.setBigUint64(0, BigInt(address), true);
    view.setUint32(8, size, true);
    return value.address;
  };
  return {
    llistxattr: (d, names, n, out) => {
      const listed = list(LISTXATTRAT, d, names.address + n, NO_FOLLOW, out.address, out.bytes.length);
      return withoutShadows(settleResult(listed), out.bytes);
    },
    lgetxattr: (d, names, n, a, out, o) => {
      const to = of(out.address + o, out.bytes.length - o);
      return settleResult(call(GETXATTRAT, d, names.address + n, NO_FOLLOW, called(a), to, ARGUMENTS));
    },
    lsetxattr: (d, names, n, a, v) => {
      const from = of(over(v).address, v.length);
      return settleResult(call(SETXATTRAT, d, names.address + n, NO_FOLLOW, called(a), from, ARGUMENTS));
    },
  };
}

const READ = fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW | fs.constants.O_NONBLOCK;

/**
 * Reads attributes of files and directories by opening them. Links have none that belong to a state; whether pipes,
 * devices and sockets have some cannot be told, which `EBADF` says.
 */
export function byOpening(sys: Omit<Syscalls, keyof AttributesByName>): AttributesByName {
  const stat = newStatBuffer();
  const scratch = newArena(512);
  const called = (attribute: Uint8Array): Arena => {
    put(scratch, 0, attribute);
    return scratch;
  };
  const opened = (d: number, names: Arena, n: number, ofLink: number, work: (fd: number) => number): number => {
    const looked = sys.stat(d, names, n, stat);
    if (looked < 0) return looked;
    const type = stat.words[STAT.MODE]! >>> 12;
    if (type === TYPE.LINK) return ofLink;
    if (type !== TYPE.FILE && type !== TYPE.DIRECTORY) return EBADF;
    const fd = sys.open(d, names, n, READ, 0);
    if (fd < 0) return fd;
    const result = work(fd);
    sys.close(fd);
    return result;
  };
  return {
    llistxattr: (d, names, n, out) => opened(d, names, n, 0, (fd) => sys.flistxattr(fd, out)),
    lgetxattr: (d, names, n, a, out, o) =>
      opened(d, names, n, ENODATA, (fd) => sys.fgetxattr(fd, called(a), 0, out, o)),
    lsetxattr: (d, names, n, a, v) =>
      opened(d, names, n, EOPNOTSUPP, (fd) => sys.fsetxattr(fd, called(a), 0, over(v), 0, v.length)),
  };
}

/** Writes a name and its NUL; where it is. */
function put(arena: Arena, at: number, name: Uint8Array): number {
  arena.bytes.set(name, at);
  arena.bytes[at + name.length] = 0;
  return arena.address + at;
}

function over(value: Uint8Array): Arena {
  return arenaOver(value.length === 0 ? EMPTY : value);
}

type Call = (...args: number[]) => number;

function bound(signature: string): Call {
  const call = bindNative(signature);
  if (call === null) throw new CairnError("unsupported", `the C library has no ${signature}`);
  return call;
}
