import { CairnError } from "../errors.ts";
import { errnoName } from "./linux/syscalls.ts";

/** Errors with which nothing is wrong with what was asked for: a moment later it can be had. */
const RAN_OUT: ReadonlyMap<string, string> = new Map([
  ["EMFILE", "let the process have more open files (`ulimit -n`), or have it do less at once"],
  ["ENFILE", "all programs together have as many files open as the system allows: end some, or raise fs.file-max"],
  ["ENOMEM", "let the process have more memory, or have it do less at once"],
]);

/**
 * The name of the errno (a negative result) for which an entry cannot be read, so that the others are gone on with. Throws
 * `io` where it says nothing of the entry, because the process or the system has no descriptor or no memory left.
 */
export function faultOfEntry(result: number): string {
  const name = errnoName(-result);
  throwIfRanOut(name);
  return name;
}

/** Throws that for what Node has failed with, too. */
export function throwIfRanOut(failed: unknown): void {
  const name = typeof failed === "string" ? failed : (failed as { code?: unknown } | null)?.code;
  const hint = typeof name === "string" ? RAN_OUT.get(name) : undefined;
  if (hint === undefined) return;
  throw new CairnError("io", `no more files can be opened or read: ${String(name)}`, {
    hint,
    details: { errno: name },
  });
}
