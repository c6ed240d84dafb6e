import fs from "node:fs";
import type { RootMetadata as RecordedRoot } from "../../formats/records/descriptor.ts";
import { listedGroupBits } from "../../fs/linux/own-attributes.ts";
import { groupName, userName } from "../../fs/users.ts";

/** The root directory's own metadata, which no tree holds. */
export interface RootMetadata {
  mode: number;
  uid: number;
  gid: number;
  mtimeSec: number;
  mtimeNs: number;
  /** what an access list says of its group, where it has one: the mode has the list's mask in their place then */
  aclGroup?: number | undefined;
}

const BILLION = 1_000_000_000n;

/** A root's metadata as descriptors have it, with the names that its owner has here. */
export function recordedRoot(root: RootMetadata): RecordedRoot {
  const { mode, uid, gid, mtimeSec, mtimeNs, aclGroup } = root;
  return {
    mode,
    uid,
    gid,
    user: userName(uid),
    group: groupName(gid),
    mtime_sec: mtimeSec,
    mtime_ns: mtimeNs,
    ...(aclGroup === undefined ? {} : { acl_group: aclGroup }),
  };
}

/** The mode of a folder without an access list that gives its owner, group and others the same. */
export function modeWithoutList({ mode, aclGroup }: OwnRights): number {
  return aclGroup === undefined ? mode : (mode & ~GROUP) | ((aclGroup << 3) & mode & GROUP);
}

type OwnRights = Pick<RootMetadata, "mode" | "aclGroup">;
const GROUP = 0o070;

/**
 * The mode by which a folder gets the rights that were recorded. No point has the folder's own access list: the one that
 * it has stays, with its mask, and where it has none the mask that was recorded is not given to the group.
 */
export function modeToSet(wanted: OwnRights, present: OwnRights): number {
  const plain = modeWithoutList(wanted);
  if (present.aclGroup === undefined) return plain;
  if (wanted.aclGroup === undefined) return modeWithoutList(present) === plain ? present.mode : plain;
  // By another list than there was then.
  const isWidened = ((present.aclGroup << 3) & wanted.mode & GROUP & ~plain) !== 0;
  return isWidened ? plain : wanted.mode;
}

/** Mode, owner and time of a folder, and what its access list says of its group. */
export function rootMetadata(root: Uint8Array): RootMetadata {
  const stat = fs.lstatSync(Buffer.from(root), { bigint: true });
  // Never negative, also before 1970.
  const nanoseconds = ((stat.mtimeNs % BILLION) + BILLION) % BILLION;
  return {
    mode: Number(stat.mode) & 0o7777,
    uid: Number(stat.uid),
    gid: Number(stat.gid),
    mtimeSec: Number((stat.mtimeNs - nanoseconds) / BILLION),
    mtimeNs: Number(nanoseconds),
    aclGroup: listedGroupBits(Buffer.from(root)),
  };
}
