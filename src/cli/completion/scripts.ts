import { GLOBAL_OPTIONS } from "../definitions.ts";
import type { CommandTable } from "../definitions.ts";
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
  return Promise.all(
    visible.map(async ([name, entry]) => {
      const { command } = await entry.load();
      const verbs = Object.entries(command.verbs ?? {});
      const loaded = await Promise.all(verbs.map(async ([, verb]) => (await verb.load()).command));
      const options = [command, ...loaded].flatMap((each) => each.options ?? []);
      return {
        name,
        text: entry.summary,
        options: [...new Map(options.map((option) => [option.flags, optionWords(option)])).values()],
        verbs: verbs.map(([verb]) => verb),
        arguments: (command.arguments ?? []).map((argument) => argument.completes ?? "nothing"),
      };
    }),
  );
}

function optionWords(option: { flags: string; text: string }): OptionWords {
  const words = option.flags.split(/[ ,]+/).filter((word) => word.startsWith("-"));
  return { words, takesValue: option.flags.includes("<"), text: option.text };
}
