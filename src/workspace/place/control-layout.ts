import { isUtf8 } from "node:buffer";
import { realpathSync } from "node:fs";
import { join } from "node:path";
import { storePaths } from "../store/store-paths.ts";
import { advice, CairnError, type Hint, option } from "../../errors.ts";
import { printablePath } from "../../fs/paths/safe-path.ts";
import type { WorkspaceId } from "../../ids.ts";
import { existingAncestor } from "./room.ts";

/** Absolute paths of everything in a control directory. */

/** Name of the control directory beside the folder `main` of a self-contained workspace. */
export const SELF_CONTAINED_CONTROL = ".cairn";
export const MAIN_WORKSPACE = "main";
/** Name of the folder at a mount's root that has control directories by id. */
export const MOUNT_CONTROL = ".cairn-control";

export interface ControlPaths {
  readonly root: string;
  /** The file that makes the directory a control directory. */
  readonly file: string;
  /** The embedded repository in restic's format. */
  readonly store: string;
  readonly storePassword: string;
  readonly storeKey: string;
  /** Unfinished files; the lock's holder may remove them. */
  readonly temporary: string;
  /** Files that Cairn can make again. */
  readonly cache: string;
  /** A file that is deleted if a cleanup lacks room. */
  readonly spare: string;
  readonly workspaces: string;
  readonly lock: string;
  /** Retention and quota, if they are set. */
  readonly policy: string;
  /** Notes of content that removals had to leave in the store. */
  readonly unfreed: string;
  /** Views: each has a lease and a folder. */
  readonly views: string;
  /** Records of folders that are being made elsewhere. */
  readonly partial: string;
  /** Leftovers of interrupted operations, for people; Cairn does not read them. */
  readonly kept: string;
}

export function controlPaths(root: string): ControlPaths {
  const { repository, passwordFile, keyFile, temporary, cache } = storePaths(root);
  return {
    root,
    file: join(root, "cairn.json"),
    store: repository,
    storePassword: passwordFile,
    storeKey: keyFile,
    temporary,
    cache,
    spare: join(cache, "spare"),
    workspaces: join(root, "workspaces"),
    lock: join(root, "lock"),
    policy: join(root, "policy.json"),
    unfreed: join(root, "unfreed"),
    views: join(root, "views"),
    partial: join(root, "partial"),
    kept: join(root, "kept"),
  };
}

/** Path of a workspace's stat cache. */
export function statCachePath(control: ControlPaths, id: WorkspaceId): string {
  return join(control.cache, `stat-${id}`);
}

/** Returns a new path in `kept`. Makes nothing. */
export function newKeptPlace({ kept }: ControlPaths, operation: string): string {
  return join(kept, `${operation}-${new Date().toISOString().replaceAll(":", "")}`);
}

export interface WorkspacePaths {
  readonly root: string;
  readonly file: string;
  readonly state: string;
  readonly points: string;
  /** The lock of the only writer. */
  readonly lock: string;
  readonly journal: string;
  /** An empty file that exists once a point of the workspace held a tree, so that other workspaces need not search for one. */
  readonly holds: string;
  /** The last backup into each repository; for information only. */
  readonly backups: string;
  /** The workspace's backup repository, if one is set. */
  readonly repository: string;
  /** Log of the calls of agents' hooks, one JSON object a line; `.1` beside it has older lines. */
  readonly agentEvents: string;
  /** Numbers and ids of all points; made again if missing. */
  readonly catalog: string;
  /** Folder with the texts that filters compare; made again if missing. */
  readonly texts: string;
  /** Results of probing engines in the folder. */
  readonly engines: string;
  /** Its modification time says when a process last waited for the workspace's lock; disposable. */
  readonly wanted: string;
  /** Points to which no ignore rule applies; disposable. */
  readonly ruleless: string;
}

export function workspacePaths(control: ControlPaths, name: string): WorkspacePaths {
  const directory = workspaceDirectoryName(name);
  const root = join(control.workspaces, directory);
  return {
    root,
    file: join(root, "workspace.json"),
    state: join(root, "state.json"),
    points: join(root, "points"),
    lock: join(root, "lock"),
    journal: join(root, "journal"),
    holds: join(root, "holds-trees"),
    backups: join(root, "backups.json"),
    repository: join(root, "repository.json"),
    agentEvents: join(root, "agent-events.jsonl"),
    catalog: join(control.cache, `points-${directory}`),
    texts: join(control.cache, `texts-${directory}`),
    engines: join(control.cache, `engines-${directory}.json`),
    wanted: join(control.cache, `wanted-${directory}`),
    ruleless: join(control.cache, `ruleless-2-${directory}`),
  };
}

export interface PointPaths {
  readonly root: string;
  /** Id of the point that a claim was made for; removed once the point is complete. */
  readonly intent: string;
  readonly descriptor: string;
  readonly pin: string;
  readonly tags: string;
  readonly verification: string;
  /** change times of the entries that differ from the point before, if agents work in the folder; disposable */
  readonly times: string;
  /** the result of reading a held tree */
  readonly seal: string;
  /** the held tree of a point of an engine that clones */
  readonly tree: string;
  /** a link without a target file: its text is the identity of the tree that was made there */
  readonly treeIdentity: string;
  /** sources of the tree's entries, if they were cloned; disposable */
  readonly origins: string;
}

export function pointPaths(points: string, sequence: number): PointPaths {
  const root = `${points}/${pointDirectoryName(sequence)}`;
  return {
    root,
    intent: `${root}/intent`,
    descriptor: `${root}/descriptor.json`,
    pin: `${root}/pin.json`,
    tags: `${root}/tags.json`,
    verification: `${root}/verification.json`,
    times: `${root}/times.json`,
    seal: `${root}/seal.json`,
    tree: `${root}/tree`,
    treeIdentity: `${root}/tree-identity`,
    origins: `${root}/origins`,
  };
}

const MAX_SEQUENCE = 9_999_999_999;

/** Ten digits, so that names sort like numbers. */
export function pointDirectoryName(sequence: number): string {
  if (!Number.isSafeInteger(sequence) || sequence < 1 || sequence > MAX_SEQUENCE) {
    throw new CairnError("internal", `not a sequence number: ${sequence}`);
  }
  return String(sequence).padStart(10, "0");
}

const SEQUENCE_NAME = /^[0-9]{10}$/;

/** The number of a point's directory; 0 for other names. */
export function sequenceOfName(name: string): number {
  return name.length === 10 && SEQUENCE_NAME.test(name) ? Number(name) : 0;
}

const MAX_NAME_BYTES = 60;

/** Throws `usage` for an invalid workspace name: empty, over 60 bytes, or with control characters. */
export function checkWorkspaceName(name: string): void {
  // oxlint-disable-next-line no-control-regex
  const fits = name !== "" && Buffer.byteLength(name) <= MAX_NAME_BYTES && !/[\u0000-\u001f\u007f]/.test(name);
  if (fits) return;
  throw new CairnError("usage", `not a workspace name: ${JSON.stringify(name.slice(0, 80))}`, {
    hint: `use 1 to ${MAX_NAME_BYTES} bytes without control characters`,
  });
}

/** Name of a workspace's directory: the workspace's name, with each byte except letters, digits, `-`, `_` and inner dots as `%XX`. */
export function workspaceDirectoryName(name: string): string {
  checkWorkspaceName(name);
  let encoded = "";
  for (const [at, byte] of Buffer.from(name, "utf8").entries()) {
    const character = String.fromCharCode(byte);
    const plain = /[A-Za-z0-9_-]/.test(character) || (character === "." && at > 0);
    encoded += plain ? character : `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  }
  return encoded;
}

/** Decodes the name of a workspace's directory; null for other directories. */
export function workspaceNameOf(directory: string): string | null {
  if (!/^(?:[A-Za-z0-9_-]|%[0-9A-F]{2})(?:[A-Za-z0-9._-]|%[0-9A-F]{2})*$/.test(directory)) return null;
  const bytes = directory.replace(/%([0-9A-F]{2})/g, (_match, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 16)),
  );
  return Buffer.from(bytes, "latin1").toString("utf8");
}

/** The character that replaces bytes that are not UTF-8 in environment variables. */
const REPLACEMENT = "\uFFFD";
const ELSEWHERE = advice`choose a place with a UTF-8 path: ${option("controlDirectory", "--control-dir DIR")}, or set XDG_STATE_HOME`;

/**
 * Throws `unsupported` if a new control directory would lie below a name that is not UTF-8, also by a link in its path:
 * Cairn reaches it by text. Makes nothing.
 */
export function requireTextAbove(root: string): void {
  const real = realpathSync.native(existingAncestor(root), "buffer");
  if (!isUtf8(real)) throw notText(real, ELSEWHERE);
  requireWhole(root);
}

/** Throws `unsupported` for a new path in which bytes were replaced already. An existing path may have the character. */
export function requireWhole(path: string, hint: Hint = ELSEWHERE): void {
  const missing = Buffer.from(path).subarray(existingAncestor(path).length);
  if (missing.includes(REPLACEMENT)) throw notText(Buffer.from(path), hint);
}

/** The text of a real path in which a control directory will be made. Throws `unsupported`. */
export function textOf(real: Buffer): string {
  const hint = "choose a path in UTF-8";
  if (!isUtf8(real)) throw notText(real, hint);
  const text = real.toString("utf8");
  requireWhole(text, hint);
  return text;
}

function notText(path: Buffer, hint: Hint): CairnError {
  return new CairnError("unsupported", `no control directory can be made in ${printablePath(path)}: it is not UTF-8`, {
    hint,
  });
}
