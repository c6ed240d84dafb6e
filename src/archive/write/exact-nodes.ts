import type { LosslessField, Manifest } from "../../formats/records/manifest.ts";
import type { TreeNode } from "../../formats/restic/tree.ts";
import { rawPath as pathOfRecord, recordPath } from "../../formats/records/record.ts";
import { movedBelow } from "../../fs/paths/safe-path.ts";
import { SETGID, SETUID } from "../../fs/linux/syscalls.ts";
import { outsideId } from "../../fs/linux/user-namespace.ts";
import { groupHere, groupId, userHere, userId } from "../../fs/users.ts";
import type { HoleList } from "./data-runs.ts";

/** Fields that the manifest has for entries whose nodes cannot say them, by path in latin1. */
export type LosslessByPath = ReadonlyMap<string, readonly LosslessField[]>;

export function losslessByPath(fields: Iterable<LosslessField>): LosslessByPath {
  const byPath = new Map<string, LosslessField[]>();
  for (const field of fields) {
    const key = Buffer.from(field.path).toString("latin1");
    const known = byPath.get(key);
    if (known === undefined) byPath.set(key, [field]);
    else known.push(field);
  }
  return byPath;
}

/** Exact holes of sparse files, by path in latin1. */
export function holesByPath(manifest: Pick<Manifest, "holeMaps"> | null): Map<string, HoleList> {
  return new Map((manifest?.holeMaps ?? []).map(({ path, holes }) => [Buffer.from(path).toString("latin1"), holes]));
}

/** The exact node of an entry; `node` itself if the manifest has nothing to add. */
export function exactNode(node: TreeNode, fields: readonly LosslessField[] | undefined): TreeNode {
  if (fields === undefined) return node;
  const exact = { ...node };
  for (const { field, index, value } of fields) {
    if (field === "linktarget") exact.linktarget = value;
    else if (field === "xattr_name")
      exact.xattrs = exact.xattrs.map((each, i) => (i === index ? { name: value, value: each.value } : each));
    else if (field === "mtime") [exact.mtimeSec, exact.mtimeNs] = timeOf(value) ?? [exact.mtimeSec, exact.mtimeNs];
  }
  return exact;
}

function timeOf(value: Uint8Array): [number, number] | null {
  const match = /^(-?\d{1,16})\.(\d{1,9})$/u.exec(Buffer.from(value).toString("latin1"));
  return match === null ? null : [Number(match[1]), Number(match[2])];
}

/** Path of the first member of the hard-link group of an entry that is not a file, in latin1; null if it has no group. */
export function firstOfGroup(fields: readonly LosslessField[] | undefined): string | null {
  const link = fields?.find(({ field }) => field === "hard_link");
  return link === undefined ? null : Buffer.from(link.value).toString("latin1");
}

/** Gives nodes the ids that the names of their owner and group have on this machine. */
export class OwnersByName {
  /** names that this machine lacks, for example `user bob`: their entries get the saved number */
  readonly unknown = new Set<string>();
  readonly #ids = new Map<string, number | null>();

  /**
   * Returns the node with this machine's ids. If a name has another number here, or is unknown and its number belongs to
   * somebody else, the node has no setuid or setgid bit: programs must not run as a stranger. A file that had such a bit
   * is `withheld`.
   */
  of<T extends Pick<TreeNode, "uid" | "gid" | "user" | "group" | "mode" | "type">>(node: T): T & { withheld?: true } {
    const uid = this.#id("user", node.user, userId);
    const gid = this.#id("group", node.group, groupId);
    const lost =
      ((uid === null ? userHere(node.uid) !== "" : uid !== node.uid) ? SETUID : 0) |
      ((gid === null ? groupHere(node.gid) !== "" : gid !== node.gid) ? SETGID : 0);
    const owned = { ...node, uid: uid ?? node.uid, gid: gid ?? node.gid, mode: node.mode & ~lost };
    return node.type === "file" && owned.mode !== node.mode ? { ...owned, withheld: true } : owned;
  }

  #id(kind: "user" | "group", name: string, idOf: (name: string) => number | null): number | null {
    const key = `${kind} ${name}`;
    let id = this.#ids.get(key);
    if (id === undefined) {
      id = name === "" ? null : idOf(name);
      if (id !== null) id = outsideId(kind === "user" ? "uids" : "gids", id);
      this.#ids.set(key, id);
      if (id === null && name !== "") this.unknown.add(key);
    }
    return id;
  }
}

/**
 * The part of a manifest about entries below a folder, with paths relative to it. Has no digests, and its counts are
 * still the whole folder's.
 */
export function manifestBelow(manifest: Manifest, folder: Uint8Array): Manifest {
  const moved = movedBelow(folder);
  return {
    ...manifest,
    stateDigest: null,
    metadataDigest: null,
    labels: moved(
      manifest.labels.map(({ path_b64, ...label }) => ({
        label,
        path: pathOfRecord(path_b64 === undefined ? label : { ...label, path_b64 }),
      })),
    ).map(({ label, path }) => ({ ...label, ...recordPath(path) })),
    holeMaps: moved(manifest.holeMaps),
    fileHashes: moved(manifest.fileHashes),
    omitted: moved(manifest.omitted),
    // All names of one file share one value, even if its first name is elsewhere.
    lossless: moved(manifest.lossless),
    mounts: undefined,
  };
}
