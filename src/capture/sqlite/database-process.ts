import { type ChildProcess, fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { CairnError, type ErrorCode, throwIfAborted, toCairnError } from "../../errors.ts";
import { withPipes } from "../../fs/child-pipes.ts";
import type { DatabaseProof, ProveRequest } from "./image.ts";
import type { Report, Works } from "./database-worker.ts";

const CALLED = "a process that reads databases";

/**
 * A process that works on databases, one after the other, and can be ended at any moment: SQLite reads a whole database in
 * one call, and its locks are those of a process. To be closed.
 */
export class DatabaseProcess {
  #child: ChildProcess | null = null;
  #rest: NodeJS.Timeout | undefined;

  /**
   * Has a piece of work done; `scratch` is a folder that is removed when this process ends meanwhile. Throws what the work
   * does, `interrupted`, and `io` when the process cannot be started or is ended by others.
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
    // One that cannot be told has ended, which is heard of.
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

  /** Has SQLite check a database. One at which the process itself ends has a problem, and no facts. */
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

  /** It is given nothing of our environment that it does not need: there may be passwords in that. */
  #started(): ChildProcess {
    const { LD_LIBRARY_PATH, TMPDIR, CAIRN_FAILPOINT } = process.env;
    const program = fileURLToPath(new URL("./database-worker.ts", import.meta.url));
    const child = fork(program, {
      env: { LD_LIBRARY_PATH, TMPDIR, CAIRN_FAILPOINT },
      execArgv: ["--disable-warning=ExperimentalWarning"],
      serialization: "advanced",
      stdio: ["ignore", "ignore", CAIRN_FAILPOINT === undefined ? "ignore" : "inherit", "ipc"],
    });
    // Whoever waits for it is told; a signal that could not be sent comes here too.
    child.on("error", () => undefined);
    child.on("exit", () => {
      if (this.#child === child) this.#child = null;
    });
    return withPipes(child, CALLED);
  }

  /** Keeps nobody waiting for the process from now on, and ends it when it is not used for so long. */
  rest(idleMs: number): void {
    this.#child?.unref();
    this.#child?.channel?.unref();
    clearTimeout(this.#rest);
    this.#rest = setTimeout(() => void this.close(), idleMs).unref();
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
