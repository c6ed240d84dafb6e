import { readFileSync } from "node:fs";
import { homedir, userInfo } from "node:os";
import { isAbsolute, join } from "node:path";
import { CairnError } from "../errors.ts";

/** Names of users and groups as the machine's own files have them; one copy per thread, read once. */

type Names = ReadonlyMap<number, string>;

/** Reads lines `name:…:id:…`, by id; of several lines for one id the first counts, as in libc. */
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

/** The name of a user id, "" when it has none here. */
export function userName(uid: number): string {
  return userNames().get(uid) ?? "";
}

/** The name of a group id, "" when it has none here. */
export function groupName(gid: number): string {
  return groupNames().get(gid) ?? "";
}

/** The number of a user by their name, as the machine's own file has it now; null when it has none. */
export function userId(name: string): number | null {
  for (const [uid, each] of load("/etc/passwd")) if (each === name) return uid;
  return null;
}

/** The number of a group by its name; null when this machine's own file has none. */
export function groupId(name: string): number | null {
  for (const [gid, each] of groupNames()) if (each === name) return gid;
  return null;
}

/** The users in a group, by number, as far as the machine's own files name them. */
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

/** Home directories of people and of root, as the machine's own file gives them; not those of its services. */
export function homeDirectories(): string[] {
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
    if ((uid === 0 || uid >= FIRST_PERSON) && uid !== NOBODY && home.startsWith("/") && home !== "/") homes.push(home);
  }
  return homes;
}

export interface CurrentUser {
  /** Its number where nothing on this machine names it, as often in containers. */
  username: string;
  uid: number;
  gid: number;
}

/** Whoever runs this process. */
export function currentUser(): CurrentUser {
  try {
    const { username, uid, gid } = userInfo();
    return { username, uid: Math.max(uid, 0), gid: Math.max(gid, 0) };
  } catch {
    const [uid, gid] = [process.getuid?.() ?? 0, process.getgid?.() ?? 0];
    return { username: String(uid), uid, gid };
  }
}

/** Their home directory, absolute; null where neither `HOME` nor the machine says which that is. */
export function knownHome(env: Environment = process.env): string | null {
  for (const ask of [() => absolutePath(env, "HOME"), homedir, () => userInfo().homedir]) {
    try {
      const home = ask();
      if (home !== null && isAbsolute(home)) return home;
    } catch {
      // Nobody says which.
    }
  }
  return null;
}

/** Returns the user's home directory. Throws `usage` where it is not known. */
export function homeDirectory(env: Environment = process.env): string {
  const home = knownHome(env);
  if (home !== null) return home;
  throw new CairnError("usage", "the home directory of this user is not known", {
    hint: "set HOME, or XDG_STATE_HOME and XDG_CACHE_HOME, to absolute paths",
  });
}

/** `$XDG_STATE_HOME/cairn`, else `~/.local/state/cairn`. Throws `usage` if neither is known. */
export function userStateDirectory(env: Environment = process.env): string {
  return join(absolutePath(env, "XDG_STATE_HOME") ?? join(homeDirectory(env), ".local/state"), "cairn");
}

/** `$XDG_CACHE_HOME/cairn`, else `~/.cache/cairn`; whatever lies there can be made again. Throws `usage` where neither is known. */
export function userCacheDirectory(env: Environment = process.env): string {
  return join(absolutePath(env, "XDG_CACHE_HOME") ?? join(homeDirectory(env), ".cache"), "cairn");
}

type Environment = Readonly<Record<string, string | undefined>>;

/** A folder that a variable names; null also for a relative path, which would be another folder for each current one. */
export function absolutePath(env: Environment, variable: string): string | null {
  const path = env[variable];
  return path !== undefined && isAbsolute(path) ? path : null;
}
