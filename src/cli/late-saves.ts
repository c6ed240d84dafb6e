import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { appendFileSync, existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { orNull } from "../agents/covered.ts";
import type { Progress } from "../contract/words.ts";
import { thisProgram } from "../daemon/unit.ts";
import { CairnError } from "../errors.ts";
import type * as AgentRecord from "../workspace/points/agent-record.ts";
import type { FoundWorkspace } from "../workspace/place/find-workspace.ts";
import { readSmallFile } from "../fs/durable.ts";
import { acquireLock, lockHolder } from "../fs/lock.ts";
import type { LateState } from "./commands/agent/data.ts";
import { describeProgress } from "./progress.ts";
import { userStateDirectory } from "../fs/users.ts";

/**
 * Saves that would delay an agent too long. The hook queues them, and one background process for each folder makes them
 * in order. The kernel's lock shows whether that process runs.
 */

/** Facts that a tool passes to its hook. */
export interface Told {
  event: string;
  session?: string;
  turn?: string;
  tool?: string;
  /** The tool's own id of the call. */
  call?: string;
  /** The person's prompt, at most 64 KiB. */
  prompt?: string;
  /** First line of the shell command. */
  command?: string;
  /** Milliseconds that a call took, without the time in which a person was asked. */
  duration_ms?: number;
  /** Own id of the command that a call leaves in the background; empty: not known yet. */
  background?: string;
  /** Ids of calls that were denied. */
  denied?: string[];
  /** Ids of background commands that run on after a turn. */
  tasks?: string[];
  /** The call or own id of a background command whose end a prompt tells. */
  notified?: string;
  cwd: string;
}

/** A hook that has returned before the folder was saved. */
export interface LateHook {
  agent: string;
  told: Told;
  /** The prompt and the command in the queue, sealed with the key of the workspace's store. */
  sealed?: string;
  /** RFC 3339, as the other times */
  asked_at: string;
  /** when the hook's process started */
  called_at: string;
  /** when the hook returned before its save */
  returned_at?: string;
  /** at the beginning of a turn: if the installed hooks tell of tool calls */
  each?: "tool" | "turn";
}

/** `cairn agent hook late-saves` makes the waiting saves. */
export const LATE = "late-saves";

const MOST_BYTES = 16 << 20;
const PROGRESS_EVERY_MS = 300;

export class LateSaves {
  readonly #root: string;
  readonly #folder: string;

  /** `folder`: the workspace, or the tool's folder if no workspace was found in time */
  constructor(folder: string) {
    this.#folder = folder;
    this.#root = join(userStateDirectory(), "agents", "late", createHash("sha256").update(folder).digest("hex"));
  }

  #file(name: "lock" | "queue.jsonl" | "taken.jsonl" | "state.json"): string {
    return join(this.#root, name);
  }

  /** Null if the folder never had a background process. */
  state(): LateState | null {
    const file = this.#file("state.json");
    const state = orNull(() => JSON.parse(readSmallFile(file, MOST_BYTES)!.toString("utf8")) as LateState);
    return state && { ...state, running: this.#isRunning() };
  }

  /** The progress of the background process, for example "saving in the background since …: storing 3 of 9". Null if none runs. */
  describe(): string | null {
    const state = this.state();
    if (state?.running !== true) return null;
    const far = state.progress === null ? "" : `: ${describeProgress(state.progress)}`;
    return `saving in the background since ${state.started_at}${far}`;
  }

  /** True if a hook must not save by itself, because earlier saves are still queued. */
  isPending(): boolean {
    return (
      existsSync(this.#root) &&
      (existsSync(this.#file("queue.jsonl")) || existsSync(this.#file("taken.jsonl")) || this.#isRunning())
    );
  }

  /** Seals the texts of a hook. Without a workspace, or if its key cannot be read, the queue gets no texts. */
  async #sealed({ told: { prompt, command, ...ids }, ...own }: LateHook): Promise<LateHook> {
    const hook = { ...own, told: ids };
    if (prompt === undefined && command === undefined) return hook;
    const texts = { ...(prompt === undefined ? {} : { prompt }), ...(command === undefined ? {} : { command }) };
    const sealed = await this.#withKey((place, { sealTexts }) => sealTexts(place, texts).sealed);
    return typeof sealed === "string" ? { ...hook, sealed } : hook;
  }

  async #opened({ sealed, ...hook }: LateHook): Promise<LateHook> {
    if (sealed === undefined) return hook;
    const texts = await this.#withKey((place, { openTexts }) => openTexts(place, sealed));
    return { ...hook, told: { ...hook.told, ...texts } };
  }

  /** Null if there is no workspace, or its key cannot be read or is another one. */
  async #withKey<T>(work: (place: FoundWorkspace, record: typeof AgentRecord) => T): Promise<T | null> {
    try {
      const { findWorkspace } = await import("../workspace/place/find-workspace.ts");
      const place = findWorkspace(this.#folder);
      return place === null ? null : work(place, await import("../workspace/points/agent-record.ts"));
    } catch {
      return null;
    }
  }

  #isRunning(): boolean {
    return existsSync(this.#file("lock")) && lockHolder(this.#file("lock")) !== null;
  }

  /** Queues a save, and starts the background process if none runs. Returns before the save is made. */
  async add(hook: LateHook): Promise<void> {
    const line = lineOf(await this.#sealed(hook));
    mkdirSync(this.#root, { recursive: true, mode: 0o700 });
    appendFileSync(this.#file("queue.jsonl"), line, { mode: 0o600 });
    if (this.#isRunning()) return;
    const [program, ...args] = thisProgram();
    const child = spawn(program!, [...args, "agent", "hook", LATE, "-C", this.#folder], {
      cwd: "/",
      detached: true,
      stdio: "ignore",
    });
    child.on("error", () => undefined).unref();
  }

  /**
   * Makes all queued saves by `save`, in order. Returns at once if another process does so. For the background process.
   */
  async drain(save: (hook: LateHook, onProgress: (progress: Progress) => void) => Promise<void>): Promise<void> {
    // A hook that came just before the lock was released found it held, and relies on another look at the queue.
    do {
      const lock = await this.#tryLock();
      if (lock === null) return;
      using _lock = lock;
      const startedAt = new Date().toISOString();
      let failed: string | null = null;
      for (let hooks = this.#take(); hooks.length > 0; hooks = this.#take()) {
        const note = (progress: Progress | null): void => {
          try {
            this.#put(this.#file("state.json"), JSON.stringify({ started_at: startedAt, at: now(), progress, failed }));
          } catch {
            // A full disk. The saves go on, and their record tells what failed.
          }
        };
        let toldAt = 0;
        note(null);
        try {
          await save(await this.#opened(hooks[0]!), (progress) => {
            if (Date.now() - toldAt < PROGRESS_EVERY_MS) return;
            toldAt = Date.now();
            note(progress);
          });
          failed = null;
        } catch (error) {
          failed = (error as Error).message;
        }
        this.#put(this.#file("taken.jsonl"), hooks.slice(1).map(lineOf).join(""));
        note(null);
      }
    } while (existsSync(this.#file("queue.jsonl")));
  }

  async #tryLock(): Promise<Disposable | null> {
    try {
      return await acquireLock(this.#file("lock"), { timeoutMs: 0, purpose: "save for an agent's hook" });
    } catch (error) {
      if (error instanceof CairnError && error.code === "busy") return null;
      throw error;
    }
  }

  /** Returns the queued hooks. Hooks that a killed process had already taken from the queue come first. */
  #take(): LateHook[] {
    const taken = hooksIn(this.#file("taken.jsonl"));
    if (taken.length > 0) return taken;
    rmSync(this.#file("taken.jsonl"), { force: true });
    if (!existsSync(this.#file("queue.jsonl"))) return [];
    renameSync(this.#file("queue.jsonl"), this.#file("taken.jsonl"));
    return this.#take();
  }

  #put(file: string, text: string): void {
    const temporary = `${file}.${process.pid}`;
    writeFileSync(temporary, text, { mode: 0o600 });
    renameSync(temporary, file);
  }
}

const now = (): string => new Date().toISOString();
const lineOf = (hook: LateHook): string => `${JSON.stringify(hook)}\n`;

/** Skips lines that a power cut damaged. */
function hooksIn(file: string): LateHook[] {
  const lines = readSmallFile(file, MOST_BYTES, true)?.toString("utf8").split("\n") ?? [];
  return lines.flatMap((line) => orNull(() => JSON.parse(line) as LateHook) ?? []);
}
