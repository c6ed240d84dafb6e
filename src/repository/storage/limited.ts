import { setTimeout as sleepFor } from "node:timers/promises";
import { statSync } from "node:fs";
import { throwIfAborted } from "../../errors.ts";
import {
  isCutOff,
  signalOf,
  type ByteRange,
  type FileKind,
  type SaveOptions,
  type Storage,
  type StorageCall,
} from "./storage.ts";
import { type AskedCall, type RunCall, WrappedStorage } from "./wrapped.ts";

export interface Limits {
  /** Bytes a second to the storage; absent: unlimited. */
  uploadRate?: number | undefined;
  /** Bytes a second from the storage; absent: unlimited. */
  downloadRate?: number | undefined;
  /** Concurrent calls; further ones wait. */
  calls?: number | undefined;
}

export interface LimitTimers {
  /** Milliseconds of a clock that never goes back. */
  now?: () => number;
  sleep?: (ms: number, signal: AbortSignal | undefined) => Promise<void>;
}

/**
 * Called before bytes are sent and after they are received; delays the caller to keep a rate. A signal that fires
 * meanwhile ends the delay with `interrupted`. With a signal that fired before there is no delay.
 */
export interface Pace {
  upload(bytes: number, signal?: AbortSignal): Promise<void>;
  download(bytes: number, signal?: AbortSignal): Promise<void>;
}

/** Seconds of the rate that may be sent at once after a pause. */
const BURST_SECONDS = 0.25;

/**
 * A token bucket for bytes. A call may take more bytes than there are; the next call waits for the debt, so that the
 * average rate holds for pieces of any size.
 */
export class TokenBucket {
  readonly #rate: number;
  readonly #now: () => number;
  readonly #sleep: NonNullable<LimitTimers["sleep"]>;
  #tokens: number;
  #at: number;
  #queue: Promise<void> = Promise.resolve();

  /** `rate` in bytes a second, above 0. */
  constructor(rate: number, timers: LimitTimers = {}) {
    this.#rate = rate;
    this.#now = timers.now ?? (() => performance.now());
    this.#sleep = timers.sleep ?? pause;
    this.#tokens = rate * BURST_SECONDS;
    this.#at = this.#now();
  }

  /** Waits until there is no debt, then takes `bytes`. Calls take turns. Signals as for a `Pace`. */
  async take(bytes: number, signal?: AbortSignal): Promise<void> {
    if (signal?.aborted === true) return;
    const turn = this.#queue.then(() => this.#pay(bytes, signal));
    this.#queue = turn.catch(() => undefined);
    const stopped = Promise.withResolvers<void>();
    const stop = (): void => stopped.resolve();
    signal?.addEventListener("abort", stop, { once: true });
    await Promise.race([turn, stopped.promise]).finally(() => signal?.removeEventListener("abort", stop));
    throwIfAborted(signal);
  }

  async #pay(bytes: number, signal: AbortSignal | undefined): Promise<void> {
    this.#fill();
    // An aborted caller waits no longer.
    while (this.#tokens < 0 && signal?.aborted !== true) {
      await this.#sleep(Math.ceil((-this.#tokens / this.#rate) * 1000), signal);
      this.#fill();
    }
    if (signal?.aborted !== true) this.#tokens -= bytes;
  }

  #fill(): void {
    const now = this.#now();
    this.#tokens = Math.min(this.#rate * BURST_SECONDS, this.#tokens + ((now - this.#at) / 1000) * this.#rate);
    this.#at = now;
  }
}

/** Returns a pace for a storage that sends and receives in pieces, so that no file is sent in one burst. */
export function paceOf(limits: Limits, timers: LimitTimers = {}): Pace {
  const bucket = (rate: number | undefined): TokenBucket | null =>
    rate === undefined ? null : new TokenBucket(rate, timers);
  const [up, down] = [bucket(limits.uploadRate), bucket(limits.downloadRate)];
  return {
    upload: async (bytes, signal) => up?.take(bytes, signal),
    download: async (bytes, signal) => down?.take(bytes, signal),
  };
}

/** Runs at most `count` pieces of work at once. Others wait in the order of their calls. */
export class Slots {
  #free: number;
  readonly #waiting: (() => void)[] = [];

  constructor(count: number) {
    this.#free = count;
  }

  async run<T>(work: () => Promise<T>): Promise<T> {
    if (this.#free > 0) this.#free--;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#free++;
      else next();
    }
  }
}

/**
 * Limits concurrent calls and bytes a second. Counts bytes by whole files; give a storage that takes a `Pace` the pace
 * instead, and only `calls` to this class. Locks are small and must be refreshed in time: they are not limited.
 */
export class LimitedStorage extends WrappedStorage {
  readonly #pace: Pace;
  readonly #slots: Slots;

  constructor(inner: Storage, limits: Limits, timers: LimitTimers = {}) {
    super(inner);
    this.#pace = paceOf(limits, timers);
    this.#slots = new Slots(limits.calls ?? Infinity);
  }

  override async save(kind: FileKind, name: string, bytes: Uint8Array, options?: SaveOptions): Promise<void> {
    await this.#inTurn({ operation: "save", kind, call: options }, async () => {
      if (kind !== "locks") await this.#pace.upload(bytes.length, options?.signal);
      await this.inner.save(kind, name, bytes, options);
    });
  }

  override async saveFile(kind: FileKind, name: string, temporaryPath: string, options?: SaveOptions): Promise<void> {
    await this.#inTurn({ operation: "saveFile", kind, call: options }, async () => {
      await this.#pace.upload(sizeOf(temporaryPath), options?.signal);
      await this.inner.saveFile(kind, name, temporaryPath, options);
    });
  }

  override async load(kind: FileKind, name: string, range?: ByteRange, call?: StorageCall): Promise<Uint8Array> {
    return this.#inTurn({ operation: "load", kind, call }, async () => {
      const bytes = await this.inner.load(kind, name, range, call);
      if (kind !== "locks") await this.#pace.download(bytes.length, call?.signal);
      return bytes;
    });
  }

  protected override through<T, Call extends StorageCall>(asked: AskedCall<Call>, run: RunCall<T, Call>): Promise<T> {
    return this.#inTurn(asked, () => run(asked.call));
  }

  /** Starts no work for a caller that aborted while it waited, except for commits. */
  async #inTurn<T>({ operation, kind, call }: AskedCall, work: () => Promise<T>): Promise<T> {
    const signal = isCutOff(operation, kind) ? signalOf(call) : undefined;
    if (kind === "locks") return work();
    return this.#slots.run(async () => {
      throwIfAborted(signal);
      return work();
    });
  }
}

/** Returns 0 if the file is missing: the storage then throws. */
function sizeOf(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.size ?? 0;
}

async function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  // An abort ends the pause; the caller throws.
  await sleepFor(ms, undefined, signal === undefined ? {} : { signal }).catch(() => undefined);
}
