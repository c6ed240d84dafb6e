import type { CommandWords, OptionWords } from "./words.ts";

const ACTIONS = {
  points: "-f -k -a '(__cairn_points)'",
  files: "-F",
  folders: "-f -a '(__fish_complete_directories)'",
  shells: "-f -a 'bash zsh fish'",
  nothing: "-f",
} as const;

export function fishScript(commands: readonly CommandWords[], globals: readonly OptionWords[]): string {
  const lines = [
    "# fish completion for cairn; made by `cairn completion fish`",
    "function __cairn_points",
    "    cairn __complete points 2>/dev/null",
    "end",
    "complete -c cairn -f",
    ...globals.map((option) => `complete -c cairn ${describe(option)}`),
  ];
  for (const command of commands) {
    lines.push(`complete -c cairn -n __fish_use_subcommand -a ${command.name} -d ${quote(command.text)}`);
    const here = `complete -c cairn -n '__fish_seen_subcommand_from ${command.name}'`;
    for (const option of command.options) lines.push(`${here} ${describe(option)}`);
    for (const completes of new Set(command.arguments)) lines.push(`${here} ${ACTIONS[completes]}`);
  }
  return `${lines.join("\n")}\n`;
}

function describe(option: OptionWords): string {
  const words = option.words.map((word) => (word.startsWith("--") ? `-l ${word.slice(2)}` : `-s ${word.slice(1)}`));
  return `${words.join(" ")}${option.takesValue ? " -r" : ""} -d ${quote(option.text)}`;
}

function quote(text: string): string {
  return `'${text.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`;
}
