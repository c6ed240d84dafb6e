import { parse, TomlError } from "smol-toml";
import { checkProbes } from "../backup/open/checks.ts";
import {
  BackupRetention as BackupRetentionSchema,
  Retention as RetentionSchema,
  type Retention,
} from "../contract/looking.ts";
import { checkValue, refuseUnknown, unknownMember } from "../contract/schema.ts";
import { CairnError, reworded, toCairnError } from "../errors.ts";
import { BACKENDS, type BackendType } from "../formats/records/daemon-state.ts";
import { readSmallFile } from "../fs/durable.ts";
import { printablePath } from "../fs/paths/safe-path.ts";
import { checkAlarm } from "../keep/alarm.ts";
import { keptLocation } from "../keep/kept-repository.ts";
import type { BackupRow } from "../keep/kept-runs.ts";
import { userId } from "../fs/users.ts";
import { checkRetention } from "../workspace/keep/retention.ts";
import { isLoopback, parseListen } from "./listen-address.ts";
import type { DaemonPlaces } from "./places.ts";

/** Settings of a daemon, with their defaults. Sizes are bytes, times milliseconds. */
export interface DaemonConfig {
  backend: {
    /** Null: the backend of the state, else the one that is detected. */
    type: BackendType | null;
    /** The folder below which workspaces lie with `btrfs-base`. */
    data_root: string | null;
  };
  loop: {
    /** The image has at most this size. Null: 30 GiB for a new image; an existing image is not grown. */
    bytes: number | null;
    percent_of_disk: number;
  };
  socket: {
    /** Members of this group may connect; null: only the daemon's own user and group. */
    group: string | null;
    connections: number;
    request_bytes: number;
    calls: number;
    /** Ids of users whose calls count as calls of agents. */
    agents: readonly number[];
  };
  http: {
    /** A TCP address, for example `127.0.0.1:7777`. Null: the daemon listens on no TCP address. */
    listen: string | null;
    /** Files in PEM, both or none. */
    certificate: string | null;
    key: string | null;
  };
  migrate: {
    /** The state directory of ws-ckpt. Null: its usual place, if this is the daemon of all users. */
    state: string | null;
    /** ws-ckpt's folder with live subvolumes and snapshots. Null: the folder that ws-ckpt's state names. */
    data_root: string | null;
  };
  retention: {
    /** Keep rules of workspaces that have none of their own; null: all points are kept. */
    keep: Retention | null;
    every_ms: number;
  };
  /** Both null: the daemon saves no folder automatically. */
  saves: {
    /** Time without a change after which a folder is saved, if changes are watched. */
    when_quiet_ms: number | null;
    /** The longest time that a change stays unsaved. */
    at_most_every_ms: number | null;
  };
  /** The highest ages of the last good save, backup and proof; null: no limit. */
  limits: Limits;
  alarm: {
    /** Command or URL that is called when saves or backups begin to fail, and when they succeed again; null: none. */
    on_failure: string | null;
  };
  backup: BackupRow[];
}

export interface Limits {
  save_age_ms: number | null;
  backup_age_ms: number | null;
  proof_age_ms: number | null;
}

const MAX_CONFIG_BYTES = 1 << 20;

const DEFAULTS: DaemonConfig = {
  backend: { type: null, data_root: null },
  loop: { bytes: null, percent_of_disk: 50 },
  socket: { group: null, connections: 256, request_bytes: 1 << 20, calls: 64, agents: [] },
  http: { listen: null, certificate: null, key: null },
  migrate: { state: null, data_root: null },
  retention: { keep: null, every_ms: 60 * 60_000 },
  saves: { when_quiet_ms: null, at_most_every_ms: null },
  limits: { save_age_ms: null, backup_age_ms: null, proof_age_ms: null },
  alarm: { on_failure: null },
  backup: [],
};

const ROW = {
  workspace: null,
  password_command: null,
  age_identity: null,
  verify_every_ms: null,
  read_all_within_ms: null,
  restore_check_every_ms: null,
  probe: [] as readonly string[],
  keep: null,
  prune_every_ms: null,
};

type Reader = (value: unknown) => unknown;

/**
 * Returns the settings, or the defaults if no file was named and the default file does not exist. Throws `usage` with
 * the file, the line and the error.
 */
export function readConfig({
  config: path,
  isConfigNamed,
}: Pick<DaemonPlaces, "config" | "isConfigNamed">): DaemonConfig {
  const bytes = readSmallFile(path, MAX_CONFIG_BYTES, true);
  if (bytes !== null) return parseConfig(bytes.toString("utf8"), path);
  if (isConfigNamed !== true) return DEFAULTS;
  throw new CairnError("usage", `there is no configuration file ${printablePath(path)}`, {
    hint: "name a file that exists; an empty file is valid, too",
  });
}

/** Returns the settings in a text. Throws `usage`. */
export function parseConfig(text: string, path: string): DaemonConfig {
  let tables: Record<string, unknown>;
  try {
    tables = parse(text);
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    const [problem = ""] = error.message.split("\n");
    throw wrong(path, error.line, problem.replace(/^Invalid TOML document: /, ""));
  }
  const { backup, ...others } = tables;
  const config = structuredClone(DEFAULTS) as unknown as Record<string, Record<string, unknown>>;
  for (const [table, members] of Object.entries(others)) {
    const known = Object.hasOwn(READERS, table) ? READERS[table] : undefined;
    const at = (key?: string): number => lineOf(text, table, key);
    if (known === undefined) throw wrong(path, at(), `there is no table [${table}]; known: ${names(READERS)}, backup`);
    if (!isTable(members)) throw wrong(path, at(), `[${table}] must be a table`);
    Object.assign(config[table]!, readTable(members, known, { path, name: `[${table}]`, at }));
  }
  const whole = { ...(config as unknown as DaemonConfig), backup: readRows(backup, text, path) };
  const problem = problemOf(whole.http);
  if (problem !== null) throw wrong(path, lineOf(text, "http", problem[0]), problem[1]);
  return whole;
}

/** Reads the members of a table, each with its own reader. Throws `usage` with the line. */
function readTable(
  members: Readonly<Record<string, unknown>>,
  known: Readonly<Record<string, Reader>>,
  { path, name, at }: { path: string; name: string; at: (key?: string) => number },
): object {
  const table = {};
  for (const [key, value] of Object.entries(members)) {
    const reader = Object.hasOwn(known, key) ? known[key] : undefined;
    if (reader === undefined)
      throw wrong(path, at(key), `${name} has no key ${JSON.stringify(key)}; known: ${names(known)}`);
    try {
      Object.assign(table, reader(value) as object);
    } catch (error) {
      if (error instanceof CairnError) throw wrong(path, at(key), `${key}: ${error.message}`);
      throw error;
    }
  }
  return table;
}

/** Reads the rows `[[backup]]`. Throws `usage` if a row lacks a member, or if two rows set the same thing. */
function readRows(given: unknown, text: string, path: string): BackupRow[] {
  if (given === undefined) return [];
  const rows: BackupRow[] = [];
  for (const [i, members] of (Array.isArray(given) ? (given as unknown[]) : [given]).entries()) {
    const at = (key?: string): number => lineOf(text, "backup", key, i);
    const fail = (problem: string): never => {
      throw wrong(path, at(), `[[backup]] ${problem}`);
    };
    if (!Array.isArray(given) || !isTable(members)) throw wrong(path, at(), "backup must be rows: [[backup]]");
    const row = { ...ROW, ...readTable(members, BACKUP_READERS, { path, name: "[[backup]]", at }) } as BackupRow;
    for (const key of ["repository", "password_file", "every"]) if (members[key] === undefined) fail(`needs ${key}`);
    const { workspace, repository, read_all_within_ms: within, verify_every_ms: verifyEvery } = row;
    if (within !== null && (verifyEvery === null || within < verifyEvery))
      fail("has read_all_within, which needs a verify_every that is not longer");
    if (row.keep !== null && row.prune_every_ms === null) fail("has keep, which needs prune_every");
    const same = rows.filter((each) => each.repository === repository);
    if (same.some((each) => each.workspace === workspace))
      fail("repeats the repository and the workspace of a row above");
    const care = (each: BackupRow): boolean => each.verify_every_ms !== null || each.prune_every_ms !== null;
    if (care(row) && same.some(care))
      fail("has verify_every or prune_every, which only one row of a repository may have");
    rows.push(row);
  }
  return rows;
}

/** The key of `[http]` that does not go with the other keys, and the reason. */
function problemOf({ listen, certificate, key }: DaemonConfig["http"]): [string, string] | null {
  if ((certificate === null) !== (key === null))
    return certificate === null
      ? ["key", "key: a key needs a certificate"]
      : ["certificate", "certificate: a certificate needs a key"];
  if (listen === null)
    return certificate === null ? null : ["certificate", "certificate: a certificate needs `listen`"];
  const { host } = parseListen(listen, "listen");
  if (certificate !== null || isLoopback(host)) return null;
  return [
    "listen",
    `listen: ${host} can be reached from other machines, and tokens and content would be sent unencrypted: name certificate and key, or listen on 127.0.0.1`,
  ];
}

const READERS: Readonly<Record<string, Readonly<Record<string, Reader>>>> = {
  backend: {
    type: (value) => ({ type: oneOf(value, BACKENDS) }),
    data_root: (value) => ({ data_root: absolute(value) }),
  },
  loop: {
    size: (value) => ({ bytes: size(value) }),
    percent_of_disk: (value) => ({ percent_of_disk: whole(value, 1, 100) }),
  },
  socket: {
    group: (value) => ({ group: text(value) }),
    connections: (value) => ({ connections: whole(value, 1, 10_000) }),
    request_size: (value) => ({ request_bytes: size(value) }),
    calls: (value) => ({ calls: whole(value, 1, 10_000) }),
    agents: (value) => ({ agents: users(value) }),
  },
  http: {
    listen: (value) => ({ listen: address(value) }),
    certificate: (value) => ({ certificate: absolute(value) }),
    key: (value) => ({ key: absolute(value) }),
  },
  migrate: {
    state: (value) => ({ state: absolute(value) }),
    data_root: (value) => ({ data_root: absolute(value) }),
  },
  retention: {
    keep: (value) => ({ keep: keepRules(value, RetentionSchema) }),
    every: (value) => ({ every_ms: span(value) }),
  },
  saves: {
    when_quiet: (value) => ({ when_quiet_ms: span(value) }),
    at_most_every: (value) => ({ at_most_every_ms: span(value) }),
  },
  limits: {
    save_age: (value) => ({ save_age_ms: span(value) }),
    backup_age: (value) => ({ backup_age_ms: span(value) }),
    proof_age: (value) => ({ proof_age_ms: span(value) }),
  },
  alarm: {
    on_failure: (value) => ({ on_failure: alarm(value) }),
  },
};

const BACKUP_READERS: Readonly<Record<string, Reader>> = {
  workspace: (value) => ({ workspace: absolute(value) }),
  repository: (value) => ({ repository: location(value) }),
  password_file: (value) => ({ password_file: absolute(value) }),
  every: (value) => ({ every_ms: span(value) }),
  verify_every: (value) => ({ verify_every_ms: span(value) }),
  read_all_within: (value) => ({ read_all_within_ms: span(value) }),
  restore_check_every: (value) => ({ restore_check_every_ms: span(value) }),
  probe: (value) => ({ probe: probes(value) }),
  keep: (value) => ({ keep: keepRules(value, BackupRetentionSchema) }),
  prune_every: (value) => ({ prune_every_ms: span(value) }),
};

function isTable(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Date);
}

function refuse(wanted: string): never {
  throw new CairnError("usage", `must be ${wanted}`);
}

function text(value: unknown): string {
  return typeof value === "string" && value !== "" ? value : refuse("a text");
}

function oneOf<const V extends readonly string[]>(value: unknown, values: V): V[number] {
  return values.includes(value as string) ? (value as V[number]) : refuse(`one of ${values.join(", ")}`);
}

function absolute(value: unknown): string {
  return typeof value === "string" && value.startsWith("/") ? value : refuse("an absolute path");
}

function address(value: unknown): string {
  const given = text(value);
  parseListen(given, "it");
  return given;
}

function alarm(value: unknown): string {
  const given = text(value);
  checkAlarm(given);
  return given;
}

function probes(value: unknown): string[] {
  if (!Array.isArray(value)) refuse(`a list of commands, for example ['sqlite3 "$DIR/a.db" "select count(*) from t"']`);
  const given = value.map(text);
  checkProbes(given);
  return given;
}

/** Reads ids of users from names, or from numbers for users without a name. */
function users(value: unknown): number[] {
  if (!Array.isArray(value)) refuse('a list of users, for example ["builder"]');
  return value.map((each: unknown) => {
    const id = typeof each === "number" ? whole(each, 1, 2 ** 32 - 2) : userId(text(each));
    if (id === null) refuse(`users of this machine; there is no ${String(each)}`);
    if (id === 0 || id === process.geteuid?.()) refuse("users other than root and the daemon's own");
    return id;
  });
}

/** Reads the location of a repository: without a password, and no path that depends on the daemon's current folder. */
function location(value: unknown): string {
  const given = text(value);
  try {
    const kept = keptLocation(given);
    if (kept === given || /^(?:local:)?\//.test(given)) return kept;
  } catch (error) {
    const { message, hint } = toCairnError(error);
    throw new CairnError("usage", hint === undefined ? message : `${message}; ${hint}`);
  }
  return refuse('an absolute path, or the location of another storage, for example "sftp:user@host:/path"');
}

function whole(value: unknown, least: number, most: number): number {
  const fits = typeof value === "number" && Number.isInteger(value) && value >= least && value <= most;
  return fits ? value : refuse(`a whole number from ${least} to ${most}`);
}

const UNITS: Readonly<Record<string, number>> = { "": 1, K: 1 << 10, M: 1 << 20, G: 1 << 30, T: 2 ** 40 };
const SPANS: Readonly<Record<string, number>> = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

const MOST_SPAN_MS = 3650 * 86_400_000;

function size(value: unknown): number {
  const found = /^([0-9]+)\s*([KMGT]?)(?:i?B)?$/.exec(typeof value === "number" ? String(value) : text(value));
  const bytes = found === null ? Number.NaN : Number(found[1]) * UNITS[found[2]!]!;
  return Number.isSafeInteger(bytes) && bytes > 0 ? bytes : refuse('a size such as "30GiB"');
}

function span(value: unknown): number {
  const found = /^([0-9]{1,6})([smhd])$/.exec(text(value));
  const ms = found === null ? 0 : Number(found[1]) * SPANS[found[2]!]!;
  return ms >= 1000 && ms <= MOST_SPAN_MS ? ms : refuse('a time from "1s" to "3650d"');
}

/** Reads keep rules: the policy's names in snake_case, with or without `keep_`. Throws `usage`. */
function keepRules(value: unknown, schema: typeof RetentionSchema | typeof BackupRetentionSchema): Retention {
  if (!isTable(value) || Object.keys(value).length === 0) refuse("a table of rules, for example { last = 20 }");
  const spelled = (name: string): string =>
    name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`).replace(/^keep_/, "");
  const known = new Map(Object.keys(schema.entries).map((name) => [spelled(name), name]));
  const rules = Object.fromEntries(
    Object.entries(value as object).map(([key, given]) => {
      const name = known.get(key.replace(/^keep_/, ""));
      if (name === undefined) throw new CairnError("usage", unknownMember("keep", key, [...known.keys()]));
      return [name, given as unknown];
    }),
  );
  let checked: Retention;
  try {
    refuseUnknown(schema, rules, "keep");
    checked = checkValue(schema, rules, "keep");
    checkRetention(checked);
  } catch (error) {
    // The error names rules as the file does.
    const failed = toCairnError(error);
    const message = failed.message.replaceAll(/\b(?:keep|max)[A-Z]\w*/g, (name) => spelled(name));
    throw reworded(failed, { message });
  }
  if (typeof checked.keepLast === "number" && checked.keepLast < 1) refuse("rules that keep at least the last point");
  return checked;
}

/** Returns the line of a key or table, from 1; the table's line if no line begins with the key. `nth`: index of the row, from 0. */
function lineOf(whole: string, table: string, key: string | undefined, nth = 0): number {
  const lines = whole.split("\n");
  const starts = lines.flatMap((line, i) => (new RegExp(`^\\s*\\[\\[?${table}\\]`).test(line) ? [i] : []));
  const start = starts[nth] ?? -1;
  if (key === undefined || start < 0) return Math.max(start, 0) + 1;
  const at = lines.findIndex((line, i) => i > start && line.trim().startsWith(key));
  return (at < 0 ? start : at) + 1;
}

function names(of: object): string {
  return Object.keys(of).join(", ");
}

function wrong(path: string, line: number, problem: string): CairnError {
  return new CairnError("usage", `${printablePath(path)}, line ${line}: ${problem}`, {
    hint: "correct the file, and start or reload the daemon again; nothing was changed",
  });
}
