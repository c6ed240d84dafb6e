import { type ChildProcess, fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { CairnError, type ErrorCode, throwIfAborted, toCairnError } from "../../errors.ts";
import { besideTerminal, withPipes } from "../../fs/child-pipes.ts";
import type { DatabaseProof, ProveRequest } from "./image.ts";
import type { Report, Works } from "./database-worker.ts";

const CALLED = "a process that reads databases";

/**
 * A process that works on databases, one after the other, and can be killed at any moment: SQLite reads a whole
 * database in one call, and its locks belong to a process. To be closed.
 */
export class DatabaseProcess {
  #child: ChildProcess | null = null;
  #rest: NodeJS.Timeout | undefined;

  /**
   * Runs a piece of work. `scratch`: a folder that is removed if this process ends meanwhile. Throws the work's errors,
   * `interrupted`, and `io` if the process cannot be started or is killed from outside.
   */
  async do<W extends keyof Works>(
    work: W,
    request: Parameters<Works[W]>[0],
    { signal, scratch = null }: { signal?: AbortSignal | undefined; scratch?: string | null } = {},
  ): Promise<Awaited<ReturnType<Works[W]>>> {
    throwIfAborted(signal);
    clearTimeout(this.#rest);
    const child = (this.#child ??= this.#started());
    child.ref();
    child.channel?.ref();
    const { promise, resolve, reject } = Promise.withResolvers<Report>();
    const stop = (): void => reject(new CairnError("interrupted", "stopped by the caller", { cause: signal?.reason }));
    const failed = (error: Error): void => reject(toCairnError(error, `starting ${CALLED}`));
    const heard = (report: unknown): void => resolve(report as Report);
    const ended = (): void => reject(new CairnError("io", `${CALLED} ended without an answer`));
    signal?.addEventListener("abort", stop, { once: true });
    child.on("message", heard).on("exit", ended).on("error", failed);
    // A failed send means that the process has ended; the exit event reports that.
    child.send({ work, request, scratch }, () => undefined);
    try {
      const report = await promise;
      if ("answer" in report) return report.answer as Awaited<ReturnType<Works[W]>>;
      const { code, message, hint } = report.error;
      throw new CairnError(code as ErrorCode, message, { hint });
    } catch (error) {
      await this.close();
      throw error;
    } finally {
      signal?.removeEventListener("abort", stop);
      child.off("message", heard).off("exit", ended).off("error", failed);
    }
  }

  /** Lets SQLite check a database. If the check crashes the process, the proof has that as its problem, and no facts. */
  async prove(request: ProveRequest, signal?: AbortSignal): Promise<DatabaseProof> {
    try {
      return await this.do("prove", request, { signal });
    } catch (error) {
      if (!(error instanceof CairnError) || !error.message.endsWith("without an answer")) throw error;
      const none = { bytes: 0, page_size: null, pages: null, sha256: "", statistics: null, duration_ms: 0 };
      const check = request.own ? "integrity_check" : "quick_check";
      return { ...none, check, problems: ["the check ended without a result"] };
    }
  }

  /** Passes only the needed environment variables on: others may hold passwords. */
  #started(): ChildProcess {
    const { LD_LIBRARY_PATH, TMPDIR, CAIRN_FAILPOINT } = process.env;
    const program = fileURLToPath(new URL("./database-worker.ts", import.meta.url));
    const child = fork(program, {
      env: { LD_LIBRARY_PATH, TMPDIR, CAIRN_FAILPOINT },
      execArgv: ["--disable-warning=ExperimentalWarning"],
      serialization: "advanced",
      ...besideTerminal(),
      stdio: ["ignore", "ignore", CAIRN_FAILPOINT === undefined ? "ignore" : "inherit", "ipc"],
    });
    // The exit event rejects the waiting call; failed kills are reported here too.
    child.on("error", () => undefined);
    child.on("exit", () => {
      if (this.#child === child) this.#child = null;
    });
    return withPipes(child, CALLED);
  }

  /** Lets this program exit without waiting for the process, and ends the process after `idleMs` without use. */
  rest(idleMs: number): void {
    this.#child?.unref();
    this.#child?.channel?.unref();
    clearTimeout(this.#rest);
    this.#rest = setTimeout(() => void this.close(), idleMs).unref();
  }

  /** Kills the process; resolves when it has ended. */
  async close(): Promise<void> {
    const child = this.#child;
    this.#child = null;
    if (child?.pid === undefined) return;
    const ended = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGKILL");
    await ended;
  }
}
