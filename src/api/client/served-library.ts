import { createReadStream, existsSync, realpathSync } from "node:fs";
import {
  type AdoptOptions,
  type CairnLibrary,
  type CallOptions,
  CLIENT_VERBS,
  type Client,
  type Conversion,
  type EngineReason,
  LIBRARY_VERBS,
  type RunOptions,
  type SaveOptions,
  type SaveResult,
  type WorkspaceInfo,
  type WorkspaceRef,
} from "../../contract/index.ts";
import type { Verb } from "../../contract/verb.ts";
import { SYSTEM_SOCKET, userSocket } from "../../daemon/places.ts";
import { CairnError, toCairnError } from "../../errors.ts";
import { absolutePath } from "../../fs/users.ts";
import type { ControlId } from "../../ids.ts";
import { Connection, type Members, NoDaemon } from "./connection.ts";

/** A workspace as a daemon names it. */
export interface Reference {
  workspace: WorkspaceRef;
  control_id: ControlId;
  created: boolean;
  engine_reasons: EngineReason[];
  followed_from: string | null;
  conversion: Conversion | null;
}

type AnyMethod = (...given: unknown[]) => unknown;
type Local = () => Promise<CairnLibrary>;

/** Sockets on which a daemon may answer, the user's own first. `CAIRN_SOCKET` names another; `none`: no daemon is asked. */
export function socketsToAsk(env = process.env): string[] {
  if (env["CAIRN_SOCKET"] === "none") return [];
  const named = absolutePath(env, "CAIRN_SOCKET");
  const all = named === null ? [userSocket(env), SYSTEM_SOCKET] : [named];
  return all.filter((each) => each !== null && existsSync(each)) as string[];
}

/** The library, with what a daemon serves done by the daemon, and all else here. */
export function servedLibrary(sockets: readonly string[], local: Local): CairnLibrary {
  const connections = sockets.map((each) => new Connection(each));
  const own = new Served(connections, local);
  const methods: Record<string, AnyMethod> = {};
  for (const name of Object.keys(LIBRARY_VERBS)) {
    methods[name] = async (...given) => {
      const whole = (own as unknown as Record<string, AnyMethod>)[name];
      if (whole !== undefined) return whole.apply(own, given);
      return ((await local()) as unknown as Record<string, AnyMethod>)[name]!(...given);
    };
  }
  return methods as unknown as CairnLibrary;
}

/** Verbs of the library that a daemon is asked about. */
class Served implements Pick<CairnLibrary, "find" | "open" | "openOrAdopt" | "adopt" | "listWorkspaces"> {
  readonly #connections: Connection[];
  readonly #local: Local;

  constructor(connections: Connection[], local: Local) {
    this.#connections = connections;
    this.#local = local;
  }

  /** The first daemon that serves a path, and its workspace there. */
  async #at(path: string, options: CallOptions): Promise<{ connection: Connection; found: Reference } | null> {
    for (const connection of this.#connections.slice()) {
      try {
        const found = (await connection.call("at", { path }, options)) as Reference | null;
        if (found !== null) return { connection, found };
      } catch (error) {
        if (!(error instanceof NoDaemon)) throw error;
        this.#connections.splice(this.#connections.indexOf(connection), 1);
      }
    }
    return null;
  }

  async find(...given: Parameters<CairnLibrary["find"]>): Promise<string | null> {
    const [path, options = {}] = given;
    const served = (await this.#at(path, options as CallOptions))?.found.workspace.path ?? null;
    if (served !== null && isSamePlace(served, path)) return served;
    // The nearer one counts, whoever keeps it.
    const own = await (await this.#local()).find(...given);
    return own === null || (served !== null && served.length > own.length) ? served : own;
  }

  async open(...given: Parameters<CairnLibrary["open"]>): Promise<Client> {
    const [path, options = {}] = given;
    const served = options.controlDirectory === undefined ? await this.#at(path, options) : null;
    if (served !== null && isSamePlace(served.found.workspace.path, path)) return this.#client(served);
    return (await this.#local()).open(...given);
  }

  async openOrAdopt(...given: Parameters<CairnLibrary["openOrAdopt"]>): Promise<Client> {
    const [path, options = {}] = given;
    if (options.controlDirectory !== undefined) return (await this.#local()).openOrAdopt(...given);
    const served = await this.#at(path, options);
    if (served !== null && isSamePlace(served.found.workspace.path, path)) return this.#client(served);
    const [connection] = this.#connections;
    const local = await this.#local();
    const known = await local.find(path);
    if (connection === undefined || (known !== null && isSamePlace(known, path))) return local.openOrAdopt(...given);
    await refuseOwnInside(local, path, options);
    const found = (await connection.call("register", { path, options }, options)) as Reference;
    return this.#client({ connection, found });
  }

  async adopt(...given: Parameters<CairnLibrary["adopt"]>): Promise<Client> {
    const [path, options = {}] = given;
    const client = await this.openOrAdopt(path, options);
    if (client.created) return client;
    throw new CairnError("already_exists", `${path} is a workspace already`, { hint: "see `cairn status`" });
  }

  async listWorkspaces(...given: Parameters<CairnLibrary["listWorkspaces"]>): Promise<WorkspaceInfo[]> {
    const infos = new Map<string, WorkspaceInfo>();
    for (const each of await (await this.#local()).listWorkspaces(...given)) infos.set(`${each.id} ${each.path}`, each);
    for (const connection of this.#connections) {
      try {
        const served = (await connection.call("list", {}, given[0])) as WorkspaceInfo[];
        for (const each of served) infos.set(`${each.id} ${each.path}`, each);
      } catch (error) {
        if (!(error instanceof NoDaemon)) throw error;
      }
    }
    return [...infos.values()].sort((a, b) => (a.path < b.path ? -1 : Number(a.path > b.path)));
  }

  #client({ connection, found }: { connection: Connection; found: Reference }): Client {
    return remoteClient(connection, found, this.#local);
  }
}

/** The folder is this user's to read: no daemon does it for them. */
async function* readHere(folder: string, given: readonly unknown[]): AsyncGenerator<Uint8Array> {
  const where = Buffer.from(given[1] as string | Uint8Array);
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
  throw new CairnError("refused", `${folder} is not kept: ${inside.path} lies in it, which you keep yourself`, {
    hint: "keep both with --allow nested",
    details: { guard: "nested" },
  });
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
  throw new CairnError("usage", "no daemon does the calls of this client, so they have no idempotency keys");
}

/** A client whose verbs a daemon does, but for those that it leaves to its callers. */
function remoteClient(connection: Connection, found: Reference, local: Local): Client {
  const { workspace } = found;
  const { path } = workspace;
  let here: Promise<Client> | undefined;
  const inPlace = async (): Promise<Client> =>
    (here ??= (async () => {
      try {
        return await (await local()).open(path, { controlDirectory: workspace.control_directory });
      } catch (error) {
        const failed = toCairnError(error);
        if (failed.code !== "permission") throw failed;
        throw new CairnError(
          "permission",
          `root's daemon keeps the points of ${path}, and does not do this for its callers`,
          {
            hint: "have root do it; or have the daemon stop keeping it: cairn release, and keep it yourself",
            cause: error,
          },
        );
      }
    })());
  const methods: Record<string, AnyMethod> = {};
  for (const [name, verb] of Object.entries(CLIENT_VERBS as Readonly<Record<string, Verb>>)) {
    const members = (given: readonly unknown[]): Members => ({
      workspace: path,
      ...Object.fromEntries(verb.takes.map((each, i) => [each.name, given[i]])),
      ...(verb.options === null ? {} : { options: given[verb.takes.length] ?? {} }),
    });
    const options = (given: readonly unknown[]): CallOptions => (given[verb.takes.length] ?? {}) as CallOptions;
    if (verb.how === "stream") {
      methods[name] = (...given) => connection.stream(name, members(given), options(given));
      continue;
    }
    methods[name] = async (...given) => {
      try {
        return await connection.call(name, members(given), options(given));
      } catch (error) {
        const isOurs = error instanceof CairnError && error.details?.["served"] === false;
        if (!isOurs) throw error;
        return ((await inPlace()) as unknown as Record<string, AnyMethod>)[name]!(...given);
      }
    };
  }
  const { read } = methods;
  methods["read"] = (...given) => (given[0] === null ? readHere(path, given) : read!(...given));
  // The program is the caller's, and what lies before and after it the daemon's.
  methods["run"] = async (command, options) => {
    const { run } = await import("../../operations/run.ts");
    const save = async (saving: SaveOptions): Promise<SaveResult> =>
      (await connection.call("save", { workspace: path, options: saving }, saving)) as SaveResult;
    return run(command as string[], (options ?? {}) as RunOptions, { save, root: path });
  };
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
      connection.close();
      // One that was never opened is not closed.
      await (await here?.catch(() => undefined))?.close();
    },
    async [Symbol.asyncDispose]() {
      await this.close();
    },
  };
  const client = Object.assign(methods, facts) as unknown as Client;
  makers.set(client, (key) => remoteClient(connection.keyed(key), found, local));
  return client;
}
