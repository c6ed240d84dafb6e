import { Command, CommanderError, Option } from "commander";
import { COMMANDS } from "./commands/index.ts";
import type { CommandDefinition } from "./command.ts";
import { GLOBAL_OPTIONS } from "./definitions.ts";
import type { Globals } from "./context.ts";
import { Input, parseWait, usage } from "./input.ts";
import { VERSION } from "./version.ts";

/** What the arguments ask for. */
export type Parsed =
  | { kind: "call"; name: string; definition: CommandDefinition; input: Input; globals: Globals }
  | { kind: "print"; name: string | null; text: string; json: boolean };

const WITH_VALUE = new Set(["-C", "--directory", "--progress", "--control-dir", "--lock-timeout"]);

/** The first word that is no option: the command's name. */
export function commandNameOf(argv: readonly string[]): string | undefined {
  for (let i = 0; i < argv.length; i++) {
    const word = argv[i] as string;
    if (word === "--") return argv[i + 1];
    if (!word.startsWith("-") || word === "-") return word;
    if (WITH_VALUE.has(word)) i++;
  }
  return undefined;
}

/** Whether an error found while parsing has to be told as JSON: parsing stopped before it could know. */
export function asksForJson(argv: readonly string[]): boolean {
  const end = argv.indexOf("--");
  return (end === -1 ? argv : argv.slice(0, end)).includes("--json");
}

/** `help save` is `save --help`, which loads the command that it is about. */
function asHelpOption(argv: readonly string[]): readonly string[] {
  const place = argv.indexOf("help");
  if (place === -1 || commandNameOf(argv) !== "help") return argv;
  const rest = argv.slice(place + 1);
  const about = rest.find((word) => !word.startsWith("-"));
  const options = [...argv.slice(0, place), ...rest.filter((word) => word !== about)];
  if (about === undefined) return [...options, "--help"];
  return Object.hasOwn(COMMANDS, about) ? [...options, about, "--help"] : [...options, about];
}

/** Reads the arguments. Throws `usage`. */
export async function parse(given: readonly string[]): Promise<Parsed> {
  const argv = asHelpOption(given);
  const name = commandNameOf(argv);
  const entry = name !== undefined && Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  const definition = entry === undefined ? undefined : (await entry.load()).command;
  let printed = "";
  let call: { args: unknown[]; options: Record<string, unknown> } | undefined;
  const program = buildProgram(definition, (args, options) => {
    call = { args, options };
  });
  for (const command of [program, ...program.commands]) {
    command.exitOverride().configureOutput({
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
    // `commander.help` only says that there was no command.
    if (!(error instanceof CommanderError)) throw error;
    if (error.code !== "commander.help") throw usageError(error, name, definition);
  }
  if (call === undefined || definition === undefined || name === undefined) {
    if (json) throw usage("no command was given", "`cairn --help` lists the commands");
    program.outputHelp();
    return { kind: "print", name: null, text: printed, json };
  }
  const globals = readGlobals(program.opts());
  return { kind: "call", name, definition, input: new Input(call.args as string[], call.options), globals };
}

function usageError(error: CommanderError, name: string | undefined, definition: CommandDefinition | undefined): Error {
  const [first = "", ...more] = error.message.replace(/^error: /, "").split("\n");
  const help =
    definition === undefined ? "`cairn --help` lists the commands" : `\`cairn ${name} --help\` shows what it takes`;
  const suggestion = more
    .join(" ")
    .trim()
    .replace(/^\(|\)$/g, "");
  return usage(first, suggestion === "" ? help : `${suggestion} ${help}`);
}

type Called = (args: unknown[], options: Record<string, unknown>) => void;

/** The whole program; only one command, if any, with its arguments and options. */
export function buildProgram(definition: CommandDefinition | undefined, called: Called): Command {
  const program = new Command("cairn")
    .description("Keeps every state of the folders that agents and people work in.")
    .version(VERSION, "-V, --version", "print the version")
    .helpOption("-h, --help", "print help")
    .helpCommand("help [command]", "print help of a command")
    .configureHelp({ showGlobalOptions: true })
    .addHelpText("after", GENERAL_EXAMPLES);
  for (const option of GLOBAL_OPTIONS) {
    const made = new Option(option.flags, option.text);
    if (option.flags.startsWith("--progress")) made.choices(["auto", "plain", "json"]);
    program.addOption(made);
  }
  for (const [name, entry] of Object.entries(COMMANDS)) {
    const command = program
      .command(name, { hidden: entry.hidden ?? false })
      .description(entry.summary)
      .helpGroup(`${entry.group}:`);
    command.helpOption("-h, --help", "print help").configureHelp({ showGlobalOptions: true });
    if (definition?.name === name) addDefinition(command, definition, called);
  }
  return program;
}

function addDefinition(command: Command, definition: CommandDefinition, called: Called): void {
  for (const argument of definition.arguments ?? []) command.argument(argument.name, argument.text);
  for (const option of definition.options ?? []) {
    const made = new Option(option.flags, option.text);
    if (option.repeat === true)
      made.argParser((value: string, before: string[] | undefined) => [...(before ?? []), value]);
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
A save point (POINT, TARGET) is named by its id, any unique prefix of it, latest, head or head~N.

Examples:
  $ cairn save                      save the folder you are in
  $ cairn history                   what there is to go back to
  $ cairn restore head~1            go back by one; the present is saved first
  $ cairn undo                      and back again
`;

function readGlobals(options: Record<string, unknown>): Globals {
  const globals: Globals = {
    json: options["json"] === true,
    quiet: options["quiet"] === true,
    colour: options["color"] !== false,
    progress: (options["progress"] ?? "auto") as Globals["progress"],
  };
  if (typeof options["directory"] === "string") globals.directory = options["directory"];
  if (typeof options["controlDir"] === "string") globals.controlDirectory = options["controlDir"];
  if (typeof options["lockTimeout"] === "string")
    globals.lockTimeoutMs = parseWait(options["lockTimeout"], "--lock-timeout");
  return globals;
}
