import { type CairnError, toCairnError } from "../errors.ts";

/** Errors that pass by themselves: another process works, or the next call came. */
const PASSING: ReadonlySet<string> = new Set<CairnError["code"]>(["busy", "interrupted"]);

export interface IdleSealerOptions {
  /** Milliseconds without a running call before the sealing begins. */
  idleMs: number;
  /** Number of calls that are already running. */
  calls: number;
  /** Resolves when the sealer before this one has ended. */
  before: Promise<void>;
  seal(signal: AbortSignal): Promise<unknown>;
  /** Called with the reason if points could not be sealed. Calls that need their digests report it again. */
  onWarning: ((message: string) => void) | undefined;
}

/** Seals unsealed points while no call runs; the next call stops the sealing. Does not keep the process alive. */
export class IdleSealer {
  readonly #options: IdleSealerOptions;
  #calls: number;
  #timer: NodeJS.Timeout | undefined;
  #stop = new AbortController();
  #sealing: Promise<void>;

  constructor(options: IdleSealerOptions) {
    this.#options = options;
    this.#calls = options.calls;
    this.#sealing = options.before;
    if (this.#calls === 0) this.#wait();
  }

  /** Notes the begin of a call. Resolves when a stopped sealing has released its locks. */
  async begin(): Promise<void> {
    this.#calls++;
    clearTimeout(this.#timer);
    this.#stop.abort();
    await this.#sealing;
  }

  end(): void {
    if (--this.#calls === 0) this.#wait();
  }

  /** Stops for good. Resolves when the sealing has ended. */
  async close(): Promise<void> {
    await this.begin();
  }

  #wait(): void {
    this.#timer = setTimeout(() => {
      this.#sealing = this.#sealing.then(() => this.#run());
    }, this.#options.idleMs);
    this.#timer.unref();
  }

  async #run(): Promise<void> {
    // A call came while an earlier sealing was still ending.
    if (this.#calls > 0) return;
    this.#stop = new AbortController();
    try {
      await this.#options.seal(this.#stop.signal);
    } catch (error) {
      const { code, message } = toCairnError(error);
      if (!PASSING.has(code)) this.#options.onWarning?.(message);
    }
  }
}
