import { GLOBAL_OPTIONS } from "../definitions.ts";
import type { CommandTable, TableEntry } from "../definitions.ts";
import { bashScript } from "./bash.ts";
import { fishScript } from "./fish.ts";
import type { CommandWords, OptionWords } from "./words.ts";
import { zshScript } from "./zsh.ts";

export const SHELLS = ["bash", "zsh", "fish"] as const;
export type Shell = (typeof SHELLS)[number];

/** The script for a shell, made from the table of commands. */
export async function completionScript(shell: Shell, table: CommandTable): Promise<string> {
  const commands = await readTable(table);
  const globals = GLOBAL_OPTIONS.map(optionWords);
  if (shell === "bash") return bashScript(commands, globals);
  return shell === "zsh" ? zshScript(commands, globals) : fishScript(commands, globals);
}

/** Every command that people see, with what can be completed. */
async function readTable(table: CommandTable): Promise<CommandWords[]> {
  const visible = Object.entries(table).filter(([, entry]) => entry.hidden !== true);
  const commands = await Promise.all(visible.map(async ([name, entry]) => wordsOf(name, entry)));
  const names = commands.map(({ name }) => name);
  return [...commands, { name: "help", text: "print help of a command", options: [], verbs: [], arguments: [names] }];
}

async function wordsOf(name: string, { summary, load }: TableEntry): Promise<CommandWords> {
  const { command } = await load();
  const verbs = await Promise.all(
    Object.entries(command.verbs ?? {}).map(async ([verb, entry]) => wordsOf(verb, entry)),
  );
  const places = (command.arguments ?? []).map((argument) => argument.completes ?? "nothing");
  return {
    name,
    text: summary,
    options: (command.options ?? []).map(optionWords),
    verbs,
    arguments: verbs.length === 0 ? places : [verbs.map((verb) => verb.name)],
  };
}

function optionWords(option: { flags: string; text: string }): OptionWords {
  const words = option.flags.split(/[ ,]+/).filter((word) => word.startsWith("-"));
  return { words, takesValue: option.flags.includes("<"), text: option.text };
}
