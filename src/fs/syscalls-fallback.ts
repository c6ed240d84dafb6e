import { CairnError } from "../errors.ts";
import type { Syscalls } from "./syscalls.ts";

/** The system calls over node:fs, for machines where koffi does not load. */
export function fallbackSyscalls(): Syscalls {
  throw new CairnError("unsupported", "native calls are not available here", { hint: "install the package's optional platform part" });
}
