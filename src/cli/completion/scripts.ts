import { GLOBAL_OPTIONS } from "../definitions.ts";
import type { ArgumentDefinition, CommandTable, OptionDefinition, TableEntry } from "../definitions.ts";
import { bashScript } from "./bash.ts";
import { fishScript } from "./fish.ts";
import type { CommandWords, Completes, OptionWords } from "./words.ts";
import { zshScript } from "./zsh.ts";

export const SHELLS = ["bash", "zsh", "fish"] as const;
export type Shell = (typeof SHELLS)[number];

/** Returns the completion script of a shell, from the table of commands. */
export async function completionScript(shell: Shell, table: CommandTable): Promise<string> {
  const commands = await readTable(table);
  const globals = GLOBAL_OPTIONS.map(optionWords);
  if (shell === "bash") return bashScript(commands, globals);
  return shell === "zsh" ? zshScript(commands, globals) : fishScript(commands, globals);
}

const ALL = optionWords({ flags: "--all", text: "list every command" });

/** Returns every visible command, with the words to complete. */
async function readTable(table: CommandTable): Promise<CommandWords[]> {
  const visible = Object.entries(table).filter(([, entry]) => entry.hidden !== true);
  const commands = await Promise.all(visible.map(async ([name, entry]) => wordsOf(name, entry)));
  const names = commands.map(({ name }) => name);
  const text = "print help of a command";
  const helped = commands.map((command): CommandWords => {
    const verbs = command.verbs.map(({ name }) => name);
    return { ...command, options: [], verbs: [], arguments: verbs.length === 0 ? [] : [verbs, "nothing"] };
  });
  return [...commands, { name: "help", text, options: [ALL], verbs: helped, arguments: [names] }];
}

async function wordsOf(name: string, { summary, load }: TableEntry): Promise<CommandWords> {
  const { command } = await load();
  const verbs = await Promise.all(
    Object.entries(command.verbs ?? {}).map(async ([verb, entry]) => wordsOf(verb, entry)),
  );
  const places = (command.arguments ?? []).flatMap(placesOf);
  return {
    name,
    text: summary,
    options: (command.options ?? []).map(optionWords),
    verbs,
    arguments: verbs.length === 0 ? places : [verbs.map((verb) => verb.name)],
  };
}

function placesOf({ places, completes }: ArgumentDefinition): readonly Completes[] {
  return places ?? [completes ?? "nothing"];
}

function optionWords(option: OptionDefinition): OptionWords {
  const words = option.flags.split(/[ ,]+/).filter((word) => word.startsWith("-"));
  return { words, takesValue: option.flags.includes("<"), values: option.values ?? [], text: option.text };
}
