import { type Stats, statSync } from "node:fs";
import { dirname } from "node:path";
import { CairnError } from "../errors.ts";
import { membersOf } from "../fs/users.ts";
import { printablePath } from "../fs/safe-path.ts";

/** Whoever is at the other end of a connection, as the kernel knows them. */
export interface Peer {
  pid: number;
  uid: number;
  gid: number;
}

const [READ, WRITE, SEARCH] = [4, 2, 1];

/** Throws `permission` for a caller who neither owns a folder nor may write to it; root may act on all. */
export function requireMayWrite(peer: Peer, folder: Buffer): void {
  if (peer.uid === 0) return;
  const facts = statSync(folder, { throwIfNoEntry: false });
  // A folder that is gone has no owner; its nearest parent has one.
  const isAllowed =
    facts === undefined
      ? mayDo(peer, statSync(existingParent(folder)), WRITE | SEARCH)
      : facts.uid === peer.uid || (mayDo(peer, facts, READ | WRITE | SEARCH) && mayReach(peer, folder));
  if (!isAllowed) throw notAllowed(peer, folder, "may not write to it");
}

/** Throws `permission` for a caller who does not own a folder; root may act on all. */
export function requireOwner(peer: Peer, folder: Buffer): void {
  if (peer.uid === 0 || statSync(folder, { throwIfNoEntry: false })?.uid === peer.uid) return;
  throw notAllowed(peer, folder, "does not own it");
}

function notAllowed({ uid }: Peer, folder: Buffer, why: string): CairnError {
  return new CairnError("permission", `${printablePath(folder)}: user ${uid} ${why}`, {
    hint: "the daemon acts on a folder for its owner, for those who may write to it, and for root",
  });
}

function existingParent(path: Buffer): Buffer {
  for (let at = path.toString("latin1"); at !== "/";) {
    at = dirname(at);
    if (statSync(Buffer.from(at, "latin1"), { throwIfNoEntry: false }) !== undefined) return Buffer.from(at, "latin1");
  }
  return Buffer.from("/");
}

/** True where every folder above a path lets the peer through. */
function mayReach(peer: Peer, path: Buffer): boolean {
  for (let at = dirname(path.toString("latin1")); ; at = dirname(at)) {
    if (!mayDo(peer, statSync(Buffer.from(at, "latin1")), SEARCH)) return false;
    if (at === "/") return true;
  }
}

/** By the permission bits; an access list that gives more than they show is not asked. */
function mayDo(peer: Peer, { uid, gid, mode }: Stats, wanted: number): boolean {
  const shift = uid === peer.uid ? 6 : isInGroup(peer, gid) ? 3 : 0;
  return ((mode >> shift) & wanted) === wanted;
}

function isInGroup(peer: Peer, gid: number): boolean {
  return peer.gid === gid || membersOf(gid).includes(peer.uid);
}
