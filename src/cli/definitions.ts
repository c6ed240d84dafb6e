type Paths = "files" | "folders";

/** Candidates of shell completion: kinds of things, or words, which may be combined with paths. */
export type Completes = "points" | Paths | readonly string[] | { words: readonly string[]; or: Paths };

export interface ArgumentDefinition {
  /** In commander's form: `<one>`, `[optional]`, `[many...]`. */
  name: string;
  text: string;
  completes?: Completes;
  /** Candidates for each place of a repeated argument; the last entry repeats. */
  places?: readonly Completes[];
}

export interface OptionDefinition {
  /** In commander's form: `-m, --message <text>`. */
  flags: string;
  text: string;
  /** May be given several times; the values become a list. */
  repeat?: boolean;
  /** All possible values, for completion. */
  values?: readonly string[];
}

/** Options and arguments of a command, for completion. */
export interface Taken {
  arguments?: readonly ArgumentDefinition[];
  options?: readonly OptionDefinition[];
  verbs?: VerbTable<Taken>;
}

/** A command, for the help and for completion. */
export interface TableEntry {
  summary: string;
  hidden?: boolean;
  load(): Promise<{ command: Taken }>;
}

/** The commands of a group, by name, in the order of the help. Only the called command gets loaded. */
export type VerbTable<Definition> = Readonly<
  Record<string, { summary: string; load(): Promise<{ command: Definition }> }>
>;

/** Commands by name, in the order of the help. */
export type CommandTable = Readonly<Record<string, TableEntry>>;

export const GLOBAL_OPTIONS: readonly OptionDefinition[] = [
  { flags: "-C, --directory <dir>", text: "the workspace, or a folder in it; default: the current folder" },
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

/** Options of a server. `secret`: the credential that clients send; `file`: the kind of uploaded file. */
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
