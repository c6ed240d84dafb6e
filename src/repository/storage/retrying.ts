import { existsSync } from "node:fs";
import { setTimeout as sleepFor } from "node:timers/promises";
import { CairnError, reworded, throwIfAborted } from "../../errors.ts";
import type { StorageOperation } from "./counting.ts";
import type { ByteRange, FileKind, SaveOptions, Storage, StoredFile } from "./storage.ts";

export interface RetryEvent {
  readonly operation: StorageOperation;
  readonly kind: FileKind;
  /** Of the attempt that failed, from 1. */
  readonly attempt: number;
  /** Until the next one, milliseconds. */
  readonly delayMs: number;
  readonly error: CairnError;
}

export interface RetryOptions {
  /** Of one call, the first included. Default 10. */
  attempts?: number;
  /**
   * Of one call as long as the storage has never answered, be it with an error that is final: a wrong address looks like a
   * server that is away. Default 4, which takes some seconds.
   */
  firstAttempts?: number;
  /** No attempt begins later than this after a call did, milliseconds. Default 15 minutes. */
  totalMs?: number;
  /** Longest pause before the second attempt; doubled for each further one. Default 500 ms. */
  firstDelayMs?: number;
  /** No pause is longer, milliseconds. Default 60 s. */
  maxDelayMs?: number;
  /**
   * Ends pauses, further attempts, and whatever loads, lists or moves content, with `interrupted`; nobody waits any more
   * for what was under way. A call that begins later is made all the same, so that whoever was stopped can take their
   * lock away.
   */
  signal?: AbortSignal | undefined;
  /** Told before each pause, so that a long one does not look like a hang. */
  onRetry?: ((event: RetryEvent) => void) | undefined;
  /** For tests: milliseconds of a clock that never goes back, a pause, a number from 0 up to 1. */
  now?: () => number;
  sleep?: (ms: number, signal: AbortSignal | undefined) => Promise<void>;
  random?: () => number;
}

/** Nothing is decided by them; snapshots, indexes and locks are let to their end. */
const CUT_OFF: ReadonlySet<StorageOperation> = new Set(["load", "list", "exists"]);

/** What a call that may have worked although it failed looks at before it is made again. */
type LateSuccess<T> = (error: CairnError) => Promise<{ value: T } | null>;

/**
 * Makes calls again that failed with an error that may pass (`retryable`: `io`, `busy`), after pauses that double, each
 * a random part between half and all of its length. A storage that knows better says `retryAfterMs` in the error's details.
 * Every other error is final at once, and so is the last one when attempts or time are used up.
 *
 * An attempt that failed may have done its work: a file that is gone when it is removed again, a temporary file that
 * was taken over, and a `config` with our own bytes in it are successes then, and only then.
 */
export class RetryingStorage implements Storage {
  readonly #inner: Storage;
  readonly #options: RetryOptions;
  #hasAnswered = false;

  constructor(inner: Storage, options: RetryOptions = {}) {
    this.#inner = inner;
    this.#options = options;
    if (inner.temporaryDirectory !== undefined) this.temporaryDirectory = inner.temporaryDirectory;
    if (inner.localPath !== undefined) this.localPath = (kind, name) => inner.localPath!(kind, name);
    if (inner.clearTemporaries !== undefined) this.clearTemporaries = (ageMs) => inner.clearTemporaries!(ageMs);
    if (inner.close !== undefined) this.close = () => inner.close!();
  }

  readonly temporaryDirectory?: string;
  localPath?: (kind: FileKind, name: string) => string;
  clearTemporaries?: NonNullable<Storage["clearTemporaries"]>;
  close?: () => Promise<void>;

  get location(): string {
    return this.#inner.location;
  }

  async save(kind: FileKind, name: string, bytes: Uint8Array, options: SaveOptions = {}): Promise<void> {
    const isOurs: LateSuccess<void> = async (error) => {
      if (error.code !== "already_exists" || kind !== "config") return null;
      const there = await this.load(kind, name);
      if (!Buffer.from(there).equals(bytes)) return null;
      if (options.durable !== false) await this.sync([kind]);
      return { value: undefined };
    };
    await this.#retry("save", kind, { call: () => this.#inner.save(kind, name, bytes, options), late: isOurs });
  }

  async saveFile(kind: FileKind, name: string, temporaryPath: string, options: SaveOptions = {}): Promise<void> {
    const wasTaken: LateSuccess<void> = async () => {
      if (existsSync(temporaryPath) || !(await this.exists(kind, name))) return null;
      if (options.durable !== false) await this.sync([kind]);
      return { value: undefined };
    };
    const call = (): Promise<void> => this.#inner.saveFile(kind, name, temporaryPath, options);
    await this.#retry("saveFile", kind, { call, late: wasTaken });
  }

  async load(kind: FileKind, name: string, range?: ByteRange): Promise<Uint8Array> {
    return this.#retry("load", kind, { call: () => this.#inner.load(kind, name, range) });
  }

  async list(kind: FileKind): Promise<StoredFile[]> {
    return this.#retry("list", kind, { call: () => this.#inner.list(kind) });
  }

  async exists(kind: FileKind, name: string): Promise<boolean> {
    return this.#retry("exists", kind, { call: () => this.#inner.exists(kind, name) });
  }

  async remove(kind: FileKind, name: string): Promise<void> {
    const isGone: LateSuccess<void> = async (error) => (error.code === "not_found" ? { value: undefined } : null);
    await this.#retry("remove", kind, { call: () => this.#inner.remove(kind, name), late: isGone });
  }

  async sync(kinds: readonly FileKind[]): Promise<void> {
    const [first] = kinds;
    if (first !== undefined) await this.#retry("sync", first, { call: () => this.#inner.sync(kinds) });
  }

  async #retry<T>(
    operation: StorageOperation,
    kind: FileKind,
    work: { call: () => Promise<T>; late?: LateSuccess<T> },
  ): Promise<T> {
    const { attempts = 10, firstAttempts = 4, totalMs = 900_000, signal } = this.#options;
    const now = this.#options.now ?? (() => performance.now());
    const begun = now();
    for (let attempt = 1; ; attempt++) {
      try {
        const value = await this.#attempt(work.call, CUT_OFF.has(operation) || kind === "data");
        this.#hasAnswered = true;
        return value;
      } catch (error) {
        if (!(error instanceof CairnError)) throw error;
        this.#hasAnswered ||= !error.retryable;
        const late = attempt === 1 || work.late === undefined ? null : await work.late(error);
        if (late !== null) return late.value;
        if (!error.retryable) throw error;
        const delayMs = this.#delay(attempt, error);
        const spent = now() - begun;
        const most = this.#hasAnswered ? attempts : Math.min(attempts, firstAttempts);
        if (attempt >= most || spent + delayMs > totalMs) throw givenUp(error, attempt, spent);
        throwIfAborted(signal);
        this.#options.onRetry?.({ operation, kind, attempt, delayMs, error });
        await (this.#options.sleep ?? pause)(delayMs, signal);
      }
    }
  }

  async #attempt<T>(call: () => Promise<T>, isCutOff: boolean): Promise<T> {
    const { signal } = this.#options;
    if (!isCutOff || signal === undefined || signal.aborted) return call();
    const stopped = Promise.withResolvers<never>();
    const stop = (): void => stopped.reject(new CairnError("interrupted", "stopped by the caller"));
    signal.addEventListener("abort", stop, { once: true });
    const running = call();
    running.catch(() => undefined);
    try {
      return await Promise.race([running, stopped.promise]);
    } finally {
      signal.removeEventListener("abort", stop);
    }
  }

  #delay(attempt: number, error: CairnError): number {
    const { firstDelayMs = 500, maxDelayMs = 60_000, random = Math.random } = this.#options;
    const whole = Math.min(maxDelayMs, firstDelayMs * 2 ** Math.min(attempt - 1, 30));
    const wanted = error.details?.["retryAfterMs"];
    const least = typeof wanted === "number" && wanted > 0 ? wanted : 0;
    return Math.max(least, whole * (0.5 + random() / 2));
  }
}

function givenUp(error: CairnError, attempts: number, spentMs: number): CairnError {
  if (attempts === 1) return error;
  const message = `${error.message} (given up after ${attempts} attempts in ${Math.round(spentMs / 1000)} s)`;
  const hint = error.hint ?? "look whether the server is up and the address is right; what was begun can be repeated";
  return reworded(error, { message, hint });
}

async function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  try {
    await sleepFor(ms, undefined, signal === undefined ? {} : { signal });
  } catch {
    throwIfAborted(signal);
  }
}
