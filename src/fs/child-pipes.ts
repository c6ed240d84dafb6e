import type { ChildProcess } from "node:child_process";
import { CairnError } from "../errors.ts";

/**
 * A child that was just started, with its pipes. Where no descriptors are left for them Node gives back one that has none,
 * whatever its types say, and emits the reason a moment later, which ends a process that does not listen: here it is `io` at once.
 */
export function withPipes<Child extends ChildProcess>(child: Child, program: string): Child {
  const { stdio } = child as { readonly stdio: unknown };
  if (stdio !== undefined) return child;
  child.on("error", () => undefined);
  throw new CairnError("io", `${program} was not started: no descriptors are left for its input and output`, {
    hint: "let the process have more open files (`ulimit -n`), or have it do less at once",
  });
}
