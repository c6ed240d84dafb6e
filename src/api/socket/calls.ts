import { CLIENT_VERBS, type Client } from "../../contract/index.ts";
import type { AdoptOptions, EngineOptions, ReleaseOptions } from "../../contract/care.ts";
import type { Entries, Notes } from "../../contract/schema.ts";
import type { Verb } from "../../contract/verb.ts";
import type { CallOptions } from "../../contract/words.ts";
import type { Daemon } from "../../daemon/daemon.ts";
import { isOperator, mayByBits, type Peer } from "../../daemon/peer.ts";
import { CairnError } from "../../errors.ts";
import { rawPath } from "../../formats/records/record.ts";

/** Members of a request's body: the workspace's path, the verb's arguments by their names, and its options. */
export type Body = Readonly<Record<string, unknown>>;

/** A call's progress and warnings, and each answer of a verb that gives several. */
export interface Told extends CallOptions {
  /** Resolves when the caller has room for the next. Throws `usage` where they take no lines. */
  onItem(item: unknown): Promise<void>;
}

/**
 * Verbs that only look: any number of them go on at once, and beside one that changes something.
 */
export const LOOKS: ReadonlySet<string> = new Set(
  "history why latestSavePoint hasSavePoints resolve status diff diffDatabase show walk read verify planRestore planUndo shortIds policy store seal doctor previewCleanup verifyAll".split(
    " ",
  ),
);

/**
 * Verbs that a daemon does for a caller. Others run a program, hold a password, or write to a place that the caller names,
 * which they may have no right to: they are for the caller's own process.
 */
export const SERVED: ReadonlySet<string> = new Set([
  ..."save restore undo restoreLatest pin unpin tag runCleanup setPolicy".split(" "),
  ...LOOKS,
]);

/** Verbs for those who may write to a folder that is not theirs: they get no content, and remove no points. */
const FOR_WRITERS = new Set(
  "save restore undo restoreLatest planRestore planUndo history why latestSavePoint hasSavePoints resolve status diff show walk verify shortIds".split(
    " ",
  ),
);

/** True for a call that lasts as long as its caller likes. */
export function isLasting(name: string): boolean {
  return name === "freezeOffer";
}

/** True for a verb of a workspace that the daemon does. */
export function isServed(name: string, options: Body | undefined): boolean {
  return SERVED.has(name) && Object.keys(options ?? {}).every((each) => !isPlaceOf(name, each));
}

export function isPlaceOf(name: string, option: string): boolean {
  const { options } = CLIENT_VERBS[name as keyof typeof CLIENT_VERBS] as Verb;
  const schema = (options?.entries as Entries | undefined)?.[option] as (Notes & { wrapped?: Notes }) | undefined;
  return (schema?.wrapped ?? schema)?.as === "place";
}

/** Carries a call out. Throws `usage` for what no verb takes, `permission`, and what the verb throws. */
export async function answer(
  daemon: Daemon,
  peer: Peer,
  call: { name: string; body: Body; told: Told },
): Promise<unknown> {
  const { name, body } = call;
  const { onItem: _item, ...told } = call.told;
  switch (name) {
    case "daemon":
      return daemon.status(peer);
    case "at": {
      const served = daemon.at(peer, pathOf(body, "path"));
      if (served === null) return null;
      return daemon.withClient(peer, { path: served.path, changes: false }, async (client) => referenceTo(client));
    }
    case "register": {
      const options = { ...(body["options"] as AdoptOptions | undefined), ...told };
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
        tell: (line) => void call.told.onItem(line).catch(() => undefined),
        signal: told.signal!,
      });
    case "freezeBegin":
      return daemon.freezes.begin(daemon.require(peer, pathOf(body, "workspace")).id);
    case "frozen":
      return daemon.freezes.frozen(tokenOf(body));
    case "freezeEnd":
      return daemon.freezes.end(tokenOf(body));
    case "recover":
      return daemon.recover(peer, pathOf(body, "path"), { ...(body["options"] as EngineOptions | undefined), ...told });
    case "list":
      return daemon.list(peer, told);
    case "reload":
      requireOperator(peer);
      return daemon.reload();
    case "reconcile":
      requireOperator(peer);
      await daemon.reconcile();
      return daemon.status(peer);
    default:
      return callClient(daemon, peer, call);
  }
}

/**
 * Things that go by paths into the folder while they last, by which its owner could lead root elsewhere, and content of files
 * that the caller can read themselves or perhaps may not. Throws `unsupported`.
 */
function refuseForOthers(name: string, body: Body, options: Body | undefined): void {
  const isOwnWork = name === "diffDatabase" || (name === "read" && (body["target"] ?? null) === null);
  if (!isOwnWork && options?.["with"] === undefined && options?.["throughSqlite"] !== true) return;
  throw new CairnError("unsupported", "the daemon reads and opens nothing in the folder of another user by its path", {
    hint: "read the file itself; without `with` and `throughSqlite` a save or a restore is done",
    details: { served: false },
  });
}

/**
 * The id of the point. Throws `permission` where the bits that it recorded do not let a caller read a file, or through a folder
 * above it.
 */
async function requireMayRead(peer: Peer, client: Client, { target, path }: Body): Promise<string> {
  const { save_point_id: id } = await client.resolve(String(target));
  const names = Buffer.from(path as Uint8Array | string)
    .toString("latin1")
    .split("/")
    .filter((each) => each !== "" && each !== ".");
  for (const end of names.keys()) {
    const at = Buffer.from(names.slice(0, end + 1).join("/"), "latin1");
    const above = await client.show(id, Buffer.from(names.slice(0, end).join("/"), "latin1"));
    const entry = above.entries.find((each) => at.equals(rawPath(each)));
    if (entry !== undefined && mayByBits(peer, entry, end < names.length - 1)) continue;
    // Nothing is there, which is told as ever.
    if (entry === undefined) return id;
    throw new CairnError("permission", `${entry.path} of the point is not for user ${peer.uid} to read`);
  }
  return id;
}

function requireOperator(peer: Peer): void {
  if (!isOperator(peer)) throw new CairnError("permission", "only root and the daemon's own user may ask for that");
}

function referenceTo(client: Client): object {
  const { workspace, repoId, engineReasons, followedFrom, conversion } = client;
  return {
    workspace,
    control_id: repoId,
    created: false,
    engine_reasons: engineReasons,
    followed_from: followedFrom,
    conversion,
  };
}

async function callClient(
  daemon: Daemon,
  peer: Peer,
  { name, body, told }: { name: string; body: Body; told: Told },
): Promise<unknown> {
  const verb = Object.hasOwn(CLIENT_VERBS, name)
    ? (CLIENT_VERBS[name as keyof typeof CLIENT_VERBS] as Verb)
    : undefined;
  const options = body["options"] as Body | undefined;
  if (verb === undefined)
    throw new CairnError("usage", `there is no call ${JSON.stringify(name)}`, {
      hint: "where the caller is newer than the daemon, start the daemon again",
      details: { served: false },
    });
  if (!isServed(name, options))
    throw new CairnError("unsupported", `the daemon does not do ${name} for its callers`, {
      hint: "it runs a program, or writes to a place of the caller's choice: call the library or the command for that",
      details: { served: false },
    });
  const known = new Set(["workspace", "options", ...verb.takes.map((each) => each.name)]);
  const unknown = Object.keys(body).find((each) => !known.has(each));
  if (unknown !== undefined) throw new CairnError("usage", `${name} knows no member ${JSON.stringify(unknown)}`);
  // One control directory may keep folders of several users.
  if (body["workspaceName"] !== undefined || options?.["workspaceName"] !== undefined)
    throw new CairnError("usage", "workspaceName: a workspace is named by its path");
  const { onItem, ...call } = told;
  const given = verb.takes.map((each) => body[each.name]);
  if (verb.options !== null) given.push({ ...options, ...call });
  const isOther = !isOperator(peer);
  if (isOther) refuseForOthers(name, body, options);
  return daemon.withClient(
    peer,
    { path: pathOf(body, "workspace"), changes: !LOOKS.has(name), signal: told.signal },
    async (client, right) => {
      if (right !== "owner" && !FOR_WRITERS.has(name))
        throw new CairnError("permission", `${name} is for the owner of the folder and for root`);
      // Of one point: a later one may have another file at the path.
      if (isOther && name === "read") given[0] = await requireMayRead(peer, client, body);
      const method = (client as unknown as Record<string, (...given: unknown[]) => unknown>)[name]!;
      // Whoever owns the folder could lead SQLite to another database while it is opened, which a snapshot needs not.
      if (name === "save" && isOther && client.engineType !== "btrfs-snapshot")
        Object.assign(given.at(-1) as object, { databases: "copy" });
      const carryOut = (): unknown => method.apply(client satisfies Client, given);
      const { id } = client.workspace;
      if (name === "save" && daemon.freezes.isOffered(id))
        return daemon.freezes.during(id, async () => carryOut(), told.onWarning);
      const answered = carryOut();
      if (verb.how !== "stream") return answered;
      for await (const item of answered as AsyncIterable<unknown>) await onItem(item);
      return null;
    },
  );
}

function tokenOf({ token }: Body): string {
  if (typeof token === "string") return token;
  throw new CairnError("usage", "token is to be a text");
}

function pathOf(body: Body, member: string): string {
  const path = body[member];
  if (typeof path === "string" && path.startsWith("/") && !path.includes("\0")) return path;
  throw new CairnError("usage", `${member} is to be an absolute path`);
}
