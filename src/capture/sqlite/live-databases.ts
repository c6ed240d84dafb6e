import { mkdirSync } from "node:fs";
import path from "node:path";
import { temporaryName } from "../../fs/durable.ts";
import { clearAway } from "../../fs/remove-all.ts";
import { CairnError, toCairnError } from "../../errors.ts";
import type { HoldRequest } from "./capture.ts";
import type { Held } from "./captured.ts";
import type { CheckRequest } from "./image.ts";
import type { DatabaseProcess } from "./database-process.ts";

const IDLE_MS = 10_000;
/** Locks are released this long before the process that has them is killed. */
const MARGIN_MS = 50;

/** A readable database, with an image if its own file is not enough. */
interface HeldDatabase extends Omit<Held, "isImage"> {
  image: string | null;
  release: () => Promise<boolean>;
}

/** Makes databases in use readable for a scan, by a process of its own. */
export class LiveDatabases {
  #sqlite: DatabaseProcess | null = null;

  /** Implements `DatabaseCapture.hold()`. `scratch`: a folder for images. */
  async hold(
    database: Uint8Array,
    { signal, how, scratch }: { signal?: AbortSignal | undefined; how: HoldRequest["how"]; scratch: string },
  ): Promise<HeldDatabase | null> {
    const sqlite = (this.#sqlite ??= await newProcess());
    const stage = path.join(scratch, temporaryName());
    mkdirSync(stage, { mode: 0o700 });
    const clear = (): void => clearAway(stage);
    try {
      const request = { path: database, stage, how };
      const held = await sqlite.do("hold", request, { signal, scratch: stage });
      if (held === null) {
        clear();
        return null;
      }
      const { isImage, ...facts } = held;
      const release = async (): Promise<boolean> => {
        try {
          return await sqlite.do("release", undefined);
        } finally {
          clear();
        }
      };
      return { ...facts, image: isImage ? path.join(stage, "image") : null, release };
    } catch (error) {
      clear();
      throw error;
    }
  }

  /** Implements `DatabaseCapture.check()`. */
  async check(
    path: Uint8Array,
    { signal, ...how }: Omit<CheckRequest, "path"> & { signal?: AbortSignal | undefined },
  ): Promise<{ problem: string | null } | null> {
    const sqlite = (this.#sqlite ??= await newProcess());
    try {
      return await sqlite.do("check", { path, ...how }, { signal });
    } catch (error) {
      if (!(error instanceof CairnError) || !error.message.endsWith("without an answer")) throw error;
      return { problem: "SQLite's check of it ended without a result" };
    }
  }

  /** Implements `DatabaseCapture.still()`. */
  async still(
    databases: readonly Uint8Array[],
    { budgetMs, signal }: { budgetMs: number; signal?: AbortSignal | undefined },
  ): Promise<{ held: number[]; release: () => Promise<boolean> }> {
    const sqlite = (this.#sqlite ??= await newProcess());
    // The process is started before the time runs, and killed if it does not answer.
    await sqlite.do("letGo", undefined, { signal });
    const overdue = setTimeout(() => void sqlite.close(), budgetMs);
    const release = async (): Promise<boolean> => {
      clearTimeout(overdue);
      return sqlite.do("letGo", undefined).catch(() => false);
    };
    try {
      return { held: await sqlite.do("holdStill", { databases, budgetMs: budgetMs - MARGIN_MS }, { signal }), release };
    } catch (error) {
      clearTimeout(overdue);
      if (toCairnError(error).code === "interrupted") throw error;
      return { held: [], release };
    }
  }

  /** Keeps the process for the next call for a while: starting one takes longer than most captures. */
  async close(): Promise<void> {
    this.#sqlite?.rest(IDLE_MS);
  }
}

/** Most saves find no database in use, and load nothing for it. */
async function newProcess(): Promise<DatabaseProcess> {
  const { DatabaseProcess: Process } = await import("./database-process.ts");
  return new Process();
}
