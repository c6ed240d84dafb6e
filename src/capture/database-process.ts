import { type ChildProcess, fork } from "node:child_process";
import fs from "node:fs";
import { fileURLToPath } from "node:url";
import { CairnError, throwIfAborted, toCairnError } from "../errors.ts";
import { withPipes } from "../fs/child-pipes.ts";
import type { DatabaseDifferences } from "./compare-databases.ts";

const MAGIC = Buffer.from("SQLite format 3\0", "latin1");

/** True for an open file that begins as SQLite's databases do. */
export function isDatabase(fd: number): boolean {
  const head = Buffer.alloc(MAGIC.length);
  return fs.readSync(fd, head, 0, head.length, 0) === head.length && head.equals(MAGIC);
}

/** One thing to do. Databases that are checked or compared are nobody's: their files may be changed by it, as by any program that opens them. */
export type DatabaseRequest =
  | { kind: "check"; path: string }
  | { kind: "copy"; from: string; to: string }
  | { kind: "compare"; before: string; after: string; limit: number };

/** `problem`: what SQLite said. */
export type DatabaseAnswer = { value: unknown } | { problem: string };

/** Has SQLite work on databases, one request after the other, in a process that can be ended at any moment. To be closed. */
export class DatabaseProcess {
  #child: ChildProcess | null = null;

  /**
   * Opens a database, with the journal that lies beside it, and has SQLite check all of it. What is wrong with it; empty
   * when nothing is. Throws `interrupted`, and `io` when the process cannot be started.
   */
  async check(path: string, signal?: AbortSignal): Promise<string[]> {
    const answer = await this.#ask({ kind: "check", path }, signal);
    // What cannot be opened at all is no less wrong.
    return "problem" in answer ? [answer.problem] : (answer.value as string[]);
  }

  /** Compares two databases, as `compareDatabases` does. Throws `damaged` with what SQLite says, `interrupted`, `io`. */
  async compare(
    request: Omit<Extract<DatabaseRequest, { kind: "compare" }>, "kind">,
    signal?: AbortSignal,
  ): Promise<DatabaseDifferences> {
    const answer = await this.#ask({ kind: "compare", ...request }, signal);
    if ("problem" in answer) throw new CairnError("damaged", `the databases cannot be compared: ${answer.problem}`);
    return answer.value as DatabaseDifferences;
  }

  /** Copies a database that may be in use, as of one moment, by SQLite's online backup. Throws `io` with what SQLite says, `interrupted`. */
  async copy(from: string, to: string, signal?: AbortSignal): Promise<void> {
    const answer = await this.#ask({ kind: "copy", from, to }, signal);
    if ("problem" in answer) throw new CairnError("io", `${from} cannot be copied: ${answer.problem}`);
  }

  async #ask(request: DatabaseRequest, signal: AbortSignal | undefined): Promise<DatabaseAnswer> {
    throwIfAborted(signal);
    const child = (this.#child ??= this.#started());
    const { promise, resolve, reject } = Promise.withResolvers<DatabaseAnswer>();
    const stop = (): void => reject(new CairnError("interrupted", "stopped by the caller", { cause: signal?.reason }));
    const failed = (error: Error): void => reject(toCairnError(error, "starting a process that reads a database"));
    const heard = (answer: unknown): void => resolve(answer as DatabaseAnswer);
    const ended = (): void => resolve({ problem: "SQLite's process ended without a word" });
    signal?.addEventListener("abort", stop, { once: true });
    child.on("message", heard).on("exit", ended).on("error", failed);
    // One that cannot be told has ended, which is heard of.
    child.send(request, () => undefined);
    try {
      return await promise;
    } catch (error) {
      await this.close();
      throw error;
    } finally {
      signal?.removeEventListener("abort", stop);
      child.off("message", heard).off("exit", ended).off("error", failed);
    }
  }

  /** It is given nothing of our environment that it does not need: there may be passwords in that. */
  #started(): ChildProcess {
    const { LD_LIBRARY_PATH, TMPDIR } = process.env;
    const program = fileURLToPath(new URL("./database-worker.ts", import.meta.url));
    const child = fork(program, {
      env: { LD_LIBRARY_PATH, TMPDIR },
      execArgv: ["--disable-warning=ExperimentalWarning"],
      stdio: ["ignore", "ignore", "ignore", "ipc"],
    });
    // Whoever waits for it is told; a signal that could not be sent comes here too.
    child.on("error", () => undefined);
    child.on("exit", () => {
      if (this.#child === child) this.#child = null;
    });
    return withPipes(child, "a process that reads a database");
  }

  /** Ends the process, whatever it does; resolves when it touches nothing any more. */
  async close(): Promise<void> {
    const child = this.#child;
    this.#child = null;
    if (child?.pid === undefined) return;
    const ended = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGKILL");
    await ended;
  }
}
