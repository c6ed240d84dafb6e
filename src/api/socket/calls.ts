import type { EngineOptions, InitOptions, ReleaseOptions } from "../../contract/care.ts";
import type { Client, ForkResult, ListedEntry, PathInput, ReadOptions } from "../../contract/index.ts";
import { checkValue, refuseUnknown } from "../../contract/schema.ts";
import { PastEventsOptions } from "../../contract/service.ts";
import type { Verb } from "../../contract/verb.ts";
import type { CallOptions, WorkspaceRef } from "../../contract/words.ts";
import type { Daemon } from "../../daemon/daemon.ts";
import type { VerbOfWorkspace } from "../../daemon/records/kept-records.ts";
import { type Caller, isBeside, isOperator, mayByBits, type Peer, requireRootsPlace } from "../../daemon/state/peer.ts";
import { CairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { rawPath } from "../../formats/records/record.ts";
import { type Reference, TokenOptions } from "../../verbs/schemas.ts";
import { ownPointsOnly } from "../../workspace/open/siblings.ts";
import type { Body } from "../request.ts";
import { carryOut, givenTo, pathOf, requireKnown } from "../rights/arguments.ts";
import { callOf, isForWriters, isOfWorkspace, looks } from "../rights/capabilities.ts";
import { type Asked, carriesRequest, doneBefore } from "./done-before.ts";
import { type Host, isDaemon } from "./host.ts";
import { requireCapability } from "./require-capability.ts";
import { lstatSync } from "node:fs";
import { dirname } from "node:path";

/** Progress and warnings of a call, and each answer of a verb with several answers. */
export interface Told extends CallOptions {
  /** Resolves when the caller has room for the next answer. Throws `usage` if the caller accepts no lines. */
  onItem(item: unknown): Promise<void>;
  /** Called when the call's turn has come. */
  onBegin?(): void;
  /** Cancels the job that the call is; absent if it is none. */
  cancelJob?(): void;
  /** Identity of a call with an idempotency key; absent without a key. */
  asked?: Asked;
}

/** True for a call that lasts until its caller ends it. */
export function isLasting(name: string): boolean {
  return callOf(name)?.lasts === true;
}

/** Makes a call. Calls `accepted` when the caller may make it. Throws `usage` for unknown members, `permission`, and the verb's errors. */
export async function answer(
  host: Host,
  peer: Caller,
  call: { name: string; body: Body; told: Told },
  accepted: () => void,
): Promise<unknown> {
  const { name, body } = call;
  requireCapability(peer, name, body["options"] as Body | undefined);
  requireKnown(name, body);
  accepted();
  if (isOfWorkspace(name)) return callClient(host, peer, call);
  call.told.onBegin?.();
  if (name === "daemon") return host.status(peer);
  if (name === "running") return host.listRunning(peer);
  if (name === "cancel") return host.cancel(peer, textOf(body, "id"));
  if (name === "pastEvents") {
    const given = checkValue(PastEventsOptions, body["options"] ?? {}, "options");
    return host.listEvents(peer, pathOf(body, "path"), given);
  }
  return isDaemon(host) ? callDaemon(host, peer, call) : callLibrary(host, name, call.body, call.told);
}

async function callDaemon(
  daemon: Daemon,
  peer: Caller,
  { name, body, told: whole }: { name: string; body: Body; told: Told },
): Promise<unknown> {
  const { onItem, onBegin: _begin, asked: _asked, ...told } = whole;
  switch (name) {
    case "at": {
      const served = daemon.at(peer, pathOf(body, "path"));
      if (served === null) return null;
      return daemon.withClient(peer, { path: served.path, changes: false }, async (client) => referenceTo(client));
    }
    case "register": {
      const options = { ...(body["options"] as InitOptions | undefined), ...told };
      const { client, created } = await daemon.register(peer, pathOf(body, "path"), options);
      return { ...referenceTo(client), created };
    }
    case "release":
      return daemon.release(peer, pathOf(body, "workspace"), {
        ...(body["options"] as ReleaseOptions | undefined),
        ...told,
      });
    case "freezeOffer":
      return daemon.freezes.offer(daemon.require(peer, pathOf(body, "workspace")).id, {
        tell: (line) => void onItem(line).catch(() => undefined),
        signal: told.signal!,
      });
    case "freezeBegin":
      return daemon.freezes.begin(daemon.require(peer, pathOf(body, "workspace")).id);
    case "frozen":
      return daemon.freezes.frozen(textOf(body, "token"));
    case "freezeEnd":
      return daemon.freezes.end(textOf(body, "token"));
    case "recover":
      return daemon.recover(peer, pathOf(body, "path"), { ...(body["options"] as EngineOptions | undefined), ...told });
    case "list":
      return daemon.list(peer, told);
    case "reload":
      return daemon.reload();
    case "reconcile":
      await daemon.reconcile();
      return daemon.status(peer);
    case "tokenCreate":
      return createToken(daemon, peer, body);
    case "tokenList":
      return daemon.tokens.list(peer);
    case "tokenRevoke":
      return daemon.tokens.revoke(peer, textOf(body, "id"));
    default:
      return callLibrary(daemon, name, body, whole);
  }
}

/**
 * Refuses calls that open files of the folder by path. A user who may write to the folder could redirect the daemon,
 * and a caller may not be allowed to read the files. Throws `unsupported`.
 */
function refuseByPath({ opensPaths }: Verb, body: Body): void {
  if (typeof opensPaths === "function" ? !opensPaths(body) : opensPaths !== true) return;
  throw new CairnError("unsupported", "for agents and other users the daemon opens no file of a folder by its path", {
    hint: "read the file yourself; leave `with` and `throughSqlite` out of a save or a restore",
    details: { served: false },
  });
}

/**
 * Throws `permission` if an agent's fork is not beside its workspace with a name that begins with the workspace's name.
 */
function requireBeside({ path, path_b64 }: WorkspaceRef, fork: string): void {
  if (path_b64 !== undefined || !isBeside(path, fork))
    throw new CairnError(
      "permission",
      `an agent may fork only beside its workspace, as ${path}-NAME; found ${fork.slice(0, 200)}`,
    );
  if (lstatSync(fork, { throwIfNoEntry: false }) !== undefined)
    throw new CairnError("already_exists", `${fork} already exists`, { hint: "name another folder" });
  if (process.geteuid?.() === 0) requireRootsPlace(dirname(path));
}

/** Returns the point's id. Throws `permission` if the recorded mode bits forbid reading a file or passing a folder above it. */
async function requireMayRead(peer: Peer, client: Client, target: string, { path, options }: Body): Promise<string> {
  const { save_point_id: id } = await client.resolve(target);
  const { archive, paths = [path as PathInput] } = (options ?? {}) as ReadOptions;
  const listed = new Map<string, Promise<readonly ListedEntry[]>>();
  const list = (folder: string): Promise<readonly ListedEntry[]> => {
    const entries = listed.get(folder) ?? client.show(id, Buffer.from(folder, "latin1")).then((shown) => shown.entries);
    listed.set(folder, entries);
    return entries;
  };
  for (const each of paths) {
    const found = await requireMayReach(peer, list, { path: each, isWhole: archive !== undefined });
    if (archive === undefined || !found) continue;
    for await (const entry of client.walk(id, each)) requireBits(peer, entry, entry.kind === "directory");
  }
  return id;
}

/**
 * Checks the folders on the way to an entry, and the entry. `list`: the entries of a folder, named in latin1. Returns
 * false if the path does not exist, which the call itself reports.
 */
async function requireMayReach(
  peer: Peer,
  list: (folder: string) => Promise<readonly ListedEntry[]>,
  { path, isWhole }: { path: PathInput; isWhole: boolean },
): Promise<boolean> {
  const names = Buffer.from(path)
    .toString("latin1")
    .split("/")
    .filter((each) => each !== "" && each !== ".");
  for (const end of names.keys()) {
    const at = Buffer.from(names.slice(0, end + 1).join("/"), "latin1");
    const beside = await list(names.slice(0, end).join("/"));
    const entry = beside.find((each) => at.equals(rawPath(each)));
    if (entry === undefined) return false;
    requireBits(peer, entry, end < names.length - 1 || (isWhole && entry.kind === "directory"));
  }
  return true;
}

function requireBits(peer: Peer, entry: ListedEntry, isFolder: boolean): void {
  if (mayByBits(peer, entry, isFolder)) return;
  throw new CairnError("permission", `the modes of ${entry.path} in the point do not let user ${peer.uid} read it`);
}

/** Returns a workspace in the daemon's form; `created` is false. */
export function referenceTo(client: Client): Reference {
  const { workspace, repoId, engineReasons, followedFrom, conversion } = client;
  return {
    workspace,
    control_id: repoId,
    created: false,
    engine_reasons: [...engineReasons],
    followed_from: followedFrom,
    conversion,
  };
}

/** Arguments that name the points whose content a call returns. */
const TARGETS = ["target", "a", "b"];

async function callLibrary(host: Host, name: string, body: Body, told: Told): Promise<unknown> {
  const { onItem, onBegin: _begin, asked: _asked, ...call } = told;
  const verb = callOf(name)!;
  const given = givenTo(name, verb, body, call);
  const answered = await carryOut(host.library, { name, given, onItem });
  if (verb.movesFolder === true && isDaemon(host)) await host.serveMoved(given[0] as string, given[1] as string);
  return answered;
}

async function callClient(
  host: Host,
  peer: Caller,
  { name, body: whole, told }: { name: string; body: Body; told: Told },
): Promise<unknown> {
  const { workspace: _path, ...body } = whole;
  const verb = callOf(name)!;
  const options = body["options"] as Body | undefined;
  // One control directory may keep folders of several users.
  if (body["workspaceName"] !== undefined || options?.["workspaceName"] !== undefined)
    throw new CairnError("usage", "workspaceName is not accepted: name a workspace by its path");
  const { onItem, onBegin, asked, ...call } = told;
  const carried = asked === undefined ? body : { ...body, options: carriesRequest(verb, options, asked) };
  const given = givenTo(name, verb, carried, call);
  // A user who may write to a folder could redirect root in it.
  const isLed = !isOperator(peer) || (peer.isAgent && process.geteuid?.() === 0);
  // A token of some workspaces must not read others by an operand.
  const isNarrow = isLed || peer.isAgent || peer.only !== null;
  if (isLed || peer.isAgent) refuseByPath(verb, body);
  const daemon = isDaemon(host) ? host : null;
  return host.withClient(
    peer,
    {
      path: pathOf(whole, "workspace"),
      changes: verb.takesTurns !== true && !looks(name, options),
      signal: told.signal,
    },
    async (client, right) =>
      ownPointsOnly.run(isNarrow, async () => {
        if (right !== "owner" && !isForWriters(name))
          throw new CairnError("permission", `${name} is only for the owner of the folder and for root`);
        // The id fixes the point: a later point may have another file at the path.
        if (!isOperator(peer) && verb.givesContent === true)
          for (const [at, { name: each }] of verb.takes.entries())
            if (TARGETS.includes(each) && (body[each] ?? null) !== null)
              given[at] = await requireMayRead(peer, client, String(body[each]), body);
        if (peer.isAgent && verb.makesFolder === true) {
          requireBeside(client.workspace, given[1] as string);
          daemon?.requireForkable(peer, client.workspace);
        }
        const last = given.at(-1) as Record<string, unknown>;
        if (peer.isAgent && verb.agentCause !== undefined) last["cause"] ??= { kind: verb.agentCause };
        onBegin?.();
        const before = asked === undefined ? null : await doneBefore(client, { ...verb, name }, asked);
        if (before !== null) {
          call.onWarning?.(
            `this call was done before, and its answer was lost: this answer has only facts that its point and its receipt record`,
          );
          return before;
        }
        // The folder's owner could redirect SQLite to another database while it is opened. A btrfs snapshot opens no database.
        if (verb.makesPoint === "save" && isLed && client.engineType !== "btrfs-snapshot") last["databases"] = "copy";
        const carriedOut = async (): Promise<unknown> => carryOut(client satisfies Client, { name, given, onItem });
        const { id } = client.workspace;
        const isFrozen = verb.freezes === true && daemon?.freezes.isOffered(id) === true;
        const answered = await (isFrozen
          ? daemon.freezes.during(id, carriedOut, told.onWarning)
          : verb.makesFolder === true && daemon !== null
            ? fork(daemon, peer, carriedOut)
            : carriedOut());
        failpoint("call.done");
        host.tellOf(name as VerbOfWorkspace, client.workspace, answered);
        return verb.addsWatched === true && daemon !== null
          ? { ...(answered as object), watched: daemon.isWatched(id) }
          : answered;
      }),
  );
}

async function fork(daemon: Daemon, caller: Caller, carriedOut: () => Promise<unknown>): Promise<ForkResult> {
  const forked = (await carriedOut()) as ForkResult;
  await daemon.serveFork(caller, forked.workspace.path);
  return forked;
}

/** Throws `not_a_workspace` and `permission` for a folder on which the maker may not act. */
function createToken(daemon: Daemon, maker: Caller, body: Body): object {
  refuseUnknown(TokenOptions, body["options"] ?? {}, "options");
  const options = checkValue(TokenOptions, body["options"] ?? {}, "options");
  if ((options.name?.length ?? 0) > 200) throw new CairnError("usage", "name must have at most 200 characters");
  const named = options.workspaces?.map((path) => daemon.requireOwn(maker, pathOf({ path }, "path")));
  return daemon.tokens.create(maker, options, named ?? null);
}

function textOf(body: Body, member: string): string {
  const text = body[member];
  if (typeof text === "string") return text;
  throw new CairnError("usage", `${member} must be a text`);
}
