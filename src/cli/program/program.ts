import { Command, CommanderError, Option } from "commander";
import { COMMANDS, MAIN_COMMANDS } from "./commands.ts";
import type { CommandDefinition } from "../command.ts";
import { GLOBAL_OPTIONS, OPTION_GROUPS } from "../definitions.ts";
import type { Globals } from "../context.ts";
import { Input, parseWait, usage } from "../input.ts";
import { VERSION } from "../../formats/program.ts";
import { requireFitting } from "./together.ts";
import { formerOption, OPTIONS_OF_RESTIC, WORDS, WORDS_OF_BACKUP } from "./other-words.ts";

export type Parsed =
  | { kind: "call"; name: string; definition: CommandDefinition; input: Input; globals: Globals }
  | { kind: "print"; name: string | null; text: string; json: boolean };

const ALL = "--all";

/** Global options that take a value. */
const WITH_VALUE = new Set(["-C", "--directory", "--progress", "--control-dir", "--lock-timeout"]);

/** Returns the first word that is no option: the command's name. */
export function commandNameOf(argv: readonly string[]): string | undefined {
  return argv[commandPlace(argv)];
}

/** Index of the command's name; the line's length without one. */
function commandPlace(argv: readonly string[]): number {
  for (let i = 0; i < argv.length; i++) {
    const word = argv[i] as string;
    if (word === "--") return i + 1;
    if (!word.startsWith("-") || word === "-") return i;
    if (WITH_VALUE.has(word)) i++;
  }
  return argv.length;
}

/** True if an error must be printed as JSON although parsing stopped before it read the options. */
export function asksForJson(argv: readonly string[]): boolean {
  const end = argv.indexOf("--");
  return (end === -1 ? argv : argv.slice(0, end)).includes("--json");
}

/** True for `help --all`, which lists every command. */
function asksForAll(argv: readonly string[]): boolean {
  const place = commandPlace(argv);
  return (
    commandNameOf(argv) === "help" && argv.slice(place + 1).every((word) => word.startsWith("-")) && argv.includes(ALL)
  );
}

/** Turns `help save` into `save --help`, which loads that command. */
function asHelpOption(argv: readonly string[]): readonly string[] {
  const place = commandPlace(argv);
  if (argv[place] !== "help") return argv;
  const rest = argv.slice(place + 1);
  const [about, ...verb] = rest.filter((word) => !word.startsWith("-"));
  const options = [...argv.slice(0, place), ...rest.filter((word) => word.startsWith("-"))];
  if (about === undefined) return [...options.filter((word) => word !== ALL), "--help"];
  return Object.hasOwn(COMMANDS, about) ? [...options, about, ...verb, "--help"] : [...options, about];
}

/** Turns `backup help restore` into `backup restore --help`. */
function asHelpOfVerb(argv: readonly string[]): readonly string[] {
  const place = commandPlace(argv);
  return argv[place + 1] === "help" ? [...argv.slice(0, place + 1), ...argv.slice(place + 2), "--help"] : argv;
}

/**
 * Returns the verb of a group's line, and the line with the verb right behind the group's name. Null without a verb.
 */
function withVerb(argv: readonly string[], group: CommandDefinition): { argv: readonly string[]; verb: string } | null {
  const start = commandPlace(argv) + group.name.split(" ").length;
  const at = firstWord(argv, start, group);
  const word = argv[at];
  // `backup DIR`, as in restic. After an option the word may be that option's value.
  if (group.name === "backup" && at === start && word !== undefined && /^\.{1,2}$|\//.test(word))
    return { argv: argv.toSpliced(start, 0, "create"), verb: "create" };
  if (word === undefined || !Object.hasOwn(group.verbs ?? {}, word)) return null;
  return { argv: [...argv.slice(0, start), word, ...argv.slice(start, at), ...argv.slice(at + 1)], verb: word };
}

/** Index of the first word from `start` on that is neither an option nor an option's value; the line's length without one. */
function firstWord(argv: readonly string[], start: number, { options = [] }: CommandDefinition): number {
  const valued = new Set(WITH_VALUE);
  for (const { flags } of options)
    if (flags.includes("<")) for (const word of flags.split(/[ ,]+/)) if (word.startsWith("-")) valued.add(word);
  let at = start;
  while (at < argv.length && argv[at]!.startsWith("-")) {
    if (argv[at] === "--") return at;
    at += valued.has(argv[at]!) ? 2 : 1;
  }
  return Math.min(at, argv.length);
}

/** Adds `--` before a command that has its own words and options, as `env` and `nice` accept it. */
function withOwnWords(argv: readonly string[], definition: CommandDefinition): readonly string[] {
  const at = firstWord(argv, commandPlace(argv) + 1, definition);
  return at === argv.length || argv[at] === "--" ? argv : [...argv.slice(0, at), "--", ...argv.slice(at)];
}

/** The command that a line names, if known. */
interface Named {
  /** The line with `help` and a group's verb moved to the position at which they are parsed. */
  argv: readonly string[];
  /** The command, or the group if its verb is unknown; undefined if both are unknown. */
  definition: CommandDefinition | undefined;
  /** The groups that have the command, the outermost first, and the command itself if it has verbs. */
  groups: readonly CommandDefinition[];
}

async function named(given: readonly string[]): Promise<Named> {
  const asked = asHelpOption(given);
  const command = commandNameOf(asked);
  const entry = command !== undefined && Object.hasOwn(COMMANDS, command) ? COMMANDS[command] : undefined;
  let definition = entry === undefined ? undefined : (await entry.load()).command;
  if (definition?.takesCommand === true) return { argv: withOwnWords(asked, definition), definition, groups: [] };
  let argv = definition?.verbs === undefined ? asked : asHelpOfVerb(asked);
  const groups: CommandDefinition[] = [];
  while (definition?.verbs !== undefined) {
    groups.push(definition);
    const chosen = withVerb(argv, definition);
    if (chosen === null) break;
    argv = chosen.argv;
    definition = (await definition.verbs[chosen.verb]!.load()).command;
  }
  return { argv, definition, groups };
}

/** The name of the command or group in the arguments, even if the rest is wrong; null without one. */
export async function understoodName(argv: readonly string[]): Promise<string | null> {
  return (await named(argv)).definition?.name ?? null;
}

/** Parses the arguments. Throws `usage`. */
export async function parse(given: readonly string[]): Promise<Parsed> {
  const { argv, definition, groups } = await named(given);
  const name = definition?.name;
  const group = groups.at(-1);
  await refuseHelpOfNothing(given, definition);
  let printed = "";
  let call: { args: unknown[]; options: Record<string, unknown> } | undefined;
  const called: Called = (args, options) => {
    call = { args, options };
  };
  const program = buildProgram({ definition, groups, all: asksForAll(given) }, called);
  for (const each of withInner(program)) {
    each.exitOverride().configureOutput({
      writeOut: (text) => {
        printed += text;
      },
      writeErr() {},
    });
  }
  const json = asksForJson(argv);
  try {
    program.parse([...argv], { from: "user" });
  } catch (error) {
    const shown =
      error instanceof CommanderError && ["commander.helpDisplayed", "commander.version"].includes(error.code);
    if (shown) return { kind: "print", name: name ?? null, text: printed, json };
    // `commander.help` only means that no command was given.
    if (!(error instanceof CommanderError)) throw error;
    if (error.code !== "commander.help") throw await usageError(error, name, definition);
  }
  if (call === undefined || definition === undefined || name === undefined) {
    if (json && group !== undefined)
      throw usage(`cairn ${group.name} needs a verb`, `\`cairn ${group.name} --help\` lists them`);
    if (json) throw usage("no command was given", "`cairn --help` lists the commands");
    let named = program;
    for (const word of group?.name.split(" ") ?? []) named = named.commands.find((each) => each.name() === word)!;
    named.outputHelp();
    return { kind: "print", name: null, text: printed, json };
  }
  const globals = readGlobals(program.opts());
  const input = new Input(call.args as string[], call.options);
  requireFitting(definition, input);
  return { kind: "call", name, definition, input, globals };
}

/** Throws `usage` if a word after `help` is no command, instead of printing the help of the group. */
async function refuseHelpOfNothing(given: readonly string[], definition: CommandDefinition | undefined): Promise<void> {
  if (commandNameOf(given) !== "help" || definition === undefined) return;
  const words = given.slice(commandPlace(given) + 1).filter((word) => !word.startsWith("-"));
  const surplus = words[definition.name.split(" ").length];
  if (surplus === undefined) return;
  const instead = definition.verbs === undefined ? null : await insteadOf(surplus, definition);
  throw usage(
    `there is no command ${JSON.stringify(`${definition.name} ${surplus}`)}`,
    instead ?? `\`cairn ${definition.name} --help\` shows its options`,
  );
}

async function usageError(
  error: CommanderError,
  name: string | undefined,
  definition: CommandDefinition | undefined,
): Promise<Error> {
  const [first = "", ...more] = error.message.replace(/^error: /, "").split("\n");
  const help =
    definition === undefined ? "`cairn --help` lists the commands" : `\`cairn ${name} --help\` shows its options`;
  if (error.code === "commander.unknownCommand") {
    const instead = await insteadOf(/'([^']*)'/.exec(first)?.[1] ?? "", definition);
    return usage(first, instead === null ? help : `${instead}${instead.endsWith("?") ? "" : ";"} ${help}`);
  }
  if (error.code === "commander.excessArguments" && name === "cleanup")
    return usage(first, `to remove named points: \`cairn cleanup drop POINT\`; ${help}`);
  if (error.code === "commander.excessArguments" && name === "diff")
    return usage(first, `for one file: \`cairn diff head~1 head --path FILE\`; ${help}`);
  const unknown = /unknown option '(-{1,2}[a-z0-9-]+)/.exec(first)?.[1] ?? "";
  const own = [...(definition?.options ?? []), ...GLOBAL_OPTIONS].flatMap(({ flags }) => flags.split(/[ ,]+/));
  const former = formerOption(unknown, name ?? "", own);
  if (former !== null) return usage(first, `${former}; ${help}`);
  const other = OPTIONS_OF_RESTIC[unknown];
  if (other !== undefined && own.includes(other.split(/[ ,]/)[0]!))
    return usage(first, `use ${other} instead; ${help}`);
  const opposite = oppositeOf(unknown.slice(2), own);
  if (opposite !== null) return usage(first, `${opposite}; ${help}`);
  const suggestion = more
    .join(" ")
    .trim()
    .replace(/^\(|\)$/g, "");
  const named =
    error.code === "commander.unknownOption"
      ? `${help}; to pass an argument that begins with "-", put it after "--"`
      : help;
  return usage(first, suggestion === "" ? named : `${suggestion} ${help}`);
}

/** Explains an option that is the default, if only its opposite exists. */
function oppositeOf(name: string, own: readonly string[]): string | null {
  if (own.includes(`--no-${name}`)) return `--${name} is the default unless --no-${name} is given: leave it out`;
  const bare = name.replace(/^no-/, "");
  return bare !== name && own.includes(`--${bare}`)
    ? `--${name} is the default unless --${bare} is given: leave it out`
    : null;
}

/**
 * Returns a sentence with the commands that a word may mean; null if none is similar. A verb that changes something is
 * proposed only for its beginning, or for an equivalent word of another program.
 */
async function insteadOf(word: string, group: CommandDefinition | undefined): Promise<string | null> {
  const table = group?.verbs ?? COMMANDS;
  const names = Object.keys(table).filter((each) => !each.startsWith("_"));
  const line = (name: string): string => `\`cairn ${group === undefined ? "" : `${group.name} `}${name}\``;
  const words = group === undefined ? WORDS : group.name === "backup" ? WORDS_OF_BACKUP : {};
  const harmless = async (some: readonly string[], nameOf: (each: string) => string | undefined): Promise<string[]> => {
    const loaded = await Promise.all(some.map(async (each) => table[nameOf(each) ?? ""]?.load()));
    return some.filter((_, i) => loaded[i]?.command.harmless === true || loaded[i]?.command.answers === true);
  };
  const longer = word.length > 2 ? Object.keys(words).filter((each) => each.startsWith(word)) : [];
  const namedBy = (each: string): string | undefined => words[each]!.split(" ")[group === undefined ? 0 : 1];
  const isSentence = (each: string): boolean => words[each]!.includes("`");
  const known = Object.hasOwn(words, word) ? word : ((await harmless(longer, namedBy))[0] ?? longer.find(isSentence));
  const begun = names.filter((each) => word !== "" && each.startsWith(word));
  if (begun.length > 0) return `did you mean ${begun.map(line).join(" or ")}?`;
  if (known !== undefined) return isSentence(known) ? words[known]! : `use \`cairn ${words[known]}\` instead`;
  if (group === undefined && Object.hasOwn((await COMMANDS["backup"]!.load()).command.verbs ?? {}, word))
    return `for a repository use \`cairn backup ${word}\``;
  const near = await harmless(
    names.filter((each) => isMisspelt(word, each)),
    (each) => each,
  );
  return near.length === 0 ? null : `did you mean ${near.map(line).join(" or ")}?`;
}

/** True if one letter added, removed or replaced, or two letters exchanged, turn one word into the other. */
function isMisspelt(word: string, name: string): boolean {
  if (name.length < 4 || Math.abs(word.length - name.length) > 1) return false;
  let start = 0;
  while (start < word.length && word[start] === name[start]) start++;
  let end = 0;
  while (end < Math.min(word.length, name.length) - start && word.at(-1 - end) === name.at(-1 - end)) end++;
  const [inWord, inName] = [word.slice(start, word.length - end), name.slice(start, name.length - end)];
  const isSwapped = inWord.length === 2 && inName === `${inWord[1]}${inWord[0]}`;
  return isSwapped || (inWord.length <= 1 && inName.length <= 1);
}

type Called = (args: unknown[], options: Record<string, unknown>) => void;

interface Wanted extends Pick<Named, "definition" | "groups"> {
  /** The help lists every command, not only {@link MAIN_COMMANDS}. */
  all?: boolean;
}

/** Builds the parser with all commands; at most one of them has its arguments and options. */
function buildProgram(wanted: Wanted, called: Called): Command {
  const program = new Command("cairn")
    .description("Saves a folder's state whenever you, an agent's hook or a timer asks, and restores any of them.")
    .version(VERSION, "-V, --version", "print the version")
    .helpOption("-h, --help", "print help")
    .helpCommand("help [command]", "print help of a command; `cairn help --all` lists every command")
    .configureHelp({ showGlobalOptions: true })
    .addHelpText("after", GENERAL_EXAMPLES);
  for (const option of GLOBAL_OPTIONS) {
    const made = new Option(option.flags, option.text);
    if (option.values !== undefined) made.choices(option.values);
    program.addOption(made);
  }
  for (const [name, entry] of Object.entries(COMMANDS)) {
    const hidden = entry.hidden === true || !(wanted.all === true || MAIN_COMMANDS.has(name));
    const command = program.command(name, { hidden }).description(entry.summary).helpGroup(`${entry.group}:`);
    addContent(command, name, { wanted, called });
  }
  return program;
}

/** Adds the verbs, arguments and options of the command called `name`, if the line names it. */
function addContent(command: Command, name: string, of: { wanted: Wanted; called: Called }): void {
  const { definition, groups } = of.wanted;
  command.helpOption("-h, --help", "print help").configureHelp({ showGlobalOptions: true });
  const group = groups.find((each) => each.name === name);
  if (group !== undefined) command.helpCommand(false);
  for (const [verb, { summary }] of Object.entries(group?.verbs ?? {}))
    addContent(command.command(verb).description(summary), `${name} ${verb}`, of);
  if (definition?.name === name && definition.needsVerb !== true) addDefinition(command, definition, of.called);
  else if (group !== undefined) command.addHelpText("after", examplesText(group));
}

function withInner(command: Command): Command[] {
  return [command, ...command.commands.flatMap(withInner)];
}

function addDefinition(command: Command, definition: CommandDefinition, called: Called): void {
  for (const argument of definition.arguments ?? []) command.argument(argument.name, argument.text);
  for (const option of definition.options ?? []) {
    const made = new Option(option.flags, option.text);
    if (option.repeat === true)
      made.argParser((value: string, before: string[] | undefined) => [...(before ?? []), value]);
    else if (made.required)
      made.argParser((value: string, before: string | undefined) => {
        if (before === undefined || before === value) return value;
        throw usage(`${made.long ?? option.flags} was given twice: as ${before} and as ${value}`, "give it once");
      });
    if (option.group !== undefined) made.helpGroup(`${OPTION_GROUPS[option.group]}:`);
    command.addOption(made);
  }
  command.addHelpText("after", examplesText(definition));
  command.action((...all: unknown[]) => {
    called(all.slice(0, -2), command.opts());
  });
}

function examplesText(definition: CommandDefinition): string {
  const lines = definition.examples.map((example) => `  $ ${example.line}\n      ${example.text}`);
  return `\nExamples:\n${lines.join("\n")}\n`;
}

const GENERAL_EXAMPLES = `
A save point (POINT, TARGET) is named by its id, a unique prefix of it, latest, head, head~N
(N saves before head), or a time: yesterday, "2 hours ago", "2026-11-23 14:00".

Examples:
  $ cairn save                      save the folder you are in
  $ cairn history                   what there is to go back to
  $ cairn restore head~1            go back to the point before; the present is saved first
  $ cairn undo                      and back again
`;

function readGlobals(options: Record<string, unknown>): Globals {
  const globals: Globals = {
    json: options["json"] === true,
    quiet: options["quiet"] === true,
    progress: (options["progress"] ?? "auto") as Globals["progress"],
  };
  if (typeof options["directory"] === "string") globals.directory = options["directory"];
  if (typeof options["controlDir"] === "string") globals.controlDirectory = options["controlDir"];
  if (typeof options["lockTimeout"] === "string")
    globals.lockTimeoutMs = parseWait(options["lockTimeout"], "--lock-timeout");
  return globals;
}
