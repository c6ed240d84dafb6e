import { lstatSync, realpathSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { advice, CairnError, call, word } from "../../errors.ts";
import type { ServedWorkspace } from "../../formats/records/daemon-state.ts";
import { rawPath } from "../../formats/records/record.ts";
import { attributesOf } from "../../fs/linux/own-attributes.ts";
import { membersOf } from "../../fs/users.ts";
import { printablePath } from "../../fs/paths/safe-path.ts";

/** The process at the other end of a connection, as the kernel reports it. */
export interface Peer {
  pid: number;
  uid: number;
  gid: number;
}

/** The user who makes a call, and the limits on this call. */
export interface Caller extends Peer {
  /** An agent may not make calls that can lose data. */
  isAgent: boolean;
  /** Id of the caller's token; null: the kernel named the user. */
  token: string | null;
  /** Ids of the workspaces to which the token is limited; null: all workspaces of the user. */
  only: ReadonlySet<string> | null;
  /** The caller is the page of `cairn ui`; `looks`: it may change nothing. */
  page?: "looks" | "changes";
}

/** Tells callers apart: by their token, else by the user. */
export function keyOf({ token, uid }: Caller): string {
  return token ?? String(uid);
}

/** True for an operator without limits, who may do everything that the daemon's process may do. */
export function isWholeOperator(caller: Caller): boolean {
  return isOperator(caller) && !caller.isAgent && caller.only === null;
}

/** True for root and for the user who runs the daemon. */
export function isOperator({ uid }: Peer): boolean {
  return uid === 0 || uid === process.geteuid?.();
}

/** True if `fork` is `path` and more of the same name, as an agent's fork has to be. For example `/a/work-try1` of `/a/work`. */
export function isBeside(path: string, fork: string): boolean {
  return fork.startsWith(path) && /^[-.][\w.-]{1,100}$/.test(fork.slice(path.length));
}

const [READ, WRITE, SEARCH] = [4, 2, 1];

/** `owner`: the folder's user, root, and the user who runs the daemon; `writer`: may write to the folder. */
export type Right = "owner" | "writer";

/**
 * Returns a caller's right on a workspace. The owner is the user who owned the folder at registration, if known. If the
 * folder now belongs to another user, only operators have a right; if the folder is gone, only operators and the owner.
 * Throws `permission`.
 */
export function rightOn(peer: Caller, served: Pick<ServedWorkspace, "id" | "path" | "path_b64" | "owner_uid">): Right {
  const folder = Buffer.from(rawPath(served));
  const owner = served.owner_uid;
  if (peer.only !== null && !peer.only.has(served.id))
    throw new CairnError("permission", `${printablePath(folder)} is not one of this token's workspaces`, {
      hint: "a token acts only on the workspaces for which it was made, and on forks that were made with it",
    });
  if (isOperator(peer)) return "owner";
  const facts = lstatSync(folder, { throwIfNoEntry: false });
  if (facts !== undefined && facts.uid !== owner)
    throw notAllowed(peer, folder, `has no access, because the folder now belongs to user ${facts.uid}`);
  if (peer.uid === owner) return "owner";
  if (
    facts !== undefined &&
    facts.isDirectory() &&
    mayDo(peer, folder, READ | WRITE | SEARCH) &&
    mayReach(peer, folder)
  )
    return "writer";
  throw notAllowed(peer, folder, "may not write to the folder");
}

/**
 * Throws `permission` if a user other than root could have made or may exchange a control directory: root would restore
 * its content for a caller, with any owner and mode.
 */
export function requireRootsOwn(control: string, folder: Buffer): void {
  for (let at = realpathSync.native(control); ; at = dirname(at)) {
    const { uid, mode } = lstatSync(at);
    const isOpen = (mode & 0o022) !== 0 && (mode & STICKY) === 0;
    if (uid !== 0 || isOpen)
      throw new CairnError(
        "permission",
        `${printablePath(folder)} is kept in ${printablePath(control)}, where ${isOpen ? "users other than root" : `user ${uid}`} may change the content of ${printablePath(at)}`,
        {
          hint: "use the command without the daemon: root's daemon opens for other users only control directories that it made itself",
        },
      );
    if (at === "/") return;
  }
}

const STICKY = 0o1000;

/** Throws `permission` if a user other than root could exchange entries of `folder`, in which root makes something for a caller. */
export function requireRootsPlace(folder: string): void {
  const { mode } = lstatSync(folder);
  if ((mode & 0o022) === 0) return requireRootsOwn(folder, Buffer.from(folder));
  throw new CairnError("permission", `users other than root may change the content of ${printablePath(folder)}`, {
    hint: advice`ask a person to fork it: ${call("fork POINT DIR", "fork", word("POINT"), word("DIR"))}`,
  });
}

/** Throws `permission` if the caller does not own the folder; root may act on every folder. */
export function requireOwner(peer: Peer, folder: Buffer): void {
  if (peer.uid === 0 || statSync(folder, { throwIfNoEntry: false })?.uid === peer.uid) return;
  throw notAllowed(peer, folder, "does not own the folder");
}

function notAllowed({ uid }: Peer, folder: Buffer, why: string): CairnError {
  return new CairnError("permission", `${printablePath(folder)}: user ${uid} ${why}`, {
    hint: "the daemon acts on a folder for its owner, for those who may write to it, and for root",
  });
}

/** True if every folder above a path lets the peer through. */
function mayReach(peer: Peer, path: Buffer): boolean {
  for (let at = dirname(path.toString("latin1")); ; at = dirname(at)) {
    if (!mayDo(peer, Buffer.from(at, "latin1"), SEARCH)) return false;
    if (at === "/") return true;
  }
}

/** Answers by the permission bits. An access list may allow less than the bits show, so with an access list the answer is false. */
function mayDo(peer: Peer, folder: Buffer, wanted: number): boolean {
  return allows(statSync(folder), peer, wanted) && !attributesOf(folder).some((each) => each.startsWith(ACCESS_LIST));
}

const ACCESS_LIST = "system.posix_acl_access=";

/** True if the bits of an entry that a point recorded let a peer read a file or search a folder. */
export function mayByBits(peer: Peer, entry: OwnedMode, isFolder: boolean): boolean {
  return allows(entry, peer, isFolder ? SEARCH : READ);
}

interface OwnedMode {
  uid: number;
  gid: number;
  mode: number;
}

function allows({ uid, gid, mode }: OwnedMode, peer: Peer, wanted: number): boolean {
  const shift = uid === peer.uid ? 6 : isInGroup(peer, gid) ? 3 : 0;
  return ((mode >> shift) & wanted) === wanted;
}

function isInGroup(peer: Peer, gid: number): boolean {
  return peer.gid === gid || membersOf(gid).includes(peer.uid);
}
