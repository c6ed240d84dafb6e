import { setTimeout as sleepFor } from "node:timers/promises";
import { statSync } from "node:fs";
import { throwIfAborted } from "../../errors.ts";
import type { ByteRange, FileKind, SaveOptions, Storage, StoredFile } from "./storage.ts";

export interface Limits {
  /** Bytes a second to the storage; absent: as fast as it goes. */
  uploadRate?: number | undefined;
  /** Bytes a second from the storage. */
  downloadRate?: number | undefined;
  /** Calls under way at once; further ones wait their turn. */
  calls?: number | undefined;
}

export interface LimitTimers {
  /** Milliseconds of a clock that never goes back. */
  now?: () => number;
  sleep?: (ms: number, signal: AbortSignal | undefined) => Promise<void>;
  /** Ends waiting with `interrupted`; who comes later is let through. */
  signal?: AbortSignal | undefined;
}

/** Told of bytes before they are sent and after they came; it takes its time where there is a limit. */
export interface Pace {
  upload(bytes: number): Promise<void>;
  download(bytes: number): Promise<void>;
}

/** A quarter of a second's worth may go at once. */
const BURST_SECONDS = 0.25;

/**
 * Lets bytes through at a rate. What is taken may be more than there is: the debt is waited for by whoever comes next,
 * so that the rate holds on average however large the pieces are.
 */
export class TokenBucket {
  readonly #rate: number;
  readonly #now: () => number;
  readonly #sleep: NonNullable<LimitTimers["sleep"]>;
  readonly #signal: AbortSignal | undefined;
  #tokens: number;
  #at: number;
  #queue: Promise<void> = Promise.resolve();

  /** `rate` in bytes a second, above 0. */
  constructor(rate: number, timers: LimitTimers = {}) {
    this.#rate = rate;
    this.#now = timers.now ?? (() => performance.now());
    this.#sleep = timers.sleep ?? pause;
    this.#signal = timers.signal;
    this.#tokens = rate * BURST_SECONDS;
    this.#at = this.#now();
  }

  /** Waits until nothing is owed and takes `bytes`; one after the other, in the order of the calls. */
  take(bytes: number): Promise<void> {
    if (this.#signal?.aborted === true) return Promise.resolve();
    const turn = this.#queue.then(() => this.#pay(bytes));
    this.#queue = turn.catch(() => undefined);
    return turn;
  }

  async #pay(bytes: number): Promise<void> {
    this.#fill();
    while (this.#tokens < 0) {
      throwIfAborted(this.#signal);
      await this.#sleep(Math.ceil((-this.#tokens / this.#rate) * 1000), this.#signal);
      this.#fill();
    }
    this.#tokens -= bytes;
  }

  #fill(): void {
    const now = this.#now();
    this.#tokens = Math.min(this.#rate * BURST_SECONDS, this.#tokens + ((now - this.#at) / 1000) * this.#rate);
    this.#at = now;
  }
}

/** A pace for a storage that sends and receives in pieces by itself, so that no whole file goes at once. */
export function paceOf(limits: Limits, timers: LimitTimers = {}): Pace {
  const bucket = (rate: number | undefined): TokenBucket | null =>
    rate === undefined ? null : new TokenBucket(rate, timers);
  const [up, down] = [bucket(limits.uploadRate), bucket(limits.downloadRate)];
  return {
    upload: async (bytes) => up?.take(bytes),
    download: async (bytes) => down?.take(bytes),
  };
}

/** At most so many at once; the others wait in the order in which they came. */
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
 * Bounds the calls under way at once and the bytes a second each way. Bytes are counted by whole files: for storages
 * that take a `Pace` themselves, give it to them and only `calls` to this.
 */
export class LimitedStorage implements Storage {
  readonly #inner: Storage;
  readonly #pace: Pace;
  readonly #slots: Slots;

  constructor(inner: Storage, limits: Limits, timers: LimitTimers = {}) {
    this.#inner = inner;
    this.#pace = paceOf(limits, timers);
    this.#slots = new Slots(limits.calls ?? Infinity);
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

  async save(kind: FileKind, name: string, bytes: Uint8Array, options?: SaveOptions): Promise<void> {
    await this.#slots.run(async () => {
      await this.#pace.upload(bytes.length);
      await this.#inner.save(kind, name, bytes, options);
    });
  }

  async saveFile(kind: FileKind, name: string, temporaryPath: string, options?: SaveOptions): Promise<void> {
    await this.#slots.run(async () => {
      await this.#pace.upload(sizeOf(temporaryPath));
      await this.#inner.saveFile(kind, name, temporaryPath, options);
    });
  }

  async load(kind: FileKind, name: string, range?: ByteRange): Promise<Uint8Array> {
    return this.#slots.run(async () => {
      const bytes = await this.#inner.load(kind, name, range);
      await this.#pace.download(bytes.length);
      return bytes;
    });
  }

  async list(kind: FileKind): Promise<StoredFile[]> {
    return this.#slots.run(() => this.#inner.list(kind));
  }

  async exists(kind: FileKind, name: string): Promise<boolean> {
    return this.#slots.run(() => this.#inner.exists(kind, name));
  }

  async remove(kind: FileKind, name: string): Promise<void> {
    await this.#slots.run(() => this.#inner.remove(kind, name));
  }

  async sync(kinds: readonly FileKind[]): Promise<void> {
    await this.#slots.run(() => this.#inner.sync(kinds));
  }
}

/** 0 for a file that is not there: the storage itself says so. */
function sizeOf(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.size ?? 0;
}

async function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  try {
    await sleepFor(ms, undefined, signal === undefined ? {} : { signal });
  } catch {
    throwIfAborted(signal);
  }
}
