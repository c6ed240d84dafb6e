import { type CairnError, toCairnError } from "../errors.ts";

/** Codes of errors that are tried again by themselves: somebody else is at work, or the next call came. */
const PASSING: ReadonlySet<string> = new Set<CairnError["code"]>(["busy", "interrupted"]);

export interface IdleSealerOptions {
  /** Milliseconds for which no call may have been under way. */
  idleMs: number;
  /** Number of calls that are under way already. */
  calls: number;
  /** Resolves when the one before it holds nothing any more. */
  before: Promise<void>;
  seal(signal: AbortSignal): Promise<unknown>;
  /** Told why points could not be sealed; whatever needs their digests says it again. */
  onWarning: ((message: string) => void) | undefined;
}

/** Seals what is only held while no call is under way; the next call stops it. Keeps no process from ending. */
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

  /** A call begins; resolves when it finds nothing held by a sealing that it has stopped. */
  async begin(): Promise<void> {
    this.#calls++;
    clearTimeout(this.#timer);
    this.#stop.abort();
    await this.#sealing;
  }

  /** A call has ended. */
  end(): void {
    if (--this.#calls === 0) this.#wait();
  }

  /** For good; resolves when nothing goes on any more. */
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
    // One came while an earlier sealing was still ending.
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
