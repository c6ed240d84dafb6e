import { CairnError, throwIfAborted } from "../../../errors.ts";
import type { SftpSession } from "./session.ts";

/** Opens a session. The signal ends it with `interrupted`, also later. `mayAsk`: no other session is open. */
export type Connect = (how: { signal: AbortSignal; mayAsk: boolean }) => Promise<SftpSession>;

/**
 * A few sessions, each with a process here and one on the server, which answers one request after the other. If all are
 * busy, another is opened in the background. After a lost connection the next call connects again.
 */
export class SftpPool {
  readonly #connect: Connect;
  readonly #sessions: number;
  /** Lower than `#sessions` once the server refused another session. */
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
   * Runs the work with a session that others may share. After an abort the next request of the work is `interrupted`.
   * The running request is interrupted too, by closing the session, unless others use the session.
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

  /**
   * Ends all sessions, also those that are still being opened. Running calls fail. A later call opens a session of its
   * own, and closes that session.
   */
  close(): void {
    this.#isClosed = true;
    for (const line of this.#lines) line.close();
    this.#growing?.close();
  }

  /** Returns the least used session. */
  #take(): Line {
    this.#lines = this.#lines.filter((line) => !line.hasEnded);
    const [first = this.#first(), ...others] = this.#lines;
    const line = others.reduce((least, each) => (each.users < least.users ? each : least), first);
    if (line.users > 0 && line.isOpen && this.#lines.length < this.#most && this.#growing === null) this.#grow();
    return line;
  }

  /** Opens the first session. All callers wait for it and get its error. */
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
        // The server may allow fewer sessions, but at least one.
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
      // The host's name was found before: the network must be down.
      if (!this.#wasConnected || !(error instanceof CairnError) || error.code !== "usage") throw error;
      throw new CairnError("io", error.message, { cause: error });
    }
  }
}

/** A session that is open or opening, and the number of its users. */
class Line {
  readonly opening: Promise<SftpSession>;
  readonly #ending = new AbortController();
  #session: SftpSession | null = null;
  #hasFailed = false;
  /** Users at work, and users whose caller has aborted. */
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

  /** True if the session can no longer be used. */
  get hasEnded(): boolean {
    return this.#hasFailed || this.#ending.signal.aborted || (this.#session?.failure ?? null) !== null;
  }

  get users(): number {
    return this.#going + this.#stopped;
  }

  /** Counts one more user, until the returned function is called. */
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

  /** Ends the session, or the connecting. */
  close(): void {
    if (this.#session === null) this.#ending.abort();
    else this.#session.end();
  }

  /** Cuts the session once every user that waits for an answer has aborted. */
  #stopIfLeft(): void {
    if (this.#going === 0 && this.#stopped > 0) this.#ending.abort();
  }
}
