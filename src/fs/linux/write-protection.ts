import { ATTRIBUTE_APPEND, ATTRIBUTE_IMMUTABLE, STAT, type StatBuffer } from "./syscall-abi.ts";
import { newStatBuffer, putName, type Syscalls } from "./syscalls.ts";
import { newArena } from "../../native.ts";

/** Names the `chattr` flag that forbids changes of an entry even to root; null if the entry has none. */
export function whyProtected({ words }: StatBuffer): string | null {
  const flags = words[STAT.ATTRIBUTES]!;
  if ((flags & ATTRIBUTE_IMMUTABLE) !== 0) return "immutable: `chattr -i` removes this attribute";
  return (flags & ATTRIBUTE_APPEND) === 0 ? null : "append-only: `chattr -a` removes this attribute";
}

/** Explains an EPERM on a name in an open directory by `chattr` flags, for example `: it is immutable…`; "" if no flag is set. */
export function protectionOf(sys: Syscalls, fd: number, name: Uint8Array): string {
  const [stat, arena] = [newStatBuffer(), newArena(name.length + 1)];
  putName(arena, 0, name);
  const own = sys.stat(fd, arena, 0, stat) < 0 ? null : whyProtected(stat);
  if (own !== null) return `: it is ${own}`;
  const above = sys.fstat(fd, stat) < 0 ? null : whyProtected(stat);
  return above === null ? "" : `: its directory is ${above}`;
}
