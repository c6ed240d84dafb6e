import { globSync, readFileSync } from "node:fs";
import { isAbsolute, join } from "node:path";
import { currentUser, homeDirectory } from "../../fs/users.ts";
import { CairnError, toCairnError } from "../../errors.ts";
import { matchesPatterns } from "./ssh-known-hosts.ts";

/** How a host is reached, from what the user said and `~/.ssh/config`. */
export interface SshSettings {
  readonly host: string;
  readonly port: number;
  readonly user: string;
  /** Under which the host's key is noted instead of its own name. */
  readonly hostKeyAlias: string | null;
  /** Named in the file, in their order; empty when none is. */
  readonly identityFiles: readonly string[];
  /** True: no other keys of the agent are offered. */
  readonly identitiesOnly: boolean;
  /** Socket of the agent: a path, null for none, undefined when the file says nothing. */
  readonly identityAgent: string | null | undefined;
  /** Undefined when the file says nothing. */
  readonly knownHostsFiles: readonly string[] | undefined;
}

export interface SshSettingsOptions {
  /** What the location says goes before the file. */
  user?: string | undefined;
  port?: number | undefined;
  /** Default `~/.ssh/config`; one that is not there says nothing. */
  file?: string | undefined;
  /** Default: the user's. */
  home?: string | undefined;
  env?: Readonly<Record<string, string | undefined>> | undefined;
}

/** First value of each keyword, all of IdentityFile. */
type Values = Map<string, string[]>;

const READ = new Set([
  "hostname",
  "port",
  "user",
  "hostkeyalias",
  "identityfile",
  "identitiesonly",
  "identityagent",
  "userknownhostsfile",
  "proxyjump",
  "proxycommand",
]);
const DEEPEST_INCLUDE = 16;

/**
 * What `~/.ssh/config` says of a host. Read are `Host` blocks with patterns, `Include`, and of the keywords those
 * above; everything else is passed over, and so are `Match` blocks other than `Match all`. The first value of a
 * keyword holds. A host that is reached through another one (`ProxyJump`, `ProxyCommand`) is `unsupported`.
 */
export function sshSettings(alias: string, options: SshSettingsOptions = {}): SshSettings {
  const home = options.home ?? homeDirectory();
  const values: Values = new Map();
  const file = options.file ?? join(home, ".ssh/config");
  readInto(values, { file, alias: alias.toLowerCase(), home, depth: 0, active: true });
  const first = (keyword: string): string | undefined => values.get(keyword)?.[0];
  for (const keyword of ["proxyjump", "proxycommand"]) {
    if ((first(keyword) ?? "none").toLowerCase() !== "none") throw throughAnother(alias, keyword, file);
  }
  const host = (first("hostname") ?? alias).replaceAll(/%[h%]/g, (token) => (token === "%%" ? "%" : alias));
  const port = options.port ?? portOf(first("port"), file) ?? 22;
  const user = options.user ?? first("user") ?? currentUser().username;
  const whole = (path: string): string =>
    expand(path, { home, host, alias, user, port, env: options.env ?? process.env });
  const agent = first("identityagent");
  return {
    host,
    port,
    user,
    hostKeyAlias: first("hostkeyalias") ?? null,
    identityFiles: (values.get("identityfile") ?? []).filter((path) => path.toLowerCase() !== "none").map(whole),
    identitiesOnly: first("identitiesonly")?.toLowerCase() === "yes",
    identityAgent:
      agent === undefined || agent === "SSH_AUTH_SOCK" ? undefined : agent === "none" ? null : whole(agent),
    knownHostsFiles: values
      .get("userknownhostsfile")
      ?.filter((path) => path.toLowerCase() !== "none")
      .map(whole),
  };
}

interface Reading {
  readonly file: string;
  readonly alias: string;
  readonly home: string;
  readonly depth: number;
  readonly active: boolean;
}

function readInto(values: Values, reading: Reading): void {
  let active = reading.active;
  for (const line of textOf(reading.file).split("\n")) {
    const [keyword, ...words] = wordsOf(line);
    if (keyword === undefined || words.length === 0) continue;
    if (keyword === "host") {
      active =
        reading.active &&
        matchesPatterns(
          words.map((word) => word.toLowerCase()),
          reading.alias,
        );
    } else if (keyword === "match") {
      active = reading.active && words.length === 1 && words[0]!.toLowerCase() === "all";
    } else if (!active) {
      continue;
    } else if (keyword === "include") {
      include(values, words, reading);
    } else if (READ.has(keyword)) {
      const before = values.get(keyword);
      if (before === undefined) values.set(keyword, words);
      else if (keyword === "identityfile") before.push(...words);
    }
  }
}

function include(values: Values, patterns: readonly string[], reading: Reading): void {
  if (reading.depth >= DEEPEST_INCLUDE) {
    throw new CairnError("usage", `${reading.file} includes files more than ${DEEPEST_INCLUDE} deep`, {
      hint: "look for a file that includes itself",
    });
  }
  for (const pattern of patterns) {
    const path = pattern.replace(/^~(?=\/|$)/, reading.home);
    const whole = isAbsolute(path) ? path : join(reading.home, ".ssh", path);
    for (const file of globSync(whole).toSorted()) {
      readInto(values, { ...reading, file, depth: reading.depth + 1, active: true });
    }
  }
}

function textOf(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    if (["ENOENT", "ENOTDIR"].includes((error as NodeJS.ErrnoException).code ?? "")) return "";
    throw toCairnError(error, `cannot read ${file}`);
  }
}

/** Keyword in lower case and its words; `keyword=word` and quotes are understood, a comment is none. */
function wordsOf(line: string): string[] {
  const match = /^\s*([A-Za-z0-9]+)(?:\s*=\s*|\s+)(.*)$/.exec(line);
  if (match === null) return [];
  const words: string[] = [];
  for (const [, quoted, plain] of match[2]!.matchAll(/"([^"]*)"|(\S+)/g)) {
    if (plain?.startsWith("#") === true) break;
    words.push(quoted ?? plain!);
  }
  return [match[1]!.toLowerCase(), ...words];
}

function portOf(text: string | undefined, file: string): number | undefined {
  if (text === undefined) return undefined;
  const port = /^\d{1,5}$/.test(text) ? Number(text) : 0;
  if (port >= 1 && port <= 65_535) return port;
  throw new CairnError("usage", `${file}: a port from 1 to 65535 is wanted, found ${JSON.stringify(text)}`);
}

interface Tokens {
  readonly home: string;
  readonly host: string;
  readonly alias: string;
  readonly user: string;
  readonly port: number;
  readonly env: Readonly<Record<string, string | undefined>>;
}

function expand(path: string, tokens: Tokens): string {
  const values: Record<string, string> = {
    "%%": "%",
    "%d": tokens.home,
    "%h": tokens.host,
    "%n": tokens.alias,
    "%p": String(tokens.port),
    "%r": tokens.user,
    "%u": currentUser().username,
  };
  return path
    .replace(/^~(?=\/|$)/, tokens.home)
    .replaceAll(/\$\{([A-Za-z0-9_]+)\}/g, (whole, name: string) => tokens.env[name] ?? whole)
    .replaceAll(/%[%dhnpru]/g, (token) => values[token]!);
}

function throughAnother(alias: string, keyword: string, file: string): CairnError {
  const name = keyword === "proxyjump" ? "ProxyJump" : "ProxyCommand";
  return new CairnError("unsupported", `${alias} is reached by ${name} (${file}), which Cairn does not do`, {
    hint: `forward a port (ssh -N -L 2222:HOST:22 JUMPHOST), name it as sftp://USER@localhost:2222/PATH and note the host's key for [localhost]:2222; or set ${name} to none for this host`,
  });
}
