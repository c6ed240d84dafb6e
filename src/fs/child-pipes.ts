import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { accessSync, constants, statSync } from "node:fs";
import { delimiter, isAbsolute, join } from "node:path";
import { CairnError, throwIfAborted } from "../errors.ts";

/**
 * Returns a child that was just started, with its pipes. Without free descriptors Node returns a child without pipes
 * and emits the error later, which ends a process that does not listen. Here the error is `io`, thrown at once.
 */
export function withPipes<Child extends ChildProcess>(child: Child, program: string): Child {
  const { stdio } = child as { readonly stdio: unknown };
  if (stdio !== undefined) return child;
  child.on("error", () => undefined);
  throw new CairnError(
    "io",
    `${program} was not started: this process has no free file descriptors for its input and output`,
    {
      hint: "raise the process's limit of open files (`ulimit -n`), or use fewer jobs at once",
    },
  );
}

/**
 * Options for a child that works for this process. If this process ignores signals (`nohup`), the child leaves the
 * terminal: Node does not pass ignored signals on, so a hang-up would end the child.
 */
export function besideTerminal(): { detached: boolean } {
  return { detached: process.env["CAIRN_IGNORED"] !== undefined };
}

/**
 * Returns the path of a program in a search path; null if there is none. Skips relative folders, so that no workspace
 * brings its own program.
 */
export function findProgram(name: string, searchPath = process.env["PATH"] ?? ""): string | null {
  for (const folder of searchPath.split(delimiter)) {
    if (!isAbsolute(folder)) continue;
    const program = join(folder, name);
    try {
      accessSync(program, constants.X_OK);
      if (statSync(program).isFile()) return program;
    } catch {
      // The next folder may have the program.
    }
  }
  return null;
}

/**
 * Runs a program of the system to its end. Throws `io` or `no_space` with the program's error text, `not_found` with
 * the hint if it is not installed. `streams`: the program has the standard input and output of this process.
 */
export async function runTool(
  program: string,
  args: readonly string[],
  { signal, missing, streams = false }: { signal?: AbortSignal | undefined; missing?: string; streams?: boolean } = {},
): Promise<void> {
  try {
    const child = withPipes(
      spawn(program, args, {
        env: { ...process.env, LC_ALL: "C" },
        stdio: streams ? ["inherit", "inherit", "pipe"] : ["ignore", "ignore", "pipe"],
        ...besideTerminal(),
        ...(signal === undefined ? {} : { signal }),
      }),
      program,
    );
    let said = "";
    child.stderr.setEncoding("utf8").on("data", (text: string) => (said = (said + text).slice(0, 4000)));
    const [status, killed] = (await once(child, "close")) as [number | null, string | null];
    throwIfAborted(signal);
    if (status !== 0)
      throw new CairnError(
        /No space left|quota exceeded/i.test(said) ? "no_space" : "io",
        `${program}: ${killed === null ? said.trim() : `ended by ${killed}`}`,
      );
  } catch (error) {
    throwIfAborted(signal);
    if ((error as NodeJS.ErrnoException).code === "ENOENT")
      throw new CairnError("not_found", `${program} is not installed`, missing === undefined ? {} : { hint: missing });
    throw error;
  }
}
