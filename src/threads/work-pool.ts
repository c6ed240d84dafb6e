import { CairnError } from "../errors.ts";

/** Words of the shared memory; the bytes of the waiting paths follow. */
const W = {
  LOCK: 0,
  IDLE: 1,
  STOP: 2,
  DONE: 3,
  SIGNAL: 4,
  USED: 5,
  COUNT: 6,
  THREADS: 7,
  PROGRESS: 8,
  WORDS: 16,
} as const;
const POOL_BYTES = 1 << 20;
const WAIT_MS = 20;

/**
 * Directories that wait for work, shared by the threads of one operation. Each thread has its own stack, and gives the
 * older half away if another thread is idle. So each directory belongs to one thread at a time.
 */
export class WorkPool {
  readonly shared: SharedArrayBuffer;
  readonly #words: Int32Array;
  readonly #bytes: Uint8Array;
  readonly #stack: Uint8Array[] = [];

  constructor(shared: SharedArrayBuffer) {
    this.shared = shared;
    this.#words = new Int32Array(shared, 0, W.WORDS);
    this.#bytes = new Uint8Array(shared, W.WORDS * 4);
  }

  /** Makes a pool for `threads` threads, with one directory: the root. */
  static create(threads: number): WorkPool {
    const pool = new WorkPool(new SharedArrayBuffer(W.WORDS * 4 + POOL_BYTES));
    pool.#words[W.THREADS] = threads;
    pool.#put(new Uint8Array(0));
    return pool;
  }

  /** Makes every thread end its work with `interrupted` at its next check. */
  stop(): void {
    Atomics.store(this.#words, W.STOP, 1);
    this.#signal();
  }

  checkStop(): void {
    if (Atomics.load(this.#words, W.STOP) !== 0) throw new CairnError("interrupted", "the work was stopped");
  }

  /** Number of entries that all threads have done. */
  get progress(): number {
    return Atomics.load(this.#words, W.PROGRESS);
  }

  advance(entries: number): void {
    Atomics.add(this.#words, W.PROGRESS, entries);
  }

  /** Adds a directory to this thread's stack. */
  push(path: Uint8Array): void {
    this.#stack.push(path);
  }

  /**
   * Gives half of this thread's stack away if another thread is idle. Call it between directories and within long ones.
   */
  share(): void {
    if (this.#stack.length < 2 || Atomics.load(this.#words, W.IDLE) === 0) return;
    if (Atomics.load(this.#words, W.COUNT) > 0) return;
    this.#locked(() => {
      let given = 0;
      const half = this.#stack.length >> 1;
      while (given < half && this.#put(this.#stack[given]!)) given++;
      this.#stack.splice(0, given);
    });
    this.#signal();
  }

  /** Returns the next directory; null if no thread has any left. Throws `interrupted`. */
  take(): Uint8Array | null {
    const own = this.#stack.pop();
    this.checkStop();
    if (own !== undefined) return own;
    let idle = false;
    for (;;) {
      const signal = Atomics.load(this.#words, W.SIGNAL);
      let found: Uint8Array | null = null;
      this.#locked(() => {
        found = this.#get();
        if (found !== null && idle) Atomics.sub(this.#words, W.IDLE, 1);
        if (found === null && !idle) {
          idle = true;
          if (Atomics.add(this.#words, W.IDLE, 1) + 1 === this.#words[W.THREADS]) Atomics.store(this.#words, W.DONE, 1);
        }
      });
      if (found !== null) return found;
      if (Atomics.load(this.#words, W.DONE) !== 0) {
        this.#signal();
        return null;
      }
      this.checkStop();
      Atomics.wait(this.#words, W.SIGNAL, signal, WAIT_MS);
    }
  }

  #signal(): void {
    Atomics.add(this.#words, W.SIGNAL, 1);
    Atomics.notify(this.#words, W.SIGNAL);
  }

  #locked(work: () => void): void {
    while (Atomics.compareExchange(this.#words, W.LOCK, 0, 1) !== 0) Atomics.wait(this.#words, W.LOCK, 1, 1);
    try {
      work();
    } finally {
      Atomics.store(this.#words, W.LOCK, 0);
      Atomics.notify(this.#words, W.LOCK, 1);
    }
  }

  /** Pushes a path: its bytes, then its length. Returns false if there is no room. */
  #put(path: Uint8Array): boolean {
    const used = this.#words[W.USED]!;
    const end = used + path.length;
    if (end + 4 > this.#bytes.length) return false;
    this.#bytes.set(path, used);
    for (let i = 0; i < 4; i++) this.#bytes[end + i] = (path.length >>> (8 * i)) & 0xff;
    this.#words[W.USED] = end + 4;
    Atomics.add(this.#words, W.COUNT, 1);
    return true;
  }

  #get(): Uint8Array | null {
    if (this.#words[W.COUNT] === 0) return null;
    const end = this.#words[W.USED]! - 4;
    let length = 0;
    for (let i = 0; i < 4; i++) length |= this.#bytes[end + i]! << (8 * i);
    const path = Uint8Array.prototype.slice.call(this.#bytes, end - length, end);
    this.#words[W.USED] = end - length;
    Atomics.sub(this.#words, W.COUNT, 1);
    return path;
  }
}
