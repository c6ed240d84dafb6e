import { isUtf8 } from "node:buffer";
import { realpathSync } from "node:fs";
import { join } from "node:path";
import { storePaths } from "../store/store-paths.ts";
import { advice, CairnError, type Hint, option } from "../../errors.ts";
import { printablePath } from "../../fs/paths/safe-path.ts";
import type { WorkspaceId } from "../../ids.ts";
import { existingAncestor } from "./room.ts";

/** Paths of everything in a control directory, all absolute. */

/** The control directory's name beside a self-contained workspace, whose folder is `main`. */
export const SELF_CONTAINED_CONTROL = ".cairn";
export const MAIN_WORKSPACE = "main";
/** At the root of a mount: holds control directories by id. */
export const MOUNT_CONTROL = ".cairn-control";

export interface ControlPaths {
  readonly root: string;
  /** The file that makes the directory a control directory. */
  readonly file: string;
  /** The embedded repository in restic's format. */
  readonly store: string;
  readonly storePassword: string;
  readonly storeKey: string;
  /** Unfinished things; whoever holds the lock may remove them. */
  readonly temporary: string;
  /** Files that can be made again. */
  readonly cache: string;
  /** Room for what frees room. */
  readonly spare: string;
  readonly workspaces: string;
  readonly lock: string;
  /** Retention and quota, where they were set. */
  readonly policy: string;
  /** Cleanups that were looked at and not done. */
  readonly plans: string;
  /** Notes of what removals had to leave in the store. */
  readonly unfreed: string;
  /** Views: a lease and a folder each. */
  readonly views: string;
  /** Folders that are being made elsewhere. */
  readonly partial: string;
  /** Leftovers of interrupted operations, for somebody to look at; nothing reads them. */
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
    plans: join(root, "plans"),
    unfreed: join(root, "unfreed"),
    views: join(root, "views"),
    partial: join(root, "partial"),
    kept: join(root, "kept"),
  };
}

/** A workspace's entries as they were last seen. */
export function statCachePath(control: ControlPaths, id: WorkspaceId): string {
  return join(control.cache, `stat-${id}`);
}

/** A place of its own among what is kept; nothing is made. */
export function newKeptPlace({ kept }: ControlPaths, operation: string): string {
  return join(kept, `${operation}-${new Date().toISOString().replaceAll(":", "")}`);
}

export interface WorkspacePaths {
  readonly root: string;
  readonly file: string;
  readonly state: string;
  readonly points: string;
  /** Held by the one writer. */
  readonly lock: string;
  readonly journal: string;
  /** Empty; there once a point of the workspace held a tree, so that others need not look for one. */
  readonly holds: string;
  /** An earlier build's record of a folder as it was before its conversion. */
  readonly original: string;
  /** The last backup into each repository; for information only. */
  readonly backups: string;
  /** The repository that it is backed up into, where one was kept. */
  readonly repository: string;
  /** Log of the calls of agents' hooks, a line of JSON each; `.1` beside it is its older part. */
  readonly agentEvents: string;
  /** Numbers and ids of all points; made again when missing. */
  readonly catalog: string;
  /** Facts about the engines for its folder. */
  readonly engines: string;
  /** Its time says when somebody last waited for the workspace's lock; disposable. */
  readonly wanted: string;
  /** Points in which no ignore rule has a part; disposable. */
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
    original: join(root, "original.json"),
    backups: join(root, "backups.json"),
    repository: join(root, "repository.json"),
    agentEvents: join(root, "agent-events.jsonl"),
    catalog: join(control.cache, `points-${directory}`),
    engines: join(control.cache, `engines-${directory}.json`),
    wanted: join(control.cache, `wanted-${directory}`),
    ruleless: join(control.cache, `ruleless-2-${directory}`),
  };
}

export interface PointPaths {
  readonly root: string;
  /** Id of the point that a claim was made for; gone once the point is complete. */
  readonly intent: string;
  readonly descriptor: string;
  readonly pin: string;
  readonly tags: string;
  readonly verification: string;
  /** what reading a held tree found out */
  readonly seal: string;
  /** the held tree of a point of an engine that clones */
  readonly tree: string;
  /** a link to no file: its text says which tree was made there */
  readonly treeIdentity: string;
  /** what the entries of that tree were cloned from; disposable */
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
    seal: `${root}/seal.json`,
    tree: `${root}/tree`,
    treeIdentity: `${root}/tree-identity`,
    origins: `${root}/origins`,
  };
}

const MAX_SEQUENCE = 9_999_999_999;

/** Ten digits, so that names sort as numbers do. */
export function pointDirectoryName(sequence: number): string {
  if (!Number.isSafeInteger(sequence) || sequence < 1 || sequence > MAX_SEQUENCE) {
    throw new CairnError("internal", `not a sequence number: ${sequence}`);
  }
  return String(sequence).padStart(10, "0");
}

const SEQUENCE_NAME = /^[0-9]{10}$/;

/** The number behind a directory's name, 0 for any other name. */
export function sequenceOfName(name: string): number {
  return name.length === 10 && SEQUENCE_NAME.test(name) ? Number(name) : 0;
}

const MAX_NAME_BYTES = 60;

/** Throws `usage` when a text may not be a workspace's name: empty, over 60 bytes, with control characters. */
export function checkWorkspaceName(name: string): void {
  // oxlint-disable-next-line no-control-regex
  const fits = name !== "" && Buffer.byteLength(name) <= MAX_NAME_BYTES && !/[\u0000-\u001f\u007f]/.test(name);
  if (fits) return;
  throw new CairnError("usage", `not a workspace name: ${JSON.stringify(name.slice(0, 80))}`, {
    hint: `use 1 to ${MAX_NAME_BYTES} bytes without control characters`,
  });
}

/** A workspace's directory: its name, with every byte but letters, digits, `-`, `_` and inner dots as `%XX`. */
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

/** The name behind a directory; null when the directory is none of ours. */
export function workspaceNameOf(directory: string): string | null {
  if (!/^(?:[A-Za-z0-9_-]|%[0-9A-F]{2})(?:[A-Za-z0-9._-]|%[0-9A-F]{2})*$/.test(directory)) return null;
  const bytes = directory.replace(/%([0-9A-F]{2})/g, (_match, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 16)),
  );
  return Buffer.from(bytes, "latin1").toString("utf8");
}

/** The character that bytes which are not UTF-8 become in variables. */
const REPLACEMENT = "\uFFFD";
const ELSEWHERE = advice`choose a place with a UTF-8 path: ${option("controlDirectory", "--control-dir DIR")}, or set XDG_STATE_HOME`;

/**
 * Throws `unsupported` where a control directory that is to be made would lie below a name that is not UTF-8: it is reached by
 * text all the way, also by the links on it. Makes nothing.
 */
export function requireTextAbove(root: string): void {
  const real = realpathSync.native(existingAncestor(root), "buffer");
  if (!isUtf8(real)) throw notText(real, ELSEWHERE);
  requireWhole(root);
}

/** Throws `unsupported` for a path that has lost its bytes already, which would be another one. A name that has the character is there. */
export function requireWhole(path: string, hint: Hint = ELSEWHERE): void {
  const missing = Buffer.from(path).subarray(existingAncestor(path).length);
  if (missing.includes(REPLACEMENT)) throw notText(Buffer.from(path), hint);
}

/** The text of a real path in which a control directory is to be made. Throws `unsupported`. */
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
