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
}

/**
 * One connection with a few channels, opened when all others are busy: a server answers the requests of a channel one
 * after the other, and each has a window of its own. After a break the next call connects again.
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
    const place = await this.#place(open);
    try {
      return await work(await place.session);
    } finally {
      place.users--;
    }
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
      return { connection, places: [], most: this.#channels };
    } catch (error) {
      // A name that was found before is one of a network that is away.
      if (!this.#wasConnected || !(error instanceof CairnError) || error.code !== "usage") throw error;
      throw new CairnError("io", error.message, { cause: error });
    }
  }

  /** The least used channel, a new one when all are in use and there may be more. Its user is counted. */
  async #place(open: Open): Promise<Place> {
    const least = leastUsed(open.places);
    if (least !== undefined && (least.users === 0 || open.places.length >= open.most)) {
      least.users++;
      return least;
    }
    const place: Place = { session: SftpSession.open(open.connection), users: 1 };
    open.places.push(place);
    try {
      await place.session;
      return place;
    } catch (error) {
      open.places.splice(open.places.indexOf(place), 1);
      if (open.connection.failure !== null || open.places.length === 0) throw error;
      open.most = open.places.length;
      return this.#place(open);
    }
  }
}

function leastUsed(places: readonly Place[]): Place | undefined {
  let least = places[0];
  for (const place of places) if (place.users < least!.users) least = place;
  return least;
}
