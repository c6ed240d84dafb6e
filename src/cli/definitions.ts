type Paths = "files" | "folders";

/** Candidates of shell completion: kinds of things, or words, which may be combined with paths. */
export type Completes = "points" | Paths | readonly string[] | { words: readonly string[]; or: Paths };

export interface ArgumentDefinition {
  /** In commander's form: `<one>`, `[optional]`, `[many...]`. */
  name: string;
  text: string;
  completes?: Completes;
  /** First words of the command that take the argument, and need it unless it may be repeated; the others refuse it. */
  of?: readonly string[];
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
  /** The group that the option belongs to, if several commands share it. */
  group?: OptionGroup;
  /** An option without which this one is an error. */
  needs?: string;
  /** Options, and names of arguments, with which this one is an error. "all others": all other options. */
  excludes?: readonly string[] | "all others";
  /** First words of the command with which alone the option works. */
  of?: readonly string[];
}

/** Returns options that work only with another option or first word, which their help names. */
export function only(
  rule: Pick<OptionDefinition, "needs" | "of">,
  options: readonly OptionDefinition[],
): readonly OptionDefinition[] {
  const begin = rule.of?.join(", ") ?? `with ${rule.needs}`;
  return options.map((option) => ({ ...option, ...rule, text: `${begin}: ${option.text}` }));
}

/** Returns options that others exclude. */
export function excluding(
  excludes: NonNullable<OptionDefinition["excludes"]>,
  options: readonly OptionDefinition[],
): readonly OptionDefinition[] {
  return options.map((option) => ({ ...option, excludes }));
}

/** Groups of options that several commands share, with their headings. docs/cli.md prints each group once. */
export const OPTION_GROUPS = {
  repository: "Options of a repository",
  snapshots: "Options that choose snapshots",
  retention: "Rules that keep points or snapshots",
  change: "Options of a change of the folder",
  saving: "Options of a save",
} as const;
export type OptionGroup = keyof typeof OPTION_GROUPS;

/** Returns the options as a group, or those of them that `shared` has. */
export function grouped(
  group: OptionGroup,
  options: readonly OptionDefinition[],
  shared: readonly OptionDefinition[] = options,
): readonly OptionDefinition[] {
  const flags = new Set(shared.map((option) => option.flags));
  return options.map((option) => (flags.has(option.flags) ? { ...option, group } : option));
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
  { flags: "--control-dir <dir>", text: "path of the control directory, existing or new" },
  { flags: "--lock-timeout <time>", text: "how long to wait for another writer, e.g. 30s (default 10s)" },
];

/** Options of a server. `secret`: the credential that clients send. */
export function serverOptions({ listen, secret }: Readonly<Record<"listen" | "secret", string>>) {
  return {
    listen: { flags: "--listen <address>", text: `HOST:PORT; port 0: a free port (default ${listen})` },
    noAuth: {
      flags: "--no-auth",
      text: `allow access without a ${secret} to every client that can reach the address`,
    },
    check: { flags: "--check", text: "only check whether the server could start with these options" },
  };
}
