import { CairnError } from "../../errors.ts";
import { SftpSession } from "./sftp-session.ts";
import type { SshConnection } from "./ssh-connection.ts";

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
  readonly #connect: () => Promise<SshConnection>;
  readonly #channels: number;
  #open: Promise<Open> | null = null;
  #wasConnected = false;

  constructor(connect: () => Promise<SshConnection>, channels: number) {
    this.#connect = connect;
    this.#channels = channels;
  }

  /** Runs the work with a channel; several may share one. */
  async run<T>(work: (session: SftpSession) => Promise<T>): Promise<T> {
    const open = await this.#opened();
    const place = takePlace(open);
    try {
      return await work(await place.session);
    } finally {
      place.users--;
    }
  }

  /** Ends the connection; calls under way are `interrupted`, and the next one connects again. */
  stop(): void {
    this.#open?.then(
      ({ connection }) => connection.stop(),
      () => undefined,
    );
  }

  /** Ends the connection; calls under way fail. */
  async close(): Promise<void> {
    const open = this.#open;
    this.#open = null;
    if (open === null) return;
    try {
      (await open).connection.close();
    } catch {
      return;
    }
  }

  async #opened(): Promise<Open> {
    if (this.#open !== null) {
      const asked = this.#open;
      const open = await asked;
      if (open.connection.failure === null) return open;
      if (this.#open === asked) this.#open = null;
    }
    if (this.#open === null) {
      const opening = this.#connected();
      this.#open = opening;
      // The next call tries again.
      opening.catch(() => {
        if (this.#open === opening) this.#open = null;
      });
    }
    return this.#open;
  }

  async #connected(): Promise<Open> {
    try {
      const connection = await this.#connect();
      this.#wasConnected = true;
      return { connection, places: [], most: this.#channels, isGrowing: false };
    } catch (error) {
      // A name that was found before is one of a network that is away.
      if (!this.#wasConnected || !(error instanceof CairnError) || error.code !== "usage") throw error;
      throw new CairnError("io", error.message, { cause: error });
    }
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
