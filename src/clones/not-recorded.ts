import { syscalls } from "../fs/linux/syscalls.ts";
import { nativeAvailable } from "../native.ts";
import type { Degradation } from "../contract/index.ts";

/** What a scan does not see of a folder on this system, or in this process. */
export function notRecorded(): Degradation[] {
  if (syscalls().native) return [];
  const why = nativeAvailable() ? "only Linux's calls tell of them" : "native calls are not available here";
  return [{ what: "extended attributes, access lists and holes", reason: `not recorded: ${why}` }];
}
