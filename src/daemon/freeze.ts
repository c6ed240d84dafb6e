import { randomBytes } from "node:crypto";
import { CairnError } from "../errors.ts";

/**
 * Milliseconds after which a window ends by itself, and within which an application has to answer that it stands still.
 */
const WATCHDOG_MS = 60_000;
const ANSWER_MS = 5_000;

/** A line that an application gets on the connection of its offer. */
export type FreezeLine = { freeze: string } | { thaw: string };

interface Offer {
  tell(line: FreezeLine): void;
  /** Open questions to the application, by window: the application was not told their end yet. */
  tokens: Map<string, { token: string; frozen: PromiseWithResolvers<void> }>;
}

interface Window {
  workspace: string;
  watchdog: NodeJS.Timeout;
}

/**
 * Windows in which applications write nothing. An application that has offered to stand still is asked, answers, and is
 * told the end. An application that does not answer is saved like any other.
 */
export class FreezeWindows {
  readonly #offers = new Map<string, Set<Offer>>();
  readonly #windows = new Map<string, Window>();
  readonly #closed = new AbortController();
  readonly #watchdogMs: number;
  readonly #answerMs: number;

  constructor({ watchdogMs = WATCHDOG_MS, answerMs = ANSWER_MS } = {}) {
    this.#watchdogMs = watchdogMs;
    this.#answerMs = answerMs;
  }

  /** True if an application of the workspace has offered to stand still. */
  isOffered(workspace: string): boolean {
    return (this.#offers.get(workspace)?.size ?? 0) > 0;
  }

  /** Keeps an application's offer until its connection ends, then resolves. */
  async offer(workspace: string, { tell, signal }: { tell: Offer["tell"]; signal: AbortSignal }): Promise<void> {
    const offer: Offer = { tell, tokens: new Map() };
    const offers = this.#offers.get(workspace) ?? new Set();
    this.#offers.set(workspace, offers.add(offer));
    const ended = AbortSignal.any([signal, this.#closed.signal]);
    await new Promise<void>((done) => {
      if (ended.aborted) done();
      ended.addEventListener("abort", () => done(), { once: true });
    });
    offers.delete(offer);
    // The windows that wait for this application go on.
    for (const { frozen } of offer.tokens.values()) frozen.resolve();
  }

  /** Asks the applications of a workspace to stand still. Returns the window's token, and how many were asked and answered. */
  async begin(workspace: string): Promise<{ token: string; frozen: number; asked: number }> {
    const window = newToken();
    const watchdog = setTimeout(() => this.end(window), this.#watchdogMs).unref();
    this.#windows.set(window, { workspace, watchdog });
    const asked = [...(this.#offers.get(workspace) ?? [])];
    const answers = asked.map(async (offer) => {
      const own = { token: newToken(), frozen: Promise.withResolvers<void>() };
      offer.tokens.set(window, own);
      offer.tell({ freeze: own.token });
      return Promise.race([own.frozen.promise.then(() => 1), after(this.#answerMs).then(() => 0)]);
    });
    const frozen = (await Promise.all(answers)).reduce<number>((sum, each) => sum + each, 0);
    return { token: window, frozen, asked: asked.length };
  }

  /** Notes that an application stands still. Throws `not_found` for an unknown token, or for a token of a window that has ended. */
  frozen(token: string): void {
    for (const offers of this.#offers.values())
      for (const { tokens } of offers)
        for (const own of tokens.values()) if (own.token === token) return own.frozen.resolve();
    throw ended(token);
  }

  /** Tells all applications to go on. Throws `not_found` for a window that has ended. */
  end(window: string): void {
    const open = this.#windows.get(window);
    if (open === undefined) throw ended(window);
    clearTimeout(open.watchdog);
    this.#windows.delete(window);
    for (const offer of this.#offers.get(open.workspace) ?? []) {
      const own = offer.tokens.get(window);
      if (own !== undefined) offer.tell({ thaw: own.token });
      offer.tokens.delete(window);
    }
  }

  /** Runs `work` while the applications of a workspace stand still. */
  async during<T>(
    workspace: string,
    work: () => Promise<T>,
    onWarning: ((message: string) => void) | undefined,
  ): Promise<T> {
    const { token, frozen, asked } = await this.begin(workspace);
    if (frozen < asked)
      onWarning?.(`${asked - frozen} of ${asked} applications that had offered to pause did not answer in time`);
    try {
      return await work();
    } finally {
      if (this.#windows.has(token)) this.end(token);
      else onWarning?.("the applications resumed after a minute, before the save was done");
    }
  }

  close(): void {
    for (const window of this.#windows.keys()) this.end(window);
    this.#closed.abort();
  }
}

function newToken(): string {
  return randomBytes(16).toString("hex");
}

function after(ms: number): Promise<void> {
  return new Promise((done) => setTimeout(done, ms).unref());
}

function ended(token: string): CairnError {
  return new CairnError("not_found", `no window ${token.slice(0, 40)} is open`, {
    hint: "a window ends after a minute by itself",
  });
}
