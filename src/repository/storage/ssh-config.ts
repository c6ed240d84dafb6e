import { append } from "../../append.ts";
import { existsSync, globSync, readFileSync } from "node:fs";
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
  /** Null: its port is connected to. */
  readonly via: SshVia | null;
}

/** Through other hosts, one after the other; or through what a shell's command reads and writes. */
export type SshVia = { readonly jumps: readonly JumpHost[] } | { readonly command: string };

/** A host on the way; what it leaves open is what `~/.ssh/config` says of it. */
export interface JumpHost {
  readonly alias: string;
  readonly user?: string | undefined;
  readonly port?: number | undefined;
}

export interface SshSettingsOptions {
  /** What the location says goes before the file. */
  user?: string | undefined;
  port?: number | undefined;
  /** Default `~/.ssh/config`, which need not be there; one that is named has to be. */
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
]);
/** Of both together the first holds. */
const PROXY = new Set(["proxyjump", "proxycommand"]);
const DEEPEST_INCLUDE = 16;

/**
 * What `~/.ssh/config` says of a host. Read are `Host` blocks with patterns, `Include`, and of the keywords those
 * above; everything else is passed over, and so are `Match` blocks other than `Match all`. The first value of a
 * keyword holds.
 */
export function sshSettings(alias: string, options: SshSettingsOptions = {}): SshSettings {
  const home = options.home ?? homeDirectory();
  const values: Values = new Map();
  const file = options.file ?? join(home, ".ssh/config");
  if (options.file !== undefined && !existsSync(file))
    throw new CairnError("not_found", `the configuration of ssh that was named is not there: ${file}`, {
      hint: "correct CAIRN_SFTP_CONFIG; /dev/null stands for none",
    });
  readInto(values, { file, alias: alias.toLowerCase(), home, depth: 0, active: true });
  const first = (keyword: string): string | undefined => values.get(keyword)?.[0];
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
    via: viaOf(values.get("proxy"), { host, alias, user, port }, file),
  };
}

function viaOf(proxy: readonly string[] | undefined, to: HostTokens, file: string): SshVia | null {
  const [keyword, text = ""] = proxy ?? [];
  if (keyword === undefined || text.toLowerCase() === "none") return null;
  // A location may come from somebody else: no part of it is to be a command of its own.
  for (const word of [to.host, to.alias, to.user])
    if (!/^[A-Za-z0-9._:%+][A-Za-z0-9._:%+@-]*$/.test(word))
      throw new CairnError("usage", `${JSON.stringify(word)} is no name that a host behind another one can have`, {
        hint: `see ${keyword === "proxyjump" ? "ProxyJump" : "ProxyCommand"} in ${file}`,
      });
  const expanded = expandHost(text, to);
  if (keyword === "proxycommand") return { command: expanded };
  return { jumps: expanded.split(",").map((word) => jumpHost(word, file)) };
}

/** `[user@]host[:port]` or an address `ssh://` of these. */
function jumpHost(word: string, file: string): JumpHost {
  const match = /^(?:ssh:\/\/)?(?:([^@\s]+)@)?(?:\[([^\]\s]+)\]|([^:@/\s]+))(?::(\d+))?\/?$/.exec(word.trim());
  if (match === null)
    throw new CairnError("usage", `${file}: ProxyJump wants [user@]host[:port], found ${JSON.stringify(word)}`);
  return { alias: (match[2] ?? match[3])!, user: match[1], port: portOf(match[4], file) };
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
    } else if (PROXY.has(keyword)) {
      if (!values.has("proxy")) values.set("proxy", [keyword, keyword === "proxyjump" ? words[0]! : restOf(line)]);
    } else if (READ.has(keyword)) {
      const before = values.get(keyword);
      if (before === undefined) values.set(keyword, words);
      else if (keyword === "identityfile") append(before, words);
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

const KEYWORD_AND_REST = /^\s*([A-Za-z0-9]+)(?:\s*=\s*|\s+)(.*)$/;

/** What follows the keyword, as it is. */
function restOf(line: string): string {
  return KEYWORD_AND_REST.exec(line)?.[2]?.trim() ?? "";
}

/** Keyword in lower case and its words; `keyword=word` and quotes are understood, a comment is none. */
function wordsOf(line: string): string[] {
  const match = KEYWORD_AND_REST.exec(line);
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

interface HostTokens {
  readonly host: string;
  readonly alias: string;
  readonly user: string;
  readonly port: number;
}

interface Tokens extends HostTokens {
  readonly home: string;
  readonly env: Readonly<Record<string, string | undefined>>;
}

function expand(path: string, tokens: Tokens): string {
  return expandHost(
    path
      .replace(/^~(?=\/|$)/, tokens.home)
      .replaceAll(/\$\{([A-Za-z0-9_]+)\}/g, (whole, name: string) => tokens.env[name] ?? whole),
    tokens,
    { "%d": tokens.home, "%u": currentUser().username },
  );
}

function expandHost(text: string, tokens: HostTokens, more: Readonly<Record<string, string>> = {}): string {
  const values: Record<string, string> = {
    "%%": "%",
    "%h": tokens.host,
    "%n": tokens.alias,
    "%p": String(tokens.port),
    "%r": tokens.user,
    ...more,
  };
  return text.replaceAll(/%[%dhnpru]/g, (token) => values[token] ?? token);
}
