import { readFileSync, statSync } from "node:fs";
import { userInfo } from "node:os";
import { dirname, join } from "node:path";
import { CairnError } from "../errors.ts";
import { absolutePath, type Environment, knownHome, knownStateDirectory } from "./home.ts";
import { insideId, isSystemRoot, namespaceIds } from "./linux/user-namespace.ts";

export { absolutePath, knownHome } from "./home.ts";

/** Names of users and groups in the machine's own files; one copy per thread, read once. */

type Names = ReadonlyMap<number, string>;

/** Reads lines `name:…:id:…`, by id. If several lines have one id the first counts, as in libc. */
export function parseNames(text: string): Names {
  const names = new Map<number, string>();
  for (const line of text.split("\n")) {
    const fields = line.split(":");
    const name = fields[0] ?? "";
    const id = /^[0-9]{1,10}$/.test(fields[2] ?? "") ? Number(fields[2]) : -1;
    if (name === "" || name.startsWith("#") || id < 0) continue;
    if (!names.has(id)) names.set(id, name);
  }
  return names;
}

function load(path: string): Names {
  try {
    return parseNames(readFileSync(path, "utf8"));
  } catch {
    return parseNames("");
  }
}

let users: Names | undefined;
let groups: Names | undefined;

function userNames(): Names {
  return (users ??= load("/etc/passwd"));
}

function groupNames(): Names {
  return (groups ??= load("/etc/group"));
}

/** Returns the name of a user to record beside the id; "" for an id without a name, and in a user namespace. */
export function userName(uid: number): string {
  return namespaceIds() === null ? userHere(uid) : "";
}

/** Returns the name that a user id of a file has here; "" if it has none. */
export function userHere(uid: number): string {
  return userNames().get(insideId("uids", uid)) ?? "";
}

/** Returns the name of a group to record beside the id; "" for an id without a name, and in a user namespace. */
export function groupName(gid: number): string {
  return namespaceIds() === null ? groupHere(gid) : "";
}

/** Returns the name that a group id of a file has here; "" if it has none. */
export function groupHere(gid: number): string {
  return groupNames().get(insideId("gids", gid)) ?? "";
}

/** The id of a user by name, from the machine's present file; null if the name is unknown. */
export function userId(name: string): number | null {
  for (const [uid, each] of load("/etc/passwd")) if (each === name) return uid;
  return null;
}

/** The id of a group by name; null if this machine's own file lacks the name. */
export function groupId(name: string): number | null {
  for (const [gid, each] of groupNames()) if (each === name) return gid;
  return null;
}

/** Ids of the users in a group, as far as the machine's own files name them. */
export function membersOf(gid: number): number[] {
  const [people, all] = ["/etc/passwd", "/etc/group"].map((file) => {
    try {
      return readFileSync(file, "utf8")
        .split("\n")
        .map((line) => line.split(":"));
    } catch {
      return [];
    }
  });
  const named = new Set(all!.flatMap((fields) => (fields[2] === String(gid) ? (fields[3] ?? "").split(",") : [])));
  return people!.flatMap(([name = "", , uid, primary]) =>
    primary === String(gid) || named.has(name) ? [Number(uid)] : [],
  );
}

const FIRST_PERSON = 1000;
const NOBODY = 65534;

/** Lists the home directories that /etc/passwd has for people and root, not for services. `only`: id of the one user who is asked for. */
export function homeDirectories(only?: number): string[] {
  let text: string;
  try {
    text = readFileSync("/etc/passwd", "utf8");
  } catch {
    return [];
  }
  const homes: string[] = [];
  for (const line of text.split("\n")) {
    const fields = line.split(":");
    const uid = Number(fields[2]);
    const home = fields[5] ?? "";
    if (only !== undefined && uid !== only) continue;
    if ((uid === 0 || uid >= FIRST_PERSON) && uid !== NOBODY && home.startsWith("/") && home !== "/") homes.push(home);
  }
  return homes;
}

export interface CurrentUser {
  /** The user's id as text if this machine has no name for it, as often in containers. */
  username: string;
  uid: number;
  gid: number;
}

/** The user who runs this process. */
export function currentUser(): CurrentUser {
  try {
    const { username, uid, gid } = userInfo();
    return { username, uid: Math.max(uid, 0), gid: Math.max(gid, 0) };
  } catch {
    const [uid, gid] = [process.getuid?.() ?? 0, process.getgid?.() ?? 0];
    return { username: String(uid), uid, gid };
  }
}

/** Returns the user's home directory. Throws `usage` if it is unknown. */
export function homeDirectory(env: Environment = process.env): string {
  const home = knownHome(env);
  if (home !== null) return home;
  throw new CairnError("usage", "the home directory of this user is not known", {
    hint: "set HOME, or XDG_STATE_HOME and XDG_CACHE_HOME, to absolute paths",
  });
}

/** `$XDG_STATE_HOME/cairn`, else `~/.local/state/cairn`. Throws `usage` if neither is known. */
export function userStateDirectory(env: Environment = process.env): string {
  return knownStateDirectory(env) ?? homeDirectory(env);
}

/**
 * `$XDG_CACHE_HOME/cairn`, else `~/.cache/cairn`; everything in it can be made again. For root in another user's home
 * (`sudo -E`) it is that of root's own home. Throws `usage` if neither is known.
 */
export function userCacheDirectory(env: Environment = process.env): string {
  const place = join(absolutePath(env, "XDG_CACHE_HOME") ?? join(homeDirectory(env), ".cache"), "cairn");
  return isOthersPlace(place) ? join(userInfo().homedir, ".cache", "cairn") : place;
}

/**
 * True if this is root and a place, or the first folder above it that exists, belongs to another user. Root writes no
 * caches there: the other user could not use them.
 */
export function isOthersPlace(place: string): boolean {
  if (process.geteuid?.() !== 0) return false;
  for (let at = place; ; at = dirname(at)) {
    const found = statSync(at, { throwIfNoEntry: false });
    if (found !== undefined) return found.uid !== 0;
    if (at === "/") return false;
  }
}

/** Returns the folder of virtual machines: from the environment, else by the file system hierarchy standard or XDG. */
export function machinesRoot(env: Environment): string {
  const named = absolutePath(env, "CAIRN_MACHINES");
  if (named !== null) return named;
  if (isSystemRoot()) return "/var/lib/cairn/machines";
  const data = absolutePath(env, "XDG_DATA_HOME") ?? join(homeDirectory(env), ".local/share");
  return join(data, "cairn", "machines");
}
