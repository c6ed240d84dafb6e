import { FILE_OPTIONS, FOLDER_OPTIONS } from "./words.ts";
import type { CommandWords, Completes, OptionWords } from "./words.ts";

const ACTIONS = {
  points: "-f -k -a '(__cairn_points)'",
  files: "-F",
  folders: "-f -a '(__fish_complete_directories)'",
  shells: "-f -a 'bash zsh fish'",
  nothing: "-f",
} as const;

function actionOf(completes: Completes, { verbs }: CommandWords): string {
  return completes === "verbs" ? `-f -a '${verbs.join(" ")}'` : ACTIONS[completes];
}

export function fishScript(commands: readonly CommandWords[], globals: readonly OptionWords[]): string {
  const lines = [
    "# fish completion for cairn; made by `cairn completion fish`",
    ...functionsFor([...globals, ...commands.flatMap((command) => command.options)]),
    "complete -c cairn -f",
    ...globals.map((option) => `complete -c cairn ${describe(option)}`),
  ];
  for (const command of commands) {
    lines.push(`complete -c cairn -n 'not __cairn_command' -a ${command.name} -d ${quote(command.text)}`);
    const here = `complete -c cairn -n '__cairn_command ${command.name}'`;
    for (const option of command.options) lines.push(`${here} ${describe(option)}`);
    for (const completes of new Set(command.arguments)) lines.push(`${here} ${actionOf(completes, command)}`);
  }
  return `${lines.join("\n")}\n`;
}

/** Which command the line names: success for any, or for the one that is asked about. And the points of its folder. */
function functionsFor(options: readonly OptionWords[]): string[] {
  const valued = new Set(options.filter((option) => option.takesValue).flatMap((option) => option.words));
  return [
    "function __cairn_command",
    "    set -l value 0",
    "    for word in (commandline -opc)[2..-1]",
    "        if test $value = 1",
    "            set value 0",
    `        else if contains -- $word ${[...valued].join(" ")}`,
    "            set value 1",
    "        else if not string match -q -- '-*' $word",
    "            test (count $argv) = 0; or test $word = $argv[1]",
    "            return",
    "        end",
    "    end",
    "    return 1",
    "end",
    "function __cairn_points",
    "    set -l words (commandline -opc)",
    "    set -l chosen",
    "    for i in (seq (count $words))",
    "        contains -- $words[$i] -C --directory; and set chosen -C $words[(math $i + 1)]",
    "    end",
    "    cairn $chosen __complete points 2>/dev/null",
    "end",
  ];
}

function valueOf(option: OptionWords): string {
  if (!option.takesValue) return "";
  if (option.words.some((word) => FOLDER_OPTIONS.includes(word)))
    return ` -x -a ${quote("(__fish_complete_directories)")}`;
  return option.words.some((word) => FILE_OPTIONS.includes(word)) ? " -r -F" : " -x";
}

function describe(option: OptionWords): string {
  const words = option.words.map((word) => (word.startsWith("--") ? `-l ${word.slice(2)}` : `-s ${word.slice(1)}`));
  return `${words.join(" ")}${valueOf(option)} -d ${quote(option.text)}`;
}

function quote(text: string): string {
  return `'${text.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`;
}
