type Paths = "files" | "folders";

/** Things that the shell completes at a place: words that can stand there are listed, also beside paths. */
export type Completes = "points" | Paths | readonly string[] | { words: readonly string[]; or: Paths };

export interface ArgumentDefinition {
  /** As commander writes it: `<one>`, `[optional]`, `[many...]`. */
  name: string;
  text: string;
  completes?: Completes;
  /** Things to complete at each of the places of one that takes several; the last repeats. */
  places?: readonly Completes[];
}

export interface OptionDefinition {
  /** As commander writes it: `-m, --message <text>`. */
  flags: string;
  text: string;
  /** May be given several times; the values become a list. */
  repeat?: boolean;
  /** All that the value can be, for the shells' completion. */
  values?: readonly string[];
}

/** Options and arguments of a command, as the shells' completion needs them. */
export interface Taken {
  arguments?: readonly ArgumentDefinition[];
  options?: readonly OptionDefinition[];
  verbs?: VerbTable<Taken>;
}

/** A command as the help and the shells' completion need it. */
export interface TableEntry {
  summary: string;
  hidden?: boolean;
  load(): Promise<{ command: Taken }>;
}

/** The commands of a group, by name, in the order of the help. Only the one that is called gets loaded. */
export type VerbTable<Definition> = Readonly<
  Record<string, { summary: string; load(): Promise<{ command: Definition }> }>
>;

/** By name, in the order of the help. */
export type CommandTable = Readonly<Record<string, TableEntry>>;

export const GLOBAL_OPTIONS: readonly OptionDefinition[] = [
  { flags: "-C, --directory <dir>", text: "the workspace; default: the nearest one at or above the current folder" },
  { flags: "--json", text: "print one JSON object on stdout" },
  {
    flags: "--progress <how>",
    text: "progress on stderr: auto (on a terminal), plain or json",
    values: ["auto", "plain", "json"],
  },
  { flags: "-q, --quiet", text: "print only errors and requested output" },
  { flags: "--no-color", text: "no colours (also NO_COLOR=1; FORCE_COLOR=1 forces colours in a pipe)" },
  { flags: "--no-pager", text: "do not page long output (also CAIRN_PAGER=cat)" },
  { flags: "--control-dir <dir>", text: "path of the control directory, existing or new" },
  { flags: "--lock-timeout <time>", text: "how long to wait for another writer, e.g. 30s (default 10s)" },
];

/** Options of a server. `secret`: what clients send to it; `file`: what they upload. */
export function serverOptions({ listen, secret, file }: Readonly<Record<"listen" | "secret" | "file", string>>) {
  return {
    listen: { flags: "--listen <address>", text: `HOST:PORT; port 0: a free port (default ${listen})` },
    noAuth: {
      flags: "--no-auth",
      text: `allow access without a ${secret} to every client that can reach the address`,
    },
    maxFileSize: { flags: "--max-file-size <size>", text: `largest ${file} to accept (default 1GiB)` },
    check: { flags: "--check", text: "only check whether the server could start with these options" },
  };
}
