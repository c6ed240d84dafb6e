import { existsSync } from "node:fs";
import { setTimeout as sleepFor } from "node:timers/promises";
import { sha256 } from "../../crypto/hash.ts";
import { advice, adviceOf, CairnError, call, type Hint, reworded } from "../../errors.ts";
import { objectIdOf } from "../../ids.ts";
import {
  type ByteRange,
  isCutOff,
  labelOf,
  type FileKind,
  type RetryEvent,
  type SaveOptions,
  type Storage,
  type StorageCall,
} from "./storage.ts";
import { type AskedCall, type RunCall, WrappedStorage } from "./wrapped.ts";

export interface RetryOptions {
  /** Attempts of one call, the first included. Default 10. */
  attempts?: number;
  /**
   * Attempts of one call while the storage has not answered yet, or not since a call was given up: a wrong address
   * looks like a server that is away. Default 4, which takes some seconds.
   */
  firstAttempts?: number;
  /** No attempt begins later than this after a call did, milliseconds. Default 15 minutes. */
  totalMs?: number;
  /** Longest pause before the second attempt; doubled for each further one. Default 500 ms. */
  firstDelayMs?: number;
  /** No pause is longer, milliseconds. Default 60 s. */
  maxDelayMs?: number;
  /**
   * Milliseconds that a deciding call may go on after its caller has stopped; then nobody waits for it. Default 10 s.
   */
  graceMs?: number;
  /** Clock (milliseconds, never going back), pause and random number (0 to 1), which tests replace. */
  now?: () => number;
  sleep?: (ms: number, signal?: AbortSignal) => Promise<void>;
  random?: () => number;
}

const GRACE_MS = 10_000;
/** Bytes that are not what was written are asked for so often in all, before that counts. */
const MOST_LOADS = 3;

/** Time by `now` at which nobody waits any longer for a call whose caller has stopped; null before the stop. */
interface Grace {
  endsAt: number | null;
}

/** Commands that tell whether a file of a kind is there. */
const TELLS: Readonly<Record<FileKind, Hint>> = {
  config: advice`run ${call("backup list", "list")} to see whether there is a repository; if not, create it again`,
  keys: advice`run ${call("backup key list", "keys")} to see which keys there are`,
  locks: advice`a lock that was left expires by itself; ${call("backup unlock", "unlock")} removes it at once`,
  snapshots: advice`run ${call("backup list", "list")} to see which snapshots there are`,
  index: advice`run the command again: content that is already stored is used; ${call("backup verify", "verify")} shows whether the index is whole`,
  data: advice`run ${call("backup verify", "verify")} to see whether the pack is there`,
};

/** Looks whether a failed call did its work all the same, before the call is made again. */
type LateSuccess<T> = (error: CairnError) => Promise<{ value: T } | null>;

interface Work<T, Call extends StorageCall> {
  readonly run: RunCall<T, Call>;
  readonly late?: LateSuccess<T>;
}

/**
 * Makes calls again that failed with a `retryable` error (`io`, `busy`), after pauses that double, or last `retryAfterMs` of its details.
 * Late success counts: a file gone at its second removal, a `config` with our own bytes. What `isRight` denies of a load is loaded twice
 * more: `io` where it is otherwise each time, else it is returned.
 */
export class RetryingStorage extends WrappedStorage {
  readonly #options: RetryOptions;
  #hasAnswered = false;
  /** Caller → problem → end of the pause that the caller was last told of, by `now`. */
  readonly #told = new WeakMap<NonNullable<StorageCall["onRetry"]>, Map<string, number>>();
  readonly #closing = new AbortController();
  /** Signal of a caller → what fires with it or with closing; made once, since of many calls each would leave one to be collected. */
  readonly #ends = new WeakMap<AbortSignal, AbortSignal>();

  constructor(inner: Storage, options: RetryOptions = {}) {
    super(inner);
    this.#options = options;
    if (inner.close !== undefined)
      this.close = () => {
        this.#closing.abort();
        return inner.close!();
      };
  }

  override async save(kind: FileKind, name: string, bytes: Uint8Array, options: SaveOptions = {}): Promise<void> {
    const isOurs: LateSuccess<void> = async (error) => {
      if (error.code !== "already_exists" || kind !== "config") return null;
      const there = await this.load(kind, name, undefined, options);
      if (!Buffer.from(there).equals(bytes)) return null;
      if (options.durable !== false) await this.sync([kind], options);
      return { value: undefined };
    };
    await this.#retry(
      { operation: "save", kind, name, call: options },
      { run: (call) => this.inner.save(kind, name, bytes, call), late: isOurs },
    );
  }

  override async saveFile(
    kind: FileKind,
    name: string,
    temporaryPath: string,
    options: SaveOptions = {},
  ): Promise<void> {
    const wasTaken: LateSuccess<void> = async () => {
      if (existsSync(temporaryPath) || !(await this.exists(kind, name, options))) return null;
      if (options.durable !== false) await this.sync([kind], options);
      return { value: undefined };
    };
    await this.#retry(
      { operation: "saveFile", kind, name, call: options },
      { run: (call) => this.inner.saveFile(kind, name, temporaryPath, call), late: wasTaken },
    );
  }

  override async load(kind: FileKind, name: string, range?: ByteRange, call?: StorageCall): Promise<Uint8Array> {
    const hasName = range === undefined && kind !== "config" ? isNamed(name) : undefined;
    const isRight = call?.isRight ?? hasName;
    const what = `${labelOf(kind, name)} at ${this.location}`;
    const wrong: Uint8Array[] = [];
    for (;;) {
      const bytes = await super.load(kind, name, range, call);
      if (isRight?.(bytes) !== false) {
        if (wrong.length > 0)
          call?.onWrong?.(`${what} arrived with wrong bytes, and with the right ones when it was read again`);
        return bytes;
      }
      const cameBefore = wrong.some((before) => Buffer.compare(before, bytes) === 0);
      if (wrong.push(bytes) < MOST_LOADS) continue;
      if (!cameBefore) throw otherwiseEachTime(what);
      call?.onWrong?.(
        `${what} is damaged there, and was not changed on its way: two reads returned the same wrong bytes`,
      );
      return bytes;
    }
  }

  protected override through<T, Call extends StorageCall>(asked: AskedCall<Call>, run: RunCall<T, Call>): Promise<T> {
    const isGone = async (error: CairnError): Promise<{ value: T } | null> =>
      error.code === "not_found" ? { value: undefined as T } : null;
    return this.#retry(asked, asked.operation === "remove" ? { run, late: isGone } : { run });
  }

  async #retry<T, Call extends StorageCall>(asked: AskedCall<Call>, work: Work<T, Call>): Promise<T> {
    const { attempts = 10, firstAttempts = 4, totalMs = 900_000 } = this.#options;
    const { operation, kind, call } = asked;
    const begun = this.#now();
    if (this.#closing.signal.aborted && isCutOff(operation, kind)) throw this.#stopped(asked, null);
    const signal = this.#endOf(call);
    const grace: Grace = { endsAt: null };
    const isOver = (): boolean => signal.aborted && !(operation === "remove" && kind === "locks");
    for (let attempt = 1; ; attempt++) {
      try {
        const value = await this.#attempt(() => work.run({ ...call, signal } as Call), {
          asked,
          signal,
          grace,
        });
        this.#hasAnswered = true;
        return value;
      } catch (error) {
        if (!(error instanceof CairnError)) throw error;
        this.#hasAnswered ||= !error.retryable;
        const late = attempt === 1 || work.late === undefined ? null : await work.late(error);
        if (late !== null) return late.value;
        if (!error.retryable) throw error;
        const delayMs = this.#delay(attempt, error);
        const spent = this.#now() - begun;
        const most = this.#hasAnswered ? attempts : Math.min(attempts, firstAttempts);
        if (attempt >= most || spent + delayMs > totalMs) {
          // Else whoever takes a lock away next would wait as long again.
          this.#hasAnswered = false;
          throw givenUp(error, attempt, spent);
        }
        if (!isOver() && this.#now() + delayMs < (grace.endsAt ?? Infinity)) {
          this.#tell(asked, { attempt, delayMs, error });
          await (this.#options.sleep ?? pause)(delayMs, signal.aborted ? undefined : signal);
          if (!isOver()) continue;
        }
        throw this.#stopped(asked, error);
      }
    }
  }

  #now(): number {
    return this.#options.now?.() ?? performance.now();
  }

  #endOf(call: StorageCall | undefined): AbortSignal {
    const signal = call?.signal;
    const closing = this.#closing.signal;
    if (signal === undefined) return closing;
    const known = this.#ends.get(signal);
    if (known !== undefined) return known;
    const either = AbortSignal.any([signal, closing]);
    this.#ends.set(signal, either);
    return either;
  }

  /** Tells a caller once of a problem for which several of its calls wait. */
  #tell({ operation, kind, call }: AskedCall, failure: Pick<RetryEvent, "attempt" | "delayMs" | "error">): void {
    const onRetry = call?.onRetry;
    if (onRetry === undefined) return;
    let told = this.#told.get(onRetry);
    if (told === undefined) this.#told.set(onRetry, (told = new Map()));
    const problem = problemOf(failure.error);
    const now = this.#now();
    if ((told.get(problem) ?? 0) > now) return;
    told.set(problem, now + failure.delayMs);
    onRetry({ operation, kind, ...failure });
  }

  async #attempt<T>(
    run: () => Promise<T>,
    { asked, signal, grace }: { asked: AskedCall; signal: AbortSignal; grace: Grace },
  ): Promise<T> {
    const { graceMs = GRACE_MS } = this.#options;
    const stopped = Promise.withResolvers<never>();
    let timer: NodeJS.Timeout | undefined;
    const isLate = signal.aborted;
    const stop = (): void => {
      if (!isLate && isCutOff(asked.operation, asked.kind)) return stopped.reject(this.#stopped(asked, null));
      grace.endsAt ??= this.#now() + graceMs;
      timer = setTimeout(() => stopped.reject(this.#stopped(asked, null)), grace.endsAt - this.#now());
    };
    if (isLate) stop();
    else signal.addEventListener("abort", stop, { once: true });
    const running = run();
    running.catch(() => undefined);
    try {
      return await Promise.race([running, stopped.promise]);
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", stop);
    }
  }

  /**
   * Makes the error of a call that had no answer when its caller stopped: by `failure`, or because nobody waited any
   * longer.
   */
  #stopped(asked: AskedCall, failure: CairnError | null): CairnError {
    const { operation, kind, name } = asked;
    const by = this.#closing.signal.aborted ? "the repository was closed" : "stopped by the caller";
    // A storage that is busy has done nothing.
    if (isCutOff(operation, kind) || name === undefined || failure?.code === "busy")
      return new CairnError("interrupted", by, { cause: failure ?? undefined });
    const done = operation === "remove" ? "removed from" : "written to";
    const why = failure === null ? "no answer came in time" : failure.message;
    return new CairnError(
      "interrupted",
      `${by}; it is not known whether ${labelOf(kind, name)} was ${done} ${this.location}: ${why}`,
      { hint: TELLS[kind], details: { undecided: true }, cause: failure ?? undefined },
    );
  }

  #delay(attempt: number, error: CairnError): number {
    const { firstDelayMs = 500, maxDelayMs = 60_000, random = Math.random } = this.#options;
    const whole = Math.min(maxDelayMs, firstDelayMs * 2 ** Math.min(attempt - 1, 30));
    const wanted = error.details?.["retryAfterMs"];
    const least = typeof wanted === "number" && wanted > 0 ? wanted : 0;
    return Math.max(least, whole * (0.5 + random() / 2));
  }
}

/** Names the problem; it is equal for all calls that fail by it. */
function problemOf({ cause, code, message, details }: CairnError): string {
  if (cause instanceof Error) return cause.message;
  const status = details?.["httpStatus"];
  return typeof status === "number" ? `${code} ${status}` : message;
}

/** Compares a file with the digest that is its name. */
function isNamed(name: string): (bytes: Uint8Array) => boolean {
  return (bytes) => objectIdOf(sha256(bytes)) === name;
}

function otherwiseEachTime(what: string): CairnError {
  return new CairnError("io", `${what} arrived with different wrong bytes each of ${MOST_LOADS} times`, {
    hint: "check the network and this machine's memory, one of which changes bytes; the repository itself may be whole",
  });
}

function givenUp(error: CairnError, attempts: number, spentMs: number): CairnError {
  if (attempts === 1) return error;
  const message = `${error.message} (given up after ${attempts} attempts in ${Math.round(spentMs / 1000)} s)`;
  const hint =
    adviceOf(error) ?? "check whether the server is up and the address is right; the command can be repeated";
  return reworded(error, { message, hint });
}

async function pause(ms: number, signal?: AbortSignal): Promise<void> {
  // Woken by an abort, its caller says so.
  await sleepFor(ms, undefined, signal === undefined ? {} : { signal }).catch(() => undefined);
}
