import fs from "node:fs";
import { Worker } from "node:worker_threads";
import { CairnError, throwIfAborted } from "../errors.ts";

const MAGIC = Buffer.from("SQLite format 3\0", "latin1");

/** True for an open file that begins as SQLite's databases do. */
export function isDatabase(fd: number): boolean {
  const head = Buffer.alloc(MAGIC.length);
  return fs.readSync(fd, head, 0, head.length, 0) === head.length && head.equals(MAGIC);
}

/**
 * Opens a database that is nobody's, with the journal that lies beside it, and has SQLite check all of it. What is wrong
 * with it; empty when nothing is. The files may be changed by that, as by any program that opens them.
 */
export async function checkDatabase(path: string | Buffer, signal?: AbortSignal): Promise<string[]> {
  throwIfAborted(signal);
  const worker = new Worker(new URL("./check-database-worker.ts", import.meta.url), {
    execArgv: ["--disable-warning=ExperimentalWarning"],
    workerData: { path: Uint8Array.from(Buffer.from(path)) },
  });
  const { promise, resolve, reject } = Promise.withResolvers<string[]>();
  const stop = (): void => reject(new CairnError("interrupted", "stopped by the caller"));
  signal?.addEventListener("abort", stop, { once: true });
  worker.on("message", (lines: string[]) => resolve(lines.length === 1 && lines[0] === "ok" ? [] : lines));
  // What cannot be opened at all is no less wrong.
  worker.on("error", (error) => resolve([error instanceof Error ? error.message : String(error)]));
  worker.on("exit", () => resolve(["the check ended without a word"]));
  try {
    return await promise;
  } finally {
    signal?.removeEventListener("abort", stop);
    await worker.terminate();
  }
}
