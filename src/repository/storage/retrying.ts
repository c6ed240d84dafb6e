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
  /** Attempts of one call, including the first. Default 10. */
  attempts?: number;
  /**
   * Attempts of one call before the storage has answered for the first time, or since a call failed for good: a wrong
   * address looks like a server that is down. Default 4, which takes some seconds.
   */
  firstAttempts?: number;
  /** Milliseconds after the start of a call from which no further attempt starts. Default 15 minutes. */
  totalMs?: number;
  /** Longest pause before the second attempt, in milliseconds; doubled for each further one. Default 500. */
  firstDelayMs?: number;
  /** Longest pause of all, in milliseconds. Default 60 000. */
  maxDelayMs?: number;
  /** Milliseconds for which a commit may go on after its caller has aborted; then the call ends. Default 10 000. */
  graceMs?: number;
  /** Clock (milliseconds, never going back), pause and random number (0 to 1), for tests. */
  now?: () => number;
  sleep?: (ms: number, signal?: AbortSignal) => Promise<void>;
  random?: () => number;
}

const GRACE_MS = 10_000;
/** Number of loads in all after which wrong bytes count as damage. */
const MOST_LOADS = 3;

/** End of the grace period, by `now`, of a call whose caller has aborted; null before the abort. */
interface Grace {
  endsAt: number | null;
}

/** For each kind of file, a command that shows whether such a file exists. */
const TELLS: Readonly<Record<FileKind, Hint>> = {
  config: advice`run ${call("backup list", "list")} to see whether there is a repository; if not, create it again`,
  keys: advice`run ${call("backup key list", "keys")} to see which keys there are`,
  locks: advice`a lock that was left expires by itself; ${call("backup unlock", "unlock")} removes it at once`,
  snapshots: advice`run ${call("backup list", "list")} to see which snapshots there are`,
  index: advice`run the command again: content that is already stored is used; ${call("backup verify", "verify")} shows whether the index is whole`,
  data: advice`run ${call("backup verify", "verify")} to see whether the pack is there`,
};

/** Checks before another attempt whether the failed attempt did its work after all. */
type LateSuccess<T> = (error: CairnError) => Promise<{ value: T } | null>;

interface Work<T, Call extends StorageCall> {
  readonly run: RunCall<T, Call>;
  readonly late?: LateSuccess<T>;
}

/**
 * Repeats calls that failed with a `retryable` error (`io`, `busy`), after doubling pauses of at least `retryAfterMs`
 * of the error. A file gone at its second removal, or a `config` with our own bytes, counts as success. Bytes that
 * `isRight` refuses are loaded twice more; throws `io` if they differ each time.
 */
export class RetryingStorage extends WrappedStorage {
  readonly #options: RetryOptions;
  #hasAnswered = false;
  /** Caller → problem → end of the pause that was last reported to the caller, by `now`. */
  readonly #told = new WeakMap<NonNullable<StorageCall["onRetry"]>, Map<string, number>>();
  readonly #closing = new AbortController();
  /**
   * Signal of a caller → a signal that fires with the caller's signal or on closing. Made once a caller: signals of
   * single calls would pile up.
   */
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
          // Otherwise the removal of a lock, which follows, would wait just as long.
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

  /** Reports a problem only once to a caller of which several calls wait. */
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
   * Returns the error of a call without an answer whose caller aborted. `failure`: the error of its last attempt; null:
   * the call is still running.
   */
  #stopped(asked: AskedCall, failure: CairnError | null): CairnError {
    const { operation, kind, name } = asked;
    const by = this.#closing.signal.aborted ? "the repository was closed" : "stopped by the caller";
    // A busy storage has done nothing.
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

/** Returns the same text for all calls that fail by the same problem. */
function problemOf({ cause, code, message, details }: CairnError): string {
  if (cause instanceof Error) return cause.message;
  const status = details?.["httpStatus"];
  return typeof status === "number" ? `${code} ${status}` : message;
}

/** Returns a function that compares a file with the digest that is its name. */
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
  // An abort ends the pause; the caller throws.
  await sleepFor(ms, undefined, signal === undefined ? {} : { signal }).catch(() => undefined);
}
