import { CairnError, throwIfAborted } from "../../../errors.ts";
import type { SftpSession } from "./session.ts";

/** Ends the session with `interrupted` when the signal fires, also later. `mayAsk`: no other session is open. */
export type Connect = (how: { signal: AbortSignal; mayAsk: boolean }) => Promise<SftpSession>;

/**
 * A few sessions, each a process here and one on the server, which answers one request of it after the other. A further one
 * is opened beside the work when all are busy, so that nobody waits for it. After a break the next call connects again.
 */
export class SftpPool {
  readonly #connect: Connect;
  readonly #sessions: number;
  /** Fewer once the server refused a further one. */
  #most: number;
  #lines: Line[] = [];
  #growing: Line | null = null;
  #wasConnected = false;
  #isClosed = false;

  constructor(connect: Connect, sessions: number) {
    this.#connect = connect;
    this.#sessions = sessions;
    this.#most = sessions;
  }

  /**
   * Runs the work with a session; several may share one. Once the signal fires the work's next request is `interrupted`; the
   * one under way is so too, with the session, when nobody else is at work on that.
   */
  async run<T>(work: (session: SftpSession) => Promise<T>, signal?: AbortSignal): Promise<T> {
    throwIfAborted(signal);
    const line = this.#take();
    const leave = line.enter(signal);
    try {
      return await work((await line.opening).until(signal));
    } finally {
      leave();
      if (this.#isClosed && line.users === 0) line.close();
    }
  }

  /** Ends all sessions, also those that are being made; calls under way fail. One that is made for a later call ends with that. */
  close(): void {
    this.#isClosed = true;
    for (const line of this.#lines) line.close();
    this.#growing?.close();
  }

  /** The least used session. */
  #take(): Line {
    this.#lines = this.#lines.filter((line) => !line.hasEnded);
    const [first = this.#first(), ...others] = this.#lines;
    const line = others.reduce((least, each) => (each.users < least.users ? each : least), first);
    if (line.users > 0 && line.isOpen && this.#lines.length < this.#most && this.#growing === null) this.#grow();
    return line;
  }

  /** Everybody waits for it, and for its failure. */
  #first(): Line {
    this.#most = this.#sessions;
    const line = new Line((signal) => this.#opened(signal, true));
    this.#lines.push(line);
    return line;
  }

  #grow(): void {
    const line = new Line((signal) => this.#opened(signal, false));
    this.#growing = line;
    line.opening.then(
      () => {
        this.#growing = null;
        this.#lines.push(line);
        if (this.#isClosed) line.close();
      },
      () => {
        // A server may allow fewer, one at least.
        this.#growing = null;
        this.#most = Math.max(1, this.#lines.length);
      },
    );
  }

  async #opened(signal: AbortSignal, mayAsk: boolean): Promise<SftpSession> {
    try {
      const session = await this.#connect({ signal, mayAsk });
      this.#wasConnected = true;
      return session;
    } catch (error) {
      // A name that was found before is one of a network that is away.
      if (!this.#wasConnected || !(error instanceof CairnError) || error.code !== "usage") throw error;
      throw new CairnError("io", error.message, { cause: error });
    }
  }
}

/** A session, or one that is being made, and how many use it. */
class Line {
  readonly opening: Promise<SftpSession>;
  readonly #ending = new AbortController();
  #session: SftpSession | null = null;
  #hasFailed = false;
  /** At work, and those whose caller stopped meanwhile. */
  #going = 0;
  #stopped = 0;

  constructor(connect: (signal: AbortSignal) => Promise<SftpSession>) {
    this.opening = connect(this.#ending.signal);
    this.opening.then(
      (session) => {
        this.#session = session;
      },
      () => {
        this.#hasFailed = true;
      },
    );
  }

  get isOpen(): boolean {
    return this.#session !== null;
  }

  /** True when it cannot be used any more. */
  get hasEnded(): boolean {
    return this.#hasFailed || this.#ending.signal.aborted || (this.#session?.failure ?? null) !== null;
  }

  get users(): number {
    return this.#going + this.#stopped;
  }

  /** Counts one more, until what it gives is called. */
  enter(signal: AbortSignal | undefined): () => void {
    let hasStopped = false;
    const stop = (): void => {
      hasStopped = true;
      this.#going--;
      this.#stopped++;
      this.#stopIfLeft();
    };
    this.#going++;
    signal?.addEventListener("abort", stop, { once: true });
    return () => {
      signal?.removeEventListener("abort", stop);
      if (hasStopped) this.#stopped--;
      else this.#going--;
      this.#stopIfLeft();
    };
  }

  /** Says goodbye; ends connecting. */
  close(): void {
    if (this.#session === null) this.#ending.abort();
    else this.#session.end();
  }

  /** Cuts the session when all who wait for an answer have stopped. */
  #stopIfLeft(): void {
    if (this.#going === 0 && this.#stopped > 0) this.#ending.abort();
  }
}
