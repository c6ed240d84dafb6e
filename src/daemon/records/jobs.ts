import { randomBytes } from "node:crypto";
import { tellError, errorOf, type ErrorRecord } from "../../contract/error-record.ts";
import type { Job, JobList, JobState, ListedJob } from "../../contract/service.ts";
import { fromWire, toWire } from "../../contract/wire.ts";
import type { CallOptions, Progress } from "../../contract/words.ts";
import { CairnError, ERROR_TABLE, toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { type Caller, isWholeOperator, keyOf } from "../state/peer.ts";
import type { EventPlace, Events } from "./events.ts";
import type { Records, Row } from "./records.ts";

const KEPT_MS = 86_400_000;
const MOST = 10_000;
const MOST_BYTES = 256 << 20;
const MOST_ANSWER_BYTES = 4 << 20;
const MOST_WARNINGS = 1_000;
/** Ended jobs after which old jobs are removed. */
const PRUNE_EVERY = 100;
/** Milliseconds between two events of a job's progress. */
const PROGRESS_MS = 250;

export interface JobCall {
  verb: string;
  /** The workspace's or folder's path as the caller gave it; null: the call has no path. */
  path: string | null;
  place: EventPlace | null;
  /** The idempotency key; null: the caller gave none. */
  key: string | null;
  /** Digest of caller, key, verb and body. */
  request: string;
}

/** Reports a job's progress, and tells the work when to end. */
export interface Hand extends Required<Pick<CallOptions, "onProgress" | "onWarning">> {
  signal: AbortSignal;
  /** Cancels the job. */
  cancelJob(): void;
  /** Called when the work's turn has come. */
  onBegin(): void;
  /** If an earlier call with this key ended in an unknown state: its start, in milliseconds since 1970. Else null. */
  since: number | null;
}

export type Listener = Pick<Hand, "onProgress" | "onWarning">;

interface Outcome {
  state: JobState;
  answer: unknown;
  error: ErrorRecord | null;
}

interface Live extends JobCall {
  id: string;
  number: number;
  uid: number;
  /** The user, or the token with which the user called. */
  owner: string;
  since: number;
  created: number;
  started: number | null;
  ended: number | null;
  progress: Progress | null;
  warnings: string[];
  outcome: Outcome | null;
  readonly cancel: AbortController;
  readonly listeners: Set<Listener>;
  readonly done: PromiseWithResolvers<void>;
  toldAt: number;
}

// Steps of a job: its row is written (durably if it has a key), the verb runs with its own commit point, the row gets
// the answer, listeners are told. A kill before the row has the answer leaves the job `interrupted` at the next start.
// A repeated call with its key begins anew, and first checks whether the verb had reached its commit point.

/** Calls that run without a connection that waits for them. */
export class Jobs {
  readonly #records: Records;
  readonly #events: Events;
  readonly #log: (message: string) => void;
  /** Jobs that have not ended, and jobs whose end could not be written. */
  readonly #live = new Map<string, Live>();
  #sincePruned = 0;

  constructor(records: Records, events: Events, log: (message: string) => void) {
    this.#records = records;
    this.#events = events;
    this.#log = log;
    records.write(() => {
      records.run("UPDATE jobs SET state = 'interrupted', ended = ?, error = ? WHERE ended IS NULL", [
        Date.now(),
        toWire(tellError(new CairnError("interrupted", "the daemon stopped before this call was done", ASK_AGAIN))),
      ]);
      this.#prune();
    });
  }

  /**
   * Starts a job that runs `work`, or returns the job that has the same key. Calls `ended` once when the job has ended.
   * Throws `conflict` if the key belongs to another call, and a system error if the job cannot be written: nothing is
   * started then.
   */
  begin(peer: Caller, call: JobCall, work: (hand: Hand) => Promise<unknown>, ended: () => void): string {
    const before = call.key === null ? null : this.#ofKey(keyOf(peer), call);
    if (before !== null && !before.isAnew) {
      ended();
      return before.id;
    }
    const created = Date.now();
    const live: Live = {
      ...call,
      id: randomBytes(16).toString("hex"),
      number: 0,
      uid: peer.uid,
      owner: keyOf(peer),
      since: before?.since ?? created,
      created,
      started: null,
      ended: null,
      progress: null,
      warnings: [],
      outcome: null,
      cancel: new AbortController(),
      listeners: new Set(),
      done: Promise.withResolvers(),
      toldAt: 0,
    };
    this.#insert(live);
    failpoint("job.recorded");
    this.#live.set(live.id, live);
    this.#tell(live, "queued");
    void this.#carryOut(live, before?.since ?? null, work).finally(ended);
    return live.id;
  }

  /** The job that has the key. `isAnew`: the job did not end in order, so the call is started again. */
  #ofKey(owner: string, { key, request }: JobCall): { id: string; since: number; isAnew: boolean } | null {
    const row = this.#records.get("SELECT * FROM jobs WHERE owner = ? AND key = ?", owner, key);
    if (row === undefined || (row["ended"] !== null && Number(row["ended"]) < Date.now() - KEPT_MS)) return null;
    if (row["request"] !== request)
      throw new CairnError("conflict", "you used this idempotency key for another call, or with another body", {
        hint: "use a new key for each call; a key can be used again a day after its call has ended",
        details: { job_id: row["id"] },
      });
    const { job_id: id, state, error } = this.#jobOf(row);
    return { id, since: Number(row["since"]), isAnew: isToBeDoneAnew(state, error) };
  }

  #insert(live: Live): void {
    const { id, uid, owner, verb, path, key, request, since, created } = live;
    this.#records.write(
      () => {
        if (key !== null) this.#records.run("UPDATE jobs SET key = NULL WHERE owner = ? AND key = ?", [owner, key]);
        this.#records.run(
          "INSERT INTO jobs (id, uid, owner, verb, path, key, request, since, state, created) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'queued', ?)",
          [id, uid, owner, verb, path, key, request, since, created],
        );
      },
      { durable: key !== null },
    );
    live.number = Number(this.#records.get("SELECT number FROM jobs WHERE id = ?", id)!["number"]);
  }

  async #carryOut(live: Live, since: number | null, work: (hand: Hand) => Promise<unknown>): Promise<void> {
    const { signal } = live.cancel;
    // A job that waits for its turn ends at once when it is cancelled, and its work never runs.
    signal.addEventListener("abort", () => {
      if (live.started === null)
        this.#end(live, failure(signal, new CairnError("interrupted", "cancelled before it began")));
    });
    const hand: Hand = {
      signal,
      cancelJob: () => live.cancel.abort(new Error("the job was cancelled")),
      since,
      onBegin: () => {
        live.started = Date.now();
        this.#tell(live, "running");
      },
      onProgress: (progress) => this.#onProgress(live, progress),
      onWarning: (message) => {
        if (live.warnings.length < MOST_WARNINGS) live.warnings.push(message);
        for (const each of live.listeners) each.onWarning(message);
      },
    };
    try {
      const answer = (await work(hand)) ?? null;
      failpoint("job.done");
      this.#end(live, { state: "done", answer, error: null });
    } catch (error) {
      const failed = toCairnError(error);
      if (failed.code === "internal") this.#log(`job ${live.id}, ${live.verb}: ${failed.stack ?? failed.message}`);
      this.#end(live, failure(signal, failed));
    }
  }

  #onProgress(live: Live, progress: Progress): void {
    live.progress = progress;
    for (const each of live.listeners) each.onProgress(progress);
    if (Date.now() - live.toldAt < PROGRESS_MS) return;
    live.toldAt = Date.now();
    this.#events.tell(this.#happening(live, "running", progress));
  }

  #happening({ id, verb, uid, place }: Live, state: JobState, progress: Progress | null) {
    return { workspace: place, uid, type: "job", data: { job_id: id, verb, state, progress } } as const;
  }

  #tell(live: Live, state: JobState): void {
    this.#events.append(this.#happening(live, state, live.progress));
  }

  #end(live: Live, outcome: Outcome): void {
    if (live.outcome !== null) return;
    live.outcome = outcome;
    live.ended = Date.now();
    if (this.#record(live, outcome)) this.#live.delete(live.id);
    failpoint("job.ended");
    this.#tell(live, outcome.state);
    live.done.resolve();
  }

  /** False if the row cannot be written: the outcome is then known only while this process runs. */
  #record({ id, started, ended, warnings }: Live, { state, answer, error }: Outcome): boolean {
    let text = toWire(answer);
    let kept = error;
    if (text.length > MOST_ANSWER_BYTES) {
      kept = tellError(
        new CairnError(
          "unsupported",
          `the call is done, but its answer of ${text.length} bytes was too long to keep`,
          LONG,
        ),
      );
      text = "null";
    }
    const said = [text, kept === null ? null : toWire(kept), toWire(warnings)] as const;
    const bytes = said.join("").length;
    try {
      this.#records.write(() => {
        this.#records.run(
          "UPDATE jobs SET state = ?, started = ?, ended = ?, answer = ?, error = ?, warnings = ?, bytes = ? WHERE id = ?",
          [state, started, ended, ...said, bytes, id],
        );
        if (++this.#sincePruned >= PRUNE_EVERY) this.#prune();
      });
      return true;
    } catch (failed) {
      this.#log(`cannot record the end of job ${id}: ${toCairnError(failed).message}`);
      return false;
    }
  }

  /** Removes the oldest jobs of the owners with the most jobs first. */
  #prune(): void {
    this.#sincePruned = 0;
    this.#records.run("DELETE FROM jobs WHERE ended < ?", [Date.now() - KEPT_MS]);
    this.#records.run(
      `WITH own AS (SELECT number, bytes, row_number() OVER (PARTITION BY owner ORDER BY number DESC) AS place FROM jobs WHERE ended IS NOT NULL),
       list AS (SELECT number, row_number() OVER (ORDER BY place, number) AS place, sum(bytes) OVER (ORDER BY place, number ROWS UNBOUNDED PRECEDING) AS total FROM own)
       DELETE FROM jobs WHERE number IN (SELECT number FROM list WHERE place > ? OR total > ?)`,
      [MOST, MOST_BYTES],
    );
  }

  /** Resolves with the answer of a job. Throws its error. `listener` gets the earlier warnings at once, and new ones as they come. */
  async answer(id: string, listener: Listener): Promise<unknown> {
    const live = this.#live.get(id);
    if (live !== undefined) {
      for (const each of live.warnings) listener.onWarning(each);
      live.listeners.add(listener);
      await live.done.promise;
      live.listeners.delete(listener);
      if (live.outcome!.error !== null) throw errorOf(live.outcome!.error);
      return live.outcome!.answer;
    }
    const { answer, error, warnings } = this.#jobOf(this.#records.get("SELECT * FROM jobs WHERE id = ?", id)!);
    for (const each of warnings) listener.onWarning(each);
    if (error !== null) throw errorOf(error);
    return answer;
  }

  /** Returns a job of the caller, for operators a job of any user. Throws `not_found`. */
  find(peer: Caller, id: string): Job {
    const row = this.#records.get("SELECT * FROM jobs WHERE id = ?", id);
    if (row !== undefined && isSeen(peer, row)) return this.#jobOf(row);
    throw new CairnError("not_found", `you have no job ${JSON.stringify(id.slice(0, 40))}`, {
      hint: "jobs are kept for a day after they have ended",
    });
  }

  /**
   * Jobs that the caller may see, the newest first. `after`: the last job of the previous page. Throws `not_found` if
   * it is unknown.
   */
  list(peer: Caller, { after, most }: { after: string | null; most: number }): JobList {
    if (after !== null) this.find(peer, after);
    const rows = this.#records.all(
      `SELECT id, verb, path, state, created, started, ended FROM jobs
       WHERE (?1 IS NULL OR uid = ?1) AND (?4 IS NULL OR owner = ?4) AND (?2 IS NULL OR number < (SELECT number FROM jobs WHERE id = ?2)) ORDER BY number DESC LIMIT ?3`,
      isWholeOperator(peer) ? null : peer.uid,
      after,
      most + 1,
      isNarrow(peer) ? keyOf(peer) : null,
    );
    const jobs = rows.slice(0, most).map((row) => this.#listed(row));
    return { jobs, next: rows.length > most ? jobs.at(-1)!.job_id : null };
  }

  /** Cancels a job and waits at most `patience` milliseconds for its end. Throws `not_found`. */
  async cancel(peer: Caller, id: string, patience = 1_000): Promise<Job> {
    this.find(peer, id);
    const live = this.#live.get(id);
    if (live?.outcome === null) {
      live.cancel.abort(new Error("the job was cancelled"));
      await endedWithin(live.done.promise, patience);
    }
    return this.find(peer, id);
  }

  async idle(): Promise<void> {
    await Promise.all([...this.#live.values()].map(async ({ done }) => done.promise));
  }

  #listed(row: Row): ListedJob {
    const live = this.#live.get(row["id"] as string);
    const time = (name: "created" | "started" | "ended"): string | null => {
      const at = live?.[name] ?? row[name];
      return at === null || at === undefined ? null : new Date(Number(at)).toISOString();
    };
    return {
      job_id: row["id"] as string,
      verb: row["verb"] as string,
      workspace: row["path"] as string | null,
      state: live === undefined ? (row["state"] as JobState) : stateOf(live),
      progress: live?.progress ?? null,
      created_at: time("created")!,
      started_at: time("started"),
      ended_at: time("ended"),
    };
  }

  #jobOf(row: Row): Job {
    const live = this.#live.get(row["id"] as string);
    const kept = <T>(name: string): T | null => (typeof row[name] === "string" ? (fromWire(row[name]) as T) : null);
    return {
      ...this.#listed(row),
      answer: live?.outcome?.answer ?? kept("answer"),
      error: live?.outcome?.error ?? kept("error"),
      warnings: live?.warnings ?? kept("warnings") ?? [],
    };
  }
}

const ASK_AGAIN = { hint: "repeat the call; with the same idempotency key nothing is done twice" };
const LONG = { hint: "look at what the call changed; to get long answers, call without a key and not as a job" };

function stateOf({ outcome, started }: Live): JobState {
  return outcome?.state ?? (started === null ? "queued" : "running");
}

/** The outcome of a job that its caller or the daemon's end stopped, or that failed. */
function failure(signal: AbortSignal, error: CairnError): Outcome {
  const state = error.code !== "interrupted" ? "failed" : signal.aborted ? "cancelled" : "interrupted";
  return { state, answer: null, error: tellError(error) };
}

/** True if a repeated call may end differently from this job. */
function isToBeDoneAnew(state: JobState, error: ErrorRecord | null): boolean {
  if (state === "queued" || state === "running" || state === "done") return false;
  return state !== "failed" || error === null || ERROR_TABLE[error.code].retryable;
}

/** Callers with a narrow token see only their own jobs, other callers all jobs of their user; `uid` null: operators only. */
export function isSeen(peer: Caller, { uid, owner }: { uid?: unknown; owner?: unknown }): boolean {
  return isNarrow(peer) ? owner === keyOf(peer) : isWholeOperator(peer) || (uid !== null && peer.uid === Number(uid));
}

function isNarrow({ isAgent, only }: Caller): boolean {
  return isAgent || only !== null;
}

/** Waits for the end of work, at most some milliseconds. */
export async function endedWithin(end: Promise<unknown>, ms: number): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, ms);
  await Promise.race([end, promise]);
  clearTimeout(timer);
}
