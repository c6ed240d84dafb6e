import { posix } from "node:path";
import { CairnError } from "../../../errors.ts";

export interface SftpLocation {
  /** The host as given: a name, an alias of `~/.ssh/config`, or an address (IPv6 without brackets). */
  readonly host: string;
  readonly user: string | undefined;
  readonly port: number | undefined;
  /** A relative path begins in the folder in which the server starts the session. */
  readonly path: string;
}

const EXAMPLES =
  "sftp:user@host:/srv/backups or sftp://user@host:2222//srv/backups; one slash after the host is a path in the user's home";

/**
 * Characters that OpenSSH refuses in a name, but older versions accept: a name must not become an option or a part of a
 * ProxyCommand.
 */
const UNSAFE_HOST = /^-|[\s\0-\x1f\x7f'`"$\\;&<>|(){}]/;
const UNSAFE_USER = /(?:^|\s)-|[\0-\x1f\x7f'`";&<>|(){}]|\\$/;

/** Matches `password@host:` in `user:password@host:path` after the first colon. */
const AS_PASSWORD = /^[^/]*@[^/:@]+:/;

/**
 * Parses the text after `sftp:` as restic does: `[user@]host:path`, or `//[user@]host[:port]/path`, with two slashes
 * before an absolute path. Throws `usage` for other texts, and for a password.
 */
export function parseSftpLocation(rest: string): SftpLocation {
  return rest.startsWith("//") ? ofUrl(rest.slice(2)) : ofCopyForm(rest);
}

function ofCopyForm(rest: string): SftpLocation {
  // An address in brackets has colons. Otherwise the first colon ends the host; an @ after it belongs to the path.
  const match = /^(?:([^:]*)@)?(\[[^\]]*\]|[^:@]*):(.*)$/s.exec(rest);
  if (match === null) throw notOne(rest, "a colon between host and path");
  const [, user, host, path] = match;
  if (user === undefined && AS_PASSWORD.test(path!))
    throw noPassword("; write ./ before a path that begins so, as in sftp:host:./a@b:c");
  return { user: userOf(user, rest), host: hostOf(host!, rest), port: undefined, path: pathOf(path!, rest) };
}

function ofUrl(rest: string): SftpLocation {
  const match = /^(?:([^/]*)@)?(\[[^\]/]*\]|[^:/@]*)(?::([^/]*))?\/(.*)$/s.exec(rest);
  if (match === null) throw notOne(rest, "a host, a slash and a path");
  const [, user, host, port, path] = match;
  if (user?.includes(":") === true) throw noPassword();
  return {
    user: userOf(user === undefined ? undefined : decoded(user, rest), rest),
    host: hostOf(host!, rest),
    port: portOf(port, rest),
    path: pathOf(decoded(path!, rest), rest),
  };
}

function noPassword(otherwise = ""): CairnError {
  return new CairnError("usage", "a location must not have a password in it", {
    hint: `use a key or an agent: every user of this machine could read the password${otherwise}`,
  });
}

function decoded(text: string, rest: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw notOne(rest, "two hex digits after each %");
  }
}

function userOf(user: string | undefined, rest: string): string | undefined {
  if (user === "" || (user !== undefined && UNSAFE_USER.test(user))) throw notOne(rest, "a user's name before the @");
  return user;
}

function hostOf(host: string, rest: string): string {
  const bare = host.replace(/^\[(.*)\]$/, "$1");
  if (bare === "" || UNSAFE_HOST.test(bare)) throw notOne(rest, "a host");
  return bare;
}

function portOf(port: string | undefined, rest: string): number | undefined {
  if (port === undefined || port === "") return undefined;
  const number = /^\d{1,5}$/.test(port) ? Number(port) : 0;
  if (number < 1 || number > 65_535) throw notOne(rest, "a port from 1 to 65535");
  return number;
}

function pathOf(path: string, rest: string): string {
  if (path === "" || path.includes("\0")) throw notOne(rest, "a path");
  if (path.startsWith("~")) {
    throw new CairnError("usage", `SFTP servers do not know ~ in ${JSON.stringify(path)}`, {
      hint: "a path without a slash in front begins in the user's home: sftp:user@host:backups",
    });
  }
  const clean = posix.normalize(path);
  return clean.length > 1 ? clean.replace(/\/$/, "") : clean;
}

function notOne(rest: string, wanted: string): CairnError {
  const found = JSON.stringify(`sftp:${rest.replace(/:[^:@/]*@/, ":…@")}`);
  return new CairnError("usage", `the location of an SFTP repository needs ${wanted}, found ${found}`, {
    hint: `for example ${EXAMPLES}`,
  });
}

/** Returns the location for messages, without secrets. */
export function printSftpLocation(location: SftpLocation): string {
  const host = location.host.includes(":") ? `[${location.host}]` : location.host;
  if (location.port === undefined) {
    const path = location.user === undefined && AS_PASSWORD.test(location.path) ? `./${location.path}` : location.path;
    return `sftp:${location.user === undefined ? "" : `${location.user}@`}${host}:${path}`;
  }
  const user = location.user === undefined ? "" : `${encodeURIComponent(location.user)}@`;
  return `sftp://${user}${host}:${location.port}/${encodeURI(location.path)}`;
}
