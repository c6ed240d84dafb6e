import { AsyncLocalStorage } from "node:async_hooks";
import crypto from "node:crypto";
import { syncBuiltinESMExports } from "node:module";
import os from "node:os";
import timersPromises from "node:timers/promises";
import vm from "node:vm";
import { primitives } from "../../src/crypto/primitives.ts";

/**
 * A world with one seed: its clock, pauses, random numbers and the order of asynchronous steps follow from the seed alone. Code
 * runs in it by {@link World.run}; `Date`, timers, `os` and random bytes of this process belong to the world until `end`.
 */

const real = {
  Date: globalThis.Date,
  setTimeout: globalThis.setTimeout,
  clearTimeout: globalThis.clearTimeout,
  setInterval: globalThis.setInterval,
  clearInterval: globalThis.clearInterval,
  setImmediate: globalThis.setImmediate,
  random: Math.random,
  pause: timersPromises.setTimeout,
  uptime: os.uptime,
  hostname: os.hostname,
  randomBytes: crypto.randomBytes,
  fillRandom: primitives().fillRandom,
  runInNewContext: vm.runInNewContext,
};

/** When each world begins. */
const BEGIN = Date.parse("2026-03-02T08:00:00Z");

export class Host {
  readonly name: string;
  /** Milliseconds by which the host's clock differs from the world's. */
  skewMs = 0;
  /** True: none of its steps is ever done again, as after SIGKILL or a power cut. */
  isDead = false;
  /** Milliseconds of the world before which none of its steps is done. */
  sleepsUntil = 0;

  constructor(name: string) {
    this.name = name;
  }
}

interface Waiter {
  at: number;
  order: number;
  host: Host;
  run: () => void;
}

/** A process of the host, which a crash ends. */
const current = new AsyncLocalStorage<Host>();
const NOBODY = new Host("observer");
const hostNow = (): Host => current.getStore() ?? NOBODY;

export class World {
  /** Milliseconds since 1970. */
  now = BEGIN;
  /** Lines that are equal in two runs with the same seed. */
  readonly trace: string[] = [];
  readonly #waiters = new Set<Waiter>();
  #state: number;
  #order = 0;
  /** Counts steps, to tell if anything happened. */
  #steps = 0;
  #running = 0;

  constructor(seed: number) {
    this.#state = (seed * 2_654_435_761 + 0x9e37_79b9) >>> 0 || 1;
    for (let i = 0; i < 8; i++) this.random();
    this.#install();
  }

  /** Returns a number from 0 to below 1. */
  random(): number {
    this.#state ^= this.#state << 13;
    this.#state ^= this.#state >>> 17;
    this.#state ^= this.#state << 5;
    return (this.#state >>> 0) / 2 ** 32;
  }

  /** Returns a whole number from 0 to below `count`. */
  below(count: number): number {
    return Math.floor(this.random() * count);
  }

  chance(share: number): boolean {
    return this.random() < share;
  }

  log(line: string): void {
    this.trace.push(`${this.now - BEGIN} ${hostNow().name} ${line}`);
  }

  /** Waits for `ms` of the world's time, or for a host that sleeps or is dead longer. */
  pause(ms: number): Promise<void> {
    return new Promise((resolve) => this.#wait(ms, resolve));
  }

  /** Runs `work` as a process of `host`. The promise never settles if the host dies. */
  run<T>(host: Host, work: () => Promise<T>): Promise<T> {
    this.#running++;
    return current.run(host, work).finally(() => this.#running--);
  }

  /** Does `work` with random bytes that do not follow from the seed. */
  async outside<T>(work: () => Promise<T>): Promise<T> {
    const seeded = crypto.randomBytes;
    Object.assign(crypto, { randomBytes: real.randomBytes });
    syncBuiltinESMExports();
    try {
      return await work();
    } finally {
      Object.assign(crypto, { randomBytes: seeded });
      syncBuiltinESMExports();
    }
  }

  /** Ends a host: what it waits for never comes. */
  kill(host: Host): void {
    host.isDead = true;
    for (const waiter of this.#waiters) if (waiter.host === host) this.#waiters.delete(waiter);
  }

  /** Does one step after the other, the earliest first, until `done` has settled. */
  async until<T>(done: Promise<T>): Promise<T> {
    let isOver = false;
    const watched = done.finally(() => (isOver = true));
    watched.catch(() => undefined);
    await this.#settled();
    while (!isOver) {
      const next = this.#next();
      if (next === null) throw new Error("no step is left, and the work is not done");
      this.#waiters.delete(next);
      this.now = Math.max(this.now, next.at);
      this.#steps++;
      current.run(next.host, next.run);
      await this.#settled();
    }
    return watched;
  }

  /** Gives the process its own clock and random numbers back. */
  end(): void {
    Object.assign(globalThis, {
      Date: real.Date,
      setTimeout: real.setTimeout,
      clearTimeout: real.clearTimeout,
      setInterval: real.setInterval,
      clearInterval: real.clearInterval,
    });
    Math.random = real.random;
    delete (performance as { now?: unknown }).now;
    Object.assign(timersPromises, { setTimeout: real.pause });
    Object.assign(os, { uptime: real.uptime, hostname: real.hostname });
    Object.assign(crypto, { randomBytes: real.randomBytes });
    Object.assign(vm, { runInNewContext: real.runInNewContext });
    primitives().fillRandom = real.fillRandom;
    syncBuiltinESMExports();
    this.#waiters.clear();
  }

  #wait(ms: number, run: () => void): Waiter | null {
    const host = hostNow();
    if (host.isDead) return null;
    const waiter = { at: this.now + Math.max(0, ms), order: this.random() + this.#order++ * 1e-9, host, run };
    this.#waiters.add(waiter);
    this.#steps++;
    return waiter;
  }

  #next(): Waiter | null {
    let best: Waiter | null = null;
    let bestAt = Infinity;
    for (const waiter of this.#waiters) {
      const at = Math.max(waiter.at, waiter.host.sleepsUntil);
      if (at < bestAt || (at === bestAt && waiter.order < best!.order)) [best, bestAt] = [waiter, at];
    }
    if (best !== null) best.at = bestAt;
    return best;
  }

  /** Resolves when everything that runs waits for the world. */
  async #settled(): Promise<void> {
    for (let quiet = 0, steps = this.#steps; quiet < 3;) {
      await new Promise<void>((resolve) => void real.setImmediate(resolve));
      const isBusy = process
        .getActiveResourcesInfo()
        .some((kind) => /^(?:FSReq|Zlib|Zstd|.*Job|MessagePort)/.test(kind));
      quiet = isBusy || steps !== this.#steps ? 0 : quiet + 1;
      steps = this.#steps;
    }
  }

  #install(): void {
    const clock = (): number => Math.round(this.now + hostNow().skewMs);
    class WorldDate extends real.Date {
      constructor(...args: [] | [number]) {
        if (args.length === 0) super(clock());
        else super(...args);
      }
      static override now(): number {
        return clock();
      }
    }
    const later = (run: () => void, ms = 0, isEach = false): object => {
      const timer = { waiter: null as Waiter | null, unref: () => timer, ref: () => timer, hasRef: () => false };
      const wait = (): void => {
        timer.waiter = this.#wait(ms, () => {
          if (isEach) wait();
          run();
        });
      };
      wait();
      return timer;
    };
    const clear = (timer: { waiter?: Waiter | null } | undefined): void => {
      if (timer?.waiter) this.#waiters.delete(timer.waiter);
    };
    Object.assign(globalThis, {
      Date: WorldDate,
      setTimeout: (run: () => void, ms?: number) => later(run, ms),
      setInterval: (run: () => void, ms?: number) => later(run, ms, true),
      clearTimeout: clear,
      clearInterval: clear,
    });
    Math.random = () => this.random();
    performance.now = () => this.now - BEGIN;
    const pause = async (ms = 0, value?: unknown, { signal }: { signal?: AbortSignal } = {}): Promise<unknown> =>
      new Promise((resolve, reject) => {
        const waiter = this.#wait(ms, () => resolve(value));
        signal?.addEventListener("abort", () => {
          if (waiter !== null) this.#waiters.delete(waiter);
          reject(signal.reason as Error);
        });
      });
    Object.assign(timersPromises, { setTimeout: pause });
    const fill = (bytes: Uint8Array): void => {
      for (let i = 0; i < bytes.length; i++) bytes[i] = this.below(256);
    };
    Object.assign(os, { uptime: () => (this.now - BEGIN) / 1000 + 1_000_000, hostname: () => hostNow().name });
    Object.assign(crypto, {
      randomBytes: (length: number) => {
        const bytes = Buffer.alloc(length);
        fill(bytes);
        return bytes;
      },
    });
    // A prune asks for a whole collection of garbage, which takes longer than all its other work here.
    Object.assign(vm, { runInNewContext: () => () => undefined });
    primitives().fillRandom = (target, offset, length) => fill(target.bytes.subarray(offset, offset + length));
    syncBuiltinESMExports();
  }
}
