import type { CairnLibrary, Client } from "../../contract/index.ts";
import type { CairnError } from "../../errors.ts";
import { NoDaemon } from "../client/connection.ts";
import { socketsToAsk } from "../../daemon/places.ts";

interface Kept {
  client: Promise<Client>;
  uses: number;
}

/** The most unused workspaces that stay open. */
const MOST = 16;

/** The library and its open workspaces, opened again if a daemon has come or gone. */
export class OpenWorkspaces {
  readonly #open: () => Promise<CairnLibrary>;
  #library: Promise<CairnLibrary> | undefined;
  /** By path, the least recently used first. */
  #kept = new Map<string, Kept>();

  constructor(open: () => Promise<CairnLibrary>) {
    this.#open = open;
  }

  library(): Promise<CairnLibrary> {
    return (this.#library ??= this.#open());
  }

  /**
   * Calls `work` with the library. Repeats the call if a daemon may have come, gone or restarted before the work began.
   */
  async withLibrary<T>(work: (library: CairnLibrary) => Promise<T>): Promise<T> {
    try {
      return await work(await this.library());
    } catch (error) {
      const { code } = error as CairnError;
      const isMissed = code === "no_daemon" || (code === "not_a_workspace" && socketsToAsk().length > 0);
      if (isMissed || error instanceof NoDaemon) this.#forget();
      if (!isMissed) throw error;
      return work(await this.library());
    }
  }

  /** Calls `work` with the workspace of a path, like `withLibrary`. Throws `not_a_workspace`. */
  with<T>(path: string, work: (client: Client) => Promise<T>): Promise<T> {
    return this.withLibrary(async (library) => {
      const kept = this.#kept.get(path) ?? { client: library.open(path), uses: 0 };
      this.#kept.delete(path);
      this.#kept.set(path, kept);
      kept.uses++;
      let client: Client | undefined;
      try {
        client = await kept.client;
        return await work(client);
      } catch (error) {
        // The workspace was moved, released or never there: the next call looks again.
        const isStale = ["conflict", "not_a_workspace", "usage"].includes((error as CairnError).code);
        if (client === undefined || isStale) this.#drop(path, kept);
        throw error;
      } finally {
        kept.uses--;
        if (this.#kept.get(path) !== kept) this.#drop(path, kept);
        for (const [oldest, each] of this.#kept)
          if (this.#kept.size > MOST && each.uses === 0) this.#drop(oldest, each);
      }
    });
  }

  async close(): Promise<void> {
    const all = [...this.#kept.values()];
    this.#kept.clear();
    await Promise.all(all.map(closed));
  }

  #forget(): void {
    this.#library = undefined;
    for (const [path, kept] of this.#kept) this.#drop(path, kept);
  }

  /** Drops a workspace, and closes it once it is unused. */
  #drop(path: string, kept: Kept): void {
    if (this.#kept.get(path) === kept) this.#kept.delete(path);
    if (kept.uses === 0) void closed(kept);
  }
}

async function closed({ client }: Kept): Promise<void> {
  try {
    await (await client).close();
  } catch {
    // The workspace was never open, or is closed already.
  }
}
