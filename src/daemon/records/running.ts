import { randomBytes } from "node:crypto";
import type { CancelResult, RunningCall } from "../../contract/service.ts";
import type { Progress } from "../../contract/words.ts";
import { CairnError, toCairnError } from "../../errors.ts";
import { displayPath } from "../../fs/paths/safe-path.ts";
import { type Caller, keyOf } from "../state/peer.ts";
import { folderOf } from "../state/kept-state.ts";
import type { EventPlace, Events } from "./events.ts";
import { endedWithin, isSeen } from "./jobs.ts";

/** Milliseconds between two events of a call, and until the first one: nobody is told of a shorter call. */
const PROGRESS_MS = 250;
/** Milliseconds that a cancellation waits for the call's end. */
const PATIENCE_MS = 2_000;
/** The most failures that are stored in a span. */
const MOST_STORED = 100;
const STORED_SPAN_MS = 60_000;

export interface Asked {
  verb: string;
  /** The folder as the caller gave it; `place` is used instead if it is known. */
  workspace?: string | null;
  repository?: string | null;
  place: EventPlace | null;
  /** Null: the daemon's schedule. */
  caller: Caller | null;
  /** Cancels the job of the call, so that the job ends as `cancelled`. */
  cancelJob?: (() => void) | undefined;
}

/** Tells the list how the work goes, and tells the work when to end. */
export interface RunningHand {
  signal: AbortSignal;
  /** Called when the call is accepted. Until then it is not listed. */
  onAccepted(): void;
  /** Called when the work's turn has come. */
  onBegin(): void;
  onProgress(progress: Progress): void;
}

interface Live {
  call: RunningCall;
  owner: string | null;
  place: EventPlace | null;
  cancel: (reason: Error) => void;
  readonly ended: PromiseWithResolvers<void>;
  /** Tells of the call's start. */
  start?: NodeJS.Timeout;
  isTold: boolean;
  toldAt: number;
}

/** Sentences about the remains of cancelled work, for work with several commit points. */
const LEFT: Readonly<Record<string, string>> = {
  backup: "The repository has no snapshot of it. Uploaded data stays until the next prune.",
  due: "What it had done by then stays: it saves, backs up, verifies and prunes in turn.",
  ...both(["cleanup", "runCleanup"], "Save points that were removed stay removed. All others are whole."),
  forgetBackups: "Backups that were removed stay removed. All others are whole.",
  ...both(
    ["prune", "pruneBackups"],
    "Forgotten snapshots stay forgotten. The next prune frees the rest of their data.",
  ),
  removeFork: "If its folder is still there, the fork is whole. Its present may be saved as a point of the original.",
};
const NOTHING = "Nothing was changed.";
/** Cancelled work of the schedule counts as not done. A save waits for the next change or the end of its span. */
const AGAIN = " The schedule begins it again after ten minutes.";

function both(verbs: readonly string[], sentence: string): Record<string, string> {
  return Object.fromEntries(verbs.map((each) => [each, sentence]));
}

/** Calls and scheduled work that run now in this process. A process that ends forgets them. */
export class Running {
  readonly #events: Events;
  readonly #live = new Map<string, Live>();
  #stored = 0;
  #storedSince = 0;

  constructor(events: Events) {
    this.#events = events;
  }

  /**
   * Lists a call while `work` runs. Events report the start, progress and end of a call that takes longer than
   * `PROGRESS_MS`. A failure is stored with the events.
   */
  async during<T>(
    { verb, workspace = null, repository = null, place, caller, cancelJob }: Asked,
    signal: AbortSignal | undefined,
    work: (hand: RunningHand) => Promise<T>,
  ): Promise<T> {
    const own = new AbortController();
    const live: Live = {
      call: {
        running_id: randomBytes(8).toString("hex"),
        verb,
        workspace: place === null ? workspace : displayPath(folderOf(place)).path,
        repository,
        state: "waiting",
        since: new Date().toISOString(),
        progress: null,
        scheduled: caller === null,
        uid: caller?.uid ?? process.geteuid?.() ?? 0,
        pid: caller === null || caller.pid === 0 ? null : caller.pid,
        token: caller?.token ?? null,
        error: null,
      },
      owner: caller === null ? null : keyOf(caller),
      place,
      cancel: (reason) => {
        cancelJob?.();
        own.abort(reason);
      },
      ended: Promise.withResolvers(),
      isTold: false,
      toldAt: Date.now(),
    };
    const { call } = live;
    const onAccepted = (): void => {
      this.#live.set(call.running_id, live);
      live.start = setTimeout(() => this.#tell(live), PROGRESS_MS).unref();
    };
    const onBegin = (): void => {
      if (call.state === "waiting") call.state = "running";
      if (live.isTold) this.#tell(live);
    };
    // The schedule has accepted its own work, whose turn has come.
    if (caller === null) {
      onAccepted();
      onBegin();
    }
    try {
      const answered = await work({
        signal: AbortSignal.any([own.signal, ...(signal === undefined ? [] : [signal])]),
        onAccepted,
        onBegin,
        onProgress: (progress) => {
          call.progress = progress;
          if (Date.now() - live.toldAt >= PROGRESS_MS) this.#tell(live);
        },
      });
      call.state = "done";
      return answered;
    } catch (error) {
      const failed = toCairnError(error);
      call.state = failed.code === "interrupted" ? "cancelled" : "failed";
      call.error = { code: failed.code, message: failed.message };
      if (call.state === "failed" || !own.signal.aborted) throw error;
      const { message } = own.signal.reason as Error;
      throw new CairnError("interrupted", message, { cause: error, details: { cancelled: true } });
    } finally {
      this.#live.delete(call.running_id);
      this.#end(live);
    }
  }

  #tell(live: Live): void {
    live.toldAt = Date.now();
    live.isTold = true;
    this.#events.tell(happeningOf(live));
  }

  #end(live: Live): void {
    clearTimeout(live.start);
    if (live.call.state === "failed" && this.#isStored()) this.#events.append(happeningOf(live));
    else if (live.isTold) this.#tell(live);
    live.ended.resolve();
  }

  /** False for failures beyond a limit per minute, so that endless refused calls push no other event out. */
  #isStored(): boolean {
    if (Date.now() - this.#storedSince > STORED_SPAN_MS) [this.#storedSince, this.#stored] = [Date.now(), 0];
    return ++this.#stored <= MOST_STORED;
  }

  /**
   * Calls that the caller may see, the oldest first: the own ones, for operators all. Scheduled work is the operators'.
   * An event then tells of the end of each call, also of a short one.
   */
  list(peer: Caller): RunningCall[] {
    const seen = [...this.#live.values()].filter(({ owner, call: { scheduled, uid } }) =>
      isSeen(peer, { owner, uid: scheduled ? null : uid }),
    );
    for (const live of seen) live.isTold = true;
    return seen.map(({ call }) => ({ ...call }));
  }

  /** True if the caller may cancel a call with this id here. */
  has(peer: Caller, id: string): boolean {
    return this.list(peer).some(({ running_id }) => running_id === id);
  }

  /** Cancels a call and waits a moment for its end. Throws `not_found` if no call has the id, or if it has ended. */
  async cancel(peer: Caller, id: string): Promise<CancelResult> {
    if (!this.has(peer, id)) throw notRunning(id);
    const live = this.#live.get(id)!;
    const { call } = live;
    call.state = "stopping";
    live.cancel(new Error(`cancelled by user ${peer.uid}`));
    this.#tell(live);
    await endedWithin(live.ended.promise, PATIENCE_MS);
    return { ...call, stays: staysOf(call) };
  }
}

export function notRunning(id: string): CairnError {
  return new CairnError("not_found", `no call ${JSON.stringify(id.slice(0, 40))} of yours runs`, {
    hint: "it may have ended meanwhile",
  });
}

function staysOf({ verb, state, error, scheduled }: RunningCall): string {
  if (state === "stopping") return "It ends at its next safe place.";
  if (state === "done") return "It had passed its commit point, and is done.";
  if (state === "failed") return `It failed: ${error!.message}`;
  return `${LEFT[verb] ?? NOTHING}${scheduled && verb !== "save" ? AGAIN : ""}`;
}

function happeningOf({ call, place }: Live) {
  // Work on a whole repository is about no workspace, and only operators hear of it.
  const isOfAll = call.scheduled && place !== null;
  return { workspace: place, type: "call", data: { ...call }, ...(isOfAll ? {} : { uid: call.uid }) } as const;
}
