import { createReadStream, realpathSync } from "node:fs";
import {
  type AdoptOptions,
  type CairnLibrary,
  type CallOptions,
  type Client,
  type RunOptions,
  type SaveOptions,
  type SaveResult,
  type WorkspaceInfo,
} from "../../contract/index.ts";
import type { Reference } from "../../contract/daemon.ts";
import type { Verb } from "../../contract/verb.ts";
import { advice, CairnError, line, option, see, toCairnError } from "../../errors.ts";
import { normalizeTyped } from "../../fs/paths/safe-path.ts";
import { CLIENT_VERBS, LIBRARY_VERBS } from "../../verbs/index.ts";
import { isForOwners, type Options } from "../rights/capabilities.ts";
import { Connection, type Members, NoDaemon, type Remote } from "./connection.ts";
import { notAsked } from "./service.ts";

type AnyMethod = (...given: unknown[]) => unknown;
type Local = () => Promise<CairnLibrary>;

/** The library, with what a daemon serves done by the daemon, and all else here; `local` null: by the daemon, too. */
export function servedLibrary(daemons: readonly (string | Remote)[], local: Local | null): CairnLibrary {
  const isHere = daemons.every((each) => typeof each === "string");
  const connections = daemons.map((each) => new Connection(each));
  const own = new Served(connections, { local, isHere });
  const methods: Record<string, AnyMethod> = {};
  for (const [name, verb] of Object.entries(LIBRARY_VERBS as Readonly<Record<string, Verb>>)) {
    methods[name] = async (...given) => {
      const whole = (own as unknown as Record<string, AnyMethod>)[name];
      if (whole !== undefined) return whole.apply(own, given);
      if (local !== null) return ((await local()) as unknown as Record<string, AnyMethod>)[name]!(...given);
      return own.any(async (each) => each.call(name, membersOf(verb, given), optionsOf(verb, given)));
    };
  }
  return methods as unknown as CairnLibrary;
}

/** Arguments of a verb by their names, as a daemon takes them. */
function membersOf({ takes, options }: Verb, given: readonly unknown[]): Members {
  const members = Object.fromEntries(takes.map((each, i) => [each.name, given[i]]));
  return options === null ? members : { ...members, options: given[takes.length] ?? {} };
}

function optionsOf({ takes }: Verb, given: readonly unknown[]): CallOptions {
  return (given[takes.length] ?? {}) as CallOptions;
}

/** The error of a client without a library of its own for what its daemon leaves to the caller. */
function notByDaemon(): CairnError {
  return new CairnError("unsupported", "a daemon does not offer this call", {
    hint: 'import from "cairnstate" to make the call without a daemon',
  });
}

/** True for the refusal of a folder that root's daemon keeps. */
function isKeptByDaemon(error: unknown): boolean {
  return error instanceof CairnError && error.code === "no_daemon";
}

interface Where {
  local: Local | null;
  /** True: paths of the daemon are those of this machine. */
  isHere: boolean;
}

/** Verbs of the library that a daemon is asked about. */
class Served implements Pick<CairnLibrary, "find" | "open" | "openOrAdopt" | "adopt" | "listWorkspaces"> {
  readonly #connections: readonly Connection[];
  readonly #where: Where;
  /** Daemons that are asked no more, and why. */
  readonly #lost = new Map<Connection, NoDaemon>();

  constructor(connections: Connection[], where: Where) {
    this.#connections = connections;
    this.#where = where;
  }

  #asked(): Connection[] {
    return this.#connections.filter((each) => !this.#lost.has(each));
  }

  /** Throws `busy` where a daemon hangs, since nobody knows what it serves. The next call asks it again. */
  #requireNoneHung(): void {
    for (const [connection, error] of this.#lost)
      if (error.code === "busy") {
        this.#lost.delete(connection);
        throw error;
      }
  }

  async #local(): Promise<CairnLibrary> {
    const { local } = this.#where;
    if (local === null) throw notByDaemon();
    return local();
  }

  /** The first daemon's that is there. Throws `no_daemon` or `permission` where none is, and `busy` where one hangs. */
  async any<T>(work: (connection: Connection) => Promise<T>): Promise<T> {
    let missed = notAsked();
    for (const connection of this.#asked()) {
      try {
        return await work(connection);
      } catch (error) {
        missed = this.#lose(connection, error);
        if (missed.code === "busy") throw missed;
      }
    }
    throw missed;
  }

  /**
   * Throws any error but that no daemon is there: that one is asked no more, unless the daemon alone can do the call. A daemon that
   * was named by its address is missed.
   */
  #lose(connection: Connection, error: unknown): NoDaemon {
    if (!(error instanceof NoDaemon) || !this.#where.isHere) throw error;
    if (this.#where.local !== null) this.#lost.set(connection, error);
    return error;
  }

  /** The first daemon that serves a path, and its workspace there. Throws where none is and the daemon alone can tell. */
  async #at(path: string, options: CallOptions): Promise<{ connection: Connection; found: Reference } | null> {
    const missed: NoDaemon[] = [];
    for (const connection of this.#asked()) {
      try {
        const found = (await connection.call("at", { path }, options)) as Reference | null;
        if (found !== null) return { connection, found };
      } catch (error) {
        missed.push(this.#lose(connection, error));
      }
    }
    this.#requireAny(missed);
    return null;
  }

  /** Throws why no daemon answered where nobody else can, or that one hangs. `missed`: an error for each that did not answer. */
  #requireAny(missed: readonly NoDaemon[]): void {
    if (this.#where.local !== null) return;
    const hung = missed.find(({ code }) => code === "busy");
    if (hung !== undefined) throw hung;
    if (missed.length === this.#connections.length) throw missed.at(-1) ?? notAsked();
  }

  /** The path at which this process finds a workspace. Folders of root's daemon, which answers, are none of this process. */
  async #foundHere(given: Parameters<CairnLibrary["find"]>): Promise<string | null> {
    try {
      return await (await this.#local()).find(...given);
    } catch (error) {
      if (!isKeptByDaemon(error)) throw error;
      this.#requireNoneHung();
      if (this.#asked().length > 0) return null;
      throw error;
    }
  }

  async find(...given: Parameters<CairnLibrary["find"]>): Promise<string | null> {
    const [path, options = {}] = given;
    const served = (await this.#at(path, options as CallOptions))?.found.workspace.path ?? null;
    if (served !== null && isSamePlace(served, path)) return served;
    // The nearer one counts, whoever keeps it.
    const own = this.#where.local === null ? null : await this.#foundHere(given);
    if (own === null && served === null) this.#requireNoneHung();
    return own === null || (served !== null && served.length > own.length) ? served : own;
  }

  async open(...given: Parameters<CairnLibrary["open"]>): Promise<Client> {
    const [path, options = {}] = given;
    const served = options.controlDirectory === undefined ? await this.#at(path, options) : null;
    if (served !== null && isSamePlace(served.found.workspace.path, path)) return this.#client(served);
    if (this.#where.local === null)
      throw new CairnError("not_a_workspace", `the daemon serves no workspace ${path}`, {
        hint: "open the folder of a workspace, or make this folder a workspace: `openOrAdopt`",
      });
    try {
      return await (await this.#local()).open(...given);
    } catch (error) {
      if ((error as CairnError).code === "not_a_workspace" || isKeptByDaemon(error)) this.#requireNoneHung();
      throw error;
    }
  }

  async openOrAdopt(...given: Parameters<CairnLibrary["openOrAdopt"]>): Promise<Client> {
    const [path, options = {}] = given;
    const register = async (connection: Connection): Promise<Client> =>
      this.#client({ connection, found: (await connection.call("register", { path, options }, options)) as Reference });
    if (this.#where.local === null) return this.any(register);
    if (options.controlDirectory !== undefined) return (await this.#local()).openOrAdopt(...given);
    const served = await this.#at(path, options);
    if (served !== null && isSamePlace(served.found.workspace.path, path)) return this.#client(served);
    const [connection] = this.#asked();
    const local = await this.#local();
    const known = await this.#foundHere([path]);
    if (known === null) this.#requireNoneHung();
    if (connection === undefined || (known !== null && isSamePlace(known, path))) return local.openOrAdopt(...given);
    await refuseOwnInside(local, path, options);
    return register(connection);
  }

  async adopt(...given: Parameters<CairnLibrary["adopt"]>): Promise<Client> {
    const [path, options = {}] = given;
    const client = await this.openOrAdopt(path, options);
    if (client.created) return client;
    throw new CairnError("already_exists", `${path} is a workspace already`, { hint: see("status") });
  }

  async listWorkspaces(...given: Parameters<CairnLibrary["listWorkspaces"]>): Promise<WorkspaceInfo[]> {
    const infos = new Map<string, WorkspaceInfo>();
    const own = this.#where.local === null ? [] : await (await this.#local()).listWorkspaces(...given);
    for (const each of own) infos.set(`${each.id} ${each.path}`, each);
    const missed: NoDaemon[] = [];
    for (const connection of this.#asked()) {
      try {
        const served = (await connection.call("list", {}, given[0])) as WorkspaceInfo[];
        for (const each of served) infos.set(`${each.id} ${each.path}`, each);
      } catch (error) {
        const lost = this.#lose(connection, error);
        if (lost.code === "busy") given[0]?.onWarning?.(lost.message);
        missed.push(lost);
      }
    }
    this.#requireAny(missed);
    return [...infos.values()].sort((a, b) => (a.path < b.path ? -1 : Number(a.path > b.path)));
  }

  #client({ connection, found }: { connection: Connection; found: Reference }): Client {
    return remoteClient(connection, found, this.#where);
  }
}

/** The folder is this user's to read: no daemon does it for them. */
async function* readHere(folder: string, given: readonly unknown[]): AsyncGenerator<Uint8Array> {
  const where = normalizeTyped(given[1] as string | Uint8Array);
  try {
    yield* createReadStream(Buffer.concat([Buffer.from(`${folder}/`), where]), { highWaterMark: 1 << 20 });
  } catch (error) {
    throw toCairnError(error, `read ${where.toString("utf8")}`);
  }
}

/** A daemon does not know what its callers keep themselves. Throws `refused` where a folder has such workspaces in it. */
async function refuseOwnInside(
  local: CairnLibrary,
  folder: string,
  { allow = [], signal }: AdoptOptions,
): Promise<void> {
  if (allow.includes("nested")) return;
  const own = await local.listWorkspaces(signal === undefined ? {} : { signal });
  const inside = own.find(({ path, present }) => present && path.startsWith(`${folder}/`));
  if (inside === undefined) return;
  throw new CairnError(
    "refused",
    `${folder} was not made a workspace: ${inside.path} inside it is a workspace that you keep yourself`,
    {
      hint: advice`keep both with ${option({ allow: ["nested"] })}`,
      details: { guard: "nested" },
    },
  );
}

function isSamePlace(served: string, asked: string): boolean {
  try {
    return served === asked || served === realpathSync.native(asked);
  } catch {
    return false;
  }
}

/** Makes the client of a workspace anew, with an idempotency key. */
const makers = new WeakMap<Client, (key: string) => Client>();

/** The client of the same workspace whose changing calls have an idempotency key. Throws `usage` for one that no daemon serves. */
export function keyedClient(client: Client, key: string): Client {
  const make = makers.get(client);
  if (make !== undefined) return make(key);
  throw new CairnError("usage", "the calls of this client do not run in a daemon, so they have no idempotency keys");
}

/** A client whose verbs a daemon does, but for those that it leaves to its callers. */
function remoteClient(connection: Connection, found: Reference, { local, isHere }: Where): Client {
  const { workspace } = found;
  const { path } = workspace;
  let here: Promise<Client> | undefined;
  const inPlace = async (): Promise<Client> =>
    (here ??= (async () => {
      if (local === null) throw notByDaemon();
      try {
        return await (await local()).open(path, { controlDirectory: workspace.control_directory });
      } catch (error) {
        const failed = toCairnError(error);
        if (failed.code !== "permission") throw failed;
        throw new CairnError("permission", `root's daemon keeps the points of ${path}, and does not offer this call`, {
          hint: advice`ask root to do it; or take the folder from the daemon (${line("release")}), and keep it yourself`,
          cause: error,
        });
      }
    })());
  const methods = methodsOf(connection, path);
  if (local !== null)
    for (const [name, verb] of Object.entries(CLIENT_VERBS as Readonly<Record<string, Verb>>)) {
      const served = methods[name]!;
      if (verb.how === "stream") continue;
      methods[name] = async (...given) => {
        const own = async (): Promise<unknown> =>
          ((await inPlace()) as unknown as Record<string, AnyMethod>)[name]!(...given);
        if (!isForOwners(name, optionsOf(verb, given) as Options)) return own();
        try {
          return await served(...given);
        } catch (error) {
          if (error instanceof CairnError && error.details?.["served"] === false) return own();
          throw error;
        }
      };
    }
  if (isHere) {
    const { read } = methods;
    methods["read"] = (...given) => (given[0] === null ? readHere(path, given) : read!(...given));
    // The program is the caller's, and what lies before and after it the daemon's.
    methods["run"] = async (command, options) => {
      const { run } = await import("../../operations/run.ts");
      const save = async (saving: SaveOptions): Promise<SaveResult> =>
        (await connection.call("save", { workspace: path, options: saving }, saving)) as SaveResult;
      return run(command as string[], (options ?? {}) as RunOptions, { save, root: path });
    };
  }
  const facts: Omit<Client, keyof typeof CLIENT_VERBS> & Pick<Client, "workspacePath" | "sealWhenIdle"> = {
    repoRoot: path,
    repoId: found.control_id,
    engineType: workspace.engine,
    controlDirectory: workspace.control_directory,
    workspace,
    created: found.created,
    engineReasons: found.engine_reasons,
    followedFrom: found.followed_from,
    conversion: found.conversion,
    workspacePath: () => path,
    // A daemon seals what is asked for alone: with many workspaces the rest would keep it busy for hours.
    sealWhenIdle: () => undefined,
    async close() {
      // Other clients of the library make their calls over it, too.
      connection.closeIdle();
      // One that was never opened is not closed.
      await (await here?.catch(() => undefined))?.close();
    },
    async [Symbol.asyncDispose]() {
      await this.close();
    },
  };
  const client = Object.assign(methods, facts) as unknown as Client;
  makers.set(client, (key) => remoteClient(connection.keyed(key), found, { local, isHere }));
  return client;
}

/** Whoever carries out calls by their names. */
export interface Calls {
  call(name: string, members: Members, options?: CallOptions): Promise<unknown>;
  stream(name: string, members: Members, options?: CallOptions): AsyncIterable<unknown>;
}

/** The verbs of a workspace, each done by a call. */
export function methodsOf(calls: Calls, workspace: string): Record<string, AnyMethod> {
  return Object.fromEntries(
    Object.entries(CLIENT_VERBS as Readonly<Record<string, Verb>>).map(([name, verb]) => [
      name,
      (...given: unknown[]) => {
        const members = { workspace, ...membersOf(verb, given) };
        const options = optionsOf(verb, given);
        return verb.how === "stream" ? calls.stream(name, members, options) : calls.call(name, members, options);
      },
    ]),
  );
}
