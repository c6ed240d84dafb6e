import { ATTRIBUTE_APPEND, ATTRIBUTE_IMMUTABLE, STAT, type StatBuffer } from "./syscall-abi.ts";
import { newStatBuffer, putName, type Syscalls } from "./syscalls.ts";
import { newArena } from "../../native.ts";

/** Names the flag of `chattr` by which not even root may change an entry; null if it has none. */
export function whyProtected({ words }: StatBuffer): string | null {
  const flags = words[STAT.ATTRIBUTES]!;
  if ((flags & ATTRIBUTE_IMMUTABLE) !== 0) return "immutable: `chattr -i` removes this attribute";
  return (flags & ATTRIBUTE_APPEND) === 0 ? null : "append-only: `chattr -a` removes this attribute";
}

/** Says why a call on a name in an open directory failed with EPERM, as far as flags of `chattr` tell: `: it is immutable…`, else "". */
export function protectionOf(sys: Syscalls, fd: number, name: Uint8Array): string {
  const [stat, arena] = [newStatBuffer(), newArena(name.length + 1)];
  putName(arena, 0, name);
  const own = sys.stat(fd, arena, 0, stat) < 0 ? null : whyProtected(stat);
  if (own !== null) return `: it is ${own}`;
  const above = sys.fstat(fd, stat) < 0 ? null : whyProtected(stat);
  return above === null ? "" : `: its directory is ${above}`;
}
