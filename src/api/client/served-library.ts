import { inCalls } from "../../contract/checked-calls.ts";
import type {
  CairnLibrary,
  CallOptions,
  Client,
  InitOptions,
  RunOptions,
  SaveOptions,
  SaveResult,
  WorkspaceInfo,
} from "../../contract/index.ts";
import type { Verb } from "../../contract/verb.ts";
import { advice, CairnError, line, option, see, toCairnError } from "../../errors.ts";
import { normalizeTyped } from "../../fs/paths/safe-path.ts";
import { CLIENT_VERBS, LIBRARY_VERBS } from "../../verbs/index.ts";
import type { Reference } from "../../verbs/schemas.ts";
import { isForOwners, type Options } from "../rights/capabilities.ts";
import { Connection, type Members, NoDaemon, type Remote } from "./connection.ts";
import { notAsked } from "./service.ts";
import { createReadStream, realpathSync } from "node:fs";

type AnyMethod = (...given: unknown[]) => unknown;
type Local = () => Promise<CairnLibrary>;

/**
 * The library. A daemon makes calls on the workspaces that it serves, `local` all others. `local` null: the daemon
 * makes all calls.
 */
export function servedLibrary(daemons: readonly (string | Remote)[], local: Local | null): CairnLibrary {
  const isHere = daemons.every((each) => typeof each === "string");
  const connections = daemons.map((each) => new Connection(each));
  const own = new Served(connections, { local, isHere });
  const methods: Record<string, AnyMethod> = {};
  // A verb is loaded when it is called: a hook of an agent waits for each.
  for (const name of Object.keys(LIBRARY_VERBS)) {
    methods[name] = async (...given) => {
      const whole = (own as unknown as Record<string, AnyMethod>)[name];
      if (whole !== undefined) return whole.apply(own, given);
      if (local !== null) return ((await local()) as unknown as Record<string, AnyMethod>)[name]!(...given);
      const verb = (LIBRARY_VERBS as Readonly<Record<string, Verb>>)[name]!;
      return own.any(async (each) => each.call(name, membersOf(verb, given), optionsOf(verb, given)));
    };
  }
  return methods as unknown as CairnLibrary;
}

function membersOf({ takes, options }: Verb, given: readonly unknown[]): Members {
  const members = Object.fromEntries(takes.map((each, i) => [each.name, given[i]]));
  return options === null ? members : { ...members, options: given[takes.length] ?? {} };
}

function optionsOf({ takes }: Verb, given: readonly unknown[]): CallOptions {
  return (given[takes.length] ?? {}) as CallOptions;
}

/** The error of a client without its own library, for a call that the daemon leaves to the client. */
function notByDaemon(): CairnError {
  return new CairnError("unsupported", "a daemon does not offer this call", {
    hint: 'import from "cairnstate" to make the call without a daemon',
  });
}

function isKeptByDaemon(error: unknown): boolean {
  return error instanceof CairnError && error.code === "no_daemon";
}

interface Where {
  local: Local | null;
  /** True: the daemon's paths are paths of this machine. */
  isHere: boolean;
}

/** Verbs of the library that need an answer of a daemon first. */
class Served implements Pick<CairnLibrary, "find" | "open" | "openOrInit" | "init" | "listWorkspaces"> {
  readonly #connections: readonly Connection[];
  readonly #where: Where;
  /** Daemons that get no more calls, each with the reason. */
  readonly #lost = new Map<Connection, NoDaemon>();

  constructor(connections: Connection[], where: Where) {
    this.#connections = connections;
    this.#where = where;
  }

  #asked(): Connection[] {
    return this.#connections.filter((each) => !this.#lost.has(each));
  }

  /** Throws `busy` if a daemon hangs, because its workspaces are unknown. The next call asks it again. */
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

  /** Makes the call with the first daemon that answers. Throws `no_daemon` or `permission` if none does, and `busy` if one hangs. */
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
   * Notes that a daemon does not answer, so that it gets no more calls, unless only the daemon can make the call or the
   * caller named it. Throws every other error.
   */
  #lose(connection: Connection, error: unknown): NoDaemon {
    if (!(error instanceof NoDaemon) || !this.#where.isHere) throw error;
    if (this.#where.local !== null) this.#lost.set(connection, error);
    return error;
  }

  /** Returns the first daemon that serves a path, and its workspace there. Throws if no daemon answers and only a daemon can tell. */
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

  /**
   * Throws the reason why no daemon answered, or that one hangs, if there is no local library. `missed`: an error of
   * each daemon that did not answer.
   */
  #requireAny(missed: readonly NoDaemon[]): void {
    if (this.#where.local !== null) return;
    const hung = missed.find(({ code }) => code === "busy");
    if (hung !== undefined) throw hung;
    if (missed.length === this.#connections.length) throw missed.at(-1) ?? notAsked();
  }

  /** The path at which this process finds a workspace; null for a folder of root's daemon, which answers for that folder. */
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
    // The nearer workspace counts, whether the daemon or this process keeps it.
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
        hint: "open the folder of a workspace, or make this folder a workspace: `openOrInit`",
      });
    try {
      return await (await this.#local()).open(...given);
    } catch (error) {
      if ((error as CairnError).code === "not_a_workspace" || isKeptByDaemon(error)) this.#requireNoneHung();
      throw error;
    }
  }

  async openOrInit(...given: Parameters<CairnLibrary["openOrInit"]>): Promise<Client> {
    const [path, { selfContained = false, ...options } = {}] = given;
    const register = async (connection: Connection): Promise<Client> =>
      this.#client({ connection, found: (await connection.call("register", { path, options }, options)) as Reference });
    if (this.#where.local === null && !selfContained) return this.any(register);
    if (selfContained || options.controlDirectory !== undefined) return (await this.#local()).openOrInit(...given);
    const served = await this.#at(path, options);
    if (served !== null && isSamePlace(served.found.workspace.path, path)) return this.#client(served);
    const [connection] = this.#asked();
    const local = await this.#local();
    const known = await this.#foundHere([path]);
    if (known === null) this.#requireNoneHung();
    if (connection === undefined || (known !== null && isSamePlace(known, path))) return local.openOrInit(...given);
    await refuseOwnInside(local, path, options);
    return register(connection);
  }

  async init(...given: Parameters<CairnLibrary["init"]>): Promise<Client> {
    const [path, options] = given;
    if (options?.selfContained === true) return (await this.#local()).init(...given);
    const client = await this.openOrInit(path, options);
    if (client.created) return client;
    throw new CairnError("already_exists", `${path} is a workspace already`, { hint: inCalls(see("status")) });
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

/** This user may read the folder, so no daemon is needed. */
async function* readHere(folder: string, given: readonly unknown[]): AsyncGenerator<Uint8Array> {
  const where = normalizeTyped(given[1] as string | Uint8Array);
  try {
    yield* createReadStream(Buffer.concat([Buffer.from(`${folder}/`), where]), { highWaterMark: 1 << 20 });
  } catch (error) {
    throw toCairnError(error, `read ${where.toString("utf8")}`);
  }
}

/** Throws `refused` if a folder contains workspaces that this user keeps without the daemon: the daemon does not know them. */
async function refuseOwnInside(
  local: CairnLibrary,
  folder: string,
  { allow = [], signal }: InitOptions,
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

/** Answers of a daemon, which tells of these calls by its events. */
const ofDaemons = new WeakSet<object>();

/** True if a daemon made the call of a client that has this answer. */
export function isOfDaemon(answer: unknown): boolean {
  return typeof answer === "object" && answer !== null && ofDaemons.has(answer);
}

/** Makes another client of the same workspace, with an idempotency key. */
const makers = new WeakMap<Client, (key: string) => Client>();

/**
 * Returns a client of the same workspace with an idempotency key for changing calls. Throws `usage` for a client
 * without a daemon.
 */
export function keyedClient(client: Client, key: string): Client {
  const make = makers.get(client);
  if (make !== undefined) return make(key);
  throw new CairnError("usage", "the calls of this client do not run in a daemon, so they have no idempotency keys");
}

/** Returns a client whose verbs run in a daemon, except those that the daemon leaves to the client. */
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
  const methods = local === null ? methodsOf(connection, path) : servedOrOwn(methodsOf(connection, path), inPlace);
  if (isHere) {
    const { read } = methods;
    methods["read"] = (...given) => (given[0] === null ? readHere(path, given) : read!(...given));
    // Root's daemon has another list of covered folders than its caller.
    for (const name of ["fork", "release"]) {
      const served = methods[name]!;
      methods[name] = async (...given) => {
        const result = (await served(...given)) as { workspace: { path: string } };
        const { passCover } = await import("../../agents/cover.ts");
        const other = result.workspace.path;
        await (name === "fork" ? passCover(process.env, path, other) : passCover(process.env, other));
        return result;
      };
    }
    // The program runs in the caller; the saves before and after it run in the daemon.
    methods["run"] = async (command, options) => {
      const { run } = await import("../../change/run.ts");
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
    // The daemon seals only requested points: sealing all points of many workspaces would keep it busy for hours.
    sealWhenIdle: () => undefined,
    async close() {
      // Other clients of the library use the same connection.
      connection.closeIdle();
      // A local client that was never opened needs no close.
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

/** Returns methods that the daemon carries out, or the client that `inPlace` opens if the daemon leaves a call to it. */
function servedOrOwn(served: Record<string, AnyMethod>, inPlace: () => Promise<Client>): Record<string, AnyMethod> {
  const own = async (name: string, given: unknown[]): Promise<unknown> =>
    ((await inPlace()) as unknown as Record<string, AnyMethod>)[name]!(...given);
  const answered = async (name: string, given: unknown[]): Promise<unknown> => {
    const options = optionsOf(clientVerb(name), given);
    if (isOpenHere(options) || !isForOwners(name, options as Options)) return own(name, given);
    try {
      const answer = await served[name]!(...given);
      if (typeof answer === "object" && answer !== null) ofDaemons.add(answer);
      return answer;
    } catch (error) {
      if (error instanceof CairnError && error.details?.["served"] === false) return own(name, given);
      throw error;
    }
  };
  const streamed = async function* (name: string, given: unknown[]): AsyncGenerator {
    const isOwn = isOpenHere(optionsOf(clientVerb(name), given));
    yield* (isOwn ? await own(name, given) : served[name]!(...given)) as AsyncIterable<unknown>;
  };
  return Object.fromEntries(
    Object.keys(served).map((name) => [
      name,
      (...given: unknown[]) => (clientVerb(name).how === "stream" ? streamed(name, given) : answered(name, given)),
    ]),
  );
}

const clientVerb = (name: string): Verb => (CLIENT_VERBS as Readonly<Record<string, Verb>>)[name]!;

/** True if a call takes a repository that is open in this process: no daemon can make the call. */
function isOpenHere(options: object): boolean {
  return "repository" in options && typeof options.repository === "object";
}

/** Makes calls by their names. */
export interface Calls {
  call(name: string, members: Members, options?: CallOptions): Promise<unknown>;
  stream(name: string, members: Members, options?: CallOptions): AsyncIterable<unknown>;
}

/** Returns the verbs of a workspace; each makes a call. */
export function methodsOf(calls: Calls, workspace: string): Record<string, AnyMethod> {
  return Object.fromEntries(
    Object.keys(CLIENT_VERBS).map((name) => [
      name,
      (...given: unknown[]) => {
        const verb = clientVerb(name);
        const members = { workspace, ...membersOf(verb, given) };
        const options = optionsOf(verb, given);
        if (isOpenHere(options)) throw notByDaemon();
        return verb.how === "stream" ? calls.stream(name, members, options) : calls.call(name, members, options);
      },
    ]),
  );
}
