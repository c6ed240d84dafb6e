import { CairnError, throwIfAborted } from "../../errors.ts";
import { SftpSession } from "./sftp-session.ts";
import type { SshConnection } from "./ssh-connection.ts";

/** Ends connecting with `interrupted` when the signal fires. */
export type Connect = (signal: AbortSignal) => Promise<SshConnection>;

interface Place {
  readonly session: Promise<SftpSession>;
  users: number;
}

interface Open {
  readonly connection: SshConnection;
  readonly places: Place[];
  /** Fewer once the server refused a further one. */
  most: number;
  isGrowing: boolean;
}

/**
 * One connection with a few channels: a server answers the requests of a channel one after the other, and each has a
 * window of its own. A further one is opened beside the work when all are busy, so that nobody waits for it. After a
 * break the next call connects again.
 */
export class SftpPool {
  readonly #connect: Connect;
  readonly #channels: number;
  #line: Line | null = null;
  #wasConnected = false;
  #isClosed = false;

  constructor(connect: Connect, channels: number) {
    this.#connect = connect;
    this.#channels = channels;
  }

  /**
   * Runs the work with a channel; several may share one. Once the signal fires the work's next request is `interrupted`; the
   * one under way is so too, with the connection, when nobody else is at work on that.
   */
  async run<T>(work: (session: SftpSession) => Promise<T>, signal?: AbortSignal): Promise<T> {
    throwIfAborted(signal);
    const line = this.#current();
    const leave = line.enter(signal);
    try {
      const place = takePlace(await line.opening);
      try {
        return await work((await place.session).until(signal));
      } finally {
        place.users--;
      }
    } finally {
      leave();
      if (this.#isClosed && !line.isUsed) this.#drop(line);
    }
  }

  /** Ends the connection, also one that is being made; calls under way fail. One that is made for a later call ends with that. */
  async close(): Promise<void> {
    this.#isClosed = true;
    if (this.#line !== null) this.#drop(this.#line);
  }

  #drop(line: Line): void {
    if (this.#line === line) this.#line = null;
    line.close();
  }

  #current(): Line {
    if (this.#line?.hasEnded === false) return this.#line;
    const line = new Line(async (signal) => this.#connected(signal));
    this.#line = line;
    return line;
  }

  async #connected(signal: AbortSignal): Promise<Open> {
    try {
      const connection = await this.#connect(signal);
      this.#wasConnected = true;
      return { connection, places: [], most: this.#channels, isGrowing: false };
    } catch (error) {
      // A name that was found before is one of a network that is away.
      if (!this.#wasConnected || !(error instanceof CairnError) || error.code !== "usage") throw error;
      throw new CairnError("io", error.message, { cause: error });
    }
  }
}

/** A connection, or one that is being made, and how many use it. */
class Line {
  readonly opening: Promise<Open>;
  readonly #connecting = new AbortController();
  #connection: SshConnection | null = null;
  #hasFailed = false;
  /** At work, and those whose caller stopped meanwhile. */
  #going = 0;
  #stopped = 0;

  constructor(connect: (signal: AbortSignal) => Promise<Open>) {
    this.opening = connect(this.#connecting.signal);
    this.opening.then(
      ({ connection }) => {
        this.#connection = connection;
        if (this.#connecting.signal.aborted) connection.stop();
      },
      () => {
        this.#hasFailed = true;
      },
    );
  }

  /** True when it cannot be used any more. */
  get hasEnded(): boolean {
    return this.#hasFailed || this.#connecting.signal.aborted || (this.#connection?.failure ?? null) !== null;
  }

  get isUsed(): boolean {
    return this.#going + this.#stopped > 0;
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
    if (this.#connection === null) this.#connecting.abort();
    else this.#connection.close();
  }

  /** What is under way is cut when those who wait for it have all stopped. */
  #stopIfLeft(): void {
    if (this.#going > 0 || this.#stopped === 0) return;
    this.#connecting.abort();
    this.#connection?.stop();
  }
}

/** The least used channel; its user is counted. */
function takePlace(open: Open): Place {
  const place = leastUsed(open.places) ?? newPlace(open);
  if (place.users > 0 && open.places.length < open.most && !open.isGrowing) void grow(open);
  place.users++;
  return place;
}

/** The first one: everybody waits for it, and for its failure. */
function newPlace(open: Open): Place {
  const place: Place = { session: SftpSession.open(open.connection), users: 0 };
  open.places.push(place);
  place.session.catch(() => open.places.splice(open.places.indexOf(place), 1));
  return place;
}

async function grow(open: Open): Promise<void> {
  open.isGrowing = true;
  try {
    const session = await SftpSession.open(open.connection);
    open.places.push({ session: Promise.resolve(session), users: 0 });
  } catch {
    // A server may allow fewer, one at least.
    open.most = open.places.length;
  } finally {
    open.isGrowing = false;
  }
}

function leastUsed(places: readonly Place[]): Place | undefined {
  let least = places[0];
  for (const place of places) if (place.users < least!.users) least = place;
  return least;
}
