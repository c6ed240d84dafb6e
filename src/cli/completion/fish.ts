import { append } from "../../append.ts";
import { FILE_OPTIONS, FOLDER_OPTIONS } from "./words.ts";
import type { CommandWords, Completes, OptionWords } from "./words.ts";

const ACTIONS = {
  points: "-f -k -a '(__cairn_points)'",
  files: "-F",
  folders: "-f -a '(__fish_complete_directories)'",
  nothing: "-f",
} as const;

function actionsOf(completes: Completes): string[] {
  if (typeof completes === "string") return [ACTIONS[completes]];
  if ("or" in completes) return [...actionsOf(completes.words), ACTIONS[completes.or]];
  return [`-f -a '${completes.join(" ")}'`];
}

export function fishScript(commands: readonly CommandWords[], globals: readonly OptionWords[]): string {
  const lines = [
    "# fish completion for cairn; made by `cairn completion fish`",
    ...functionsFor([
      ...globals,
      ...[...commands, ...commands.flatMap(({ verbs }) => verbs)].flatMap(({ options }) => options),
    ]),
    "complete -c cairn -f",
    ...globals.map((option) => `complete -c cairn ${describe(option)}`),
  ];
  for (const command of commands) append(lines, linesOf(command, []));
  return `${lines.join("\n")}\n`;
}

/** `above`: the group of the verb. */
function linesOf(command: CommandWords, above: readonly string[]): string[] {
  const words = [...above, command.name];
  const here = `complete -c cairn -n '__cairn_at ${words.join(" ")}${command.verbs.length === 0 ? " ..." : ""}'`;
  return [
    `complete -c cairn -n '${["__cairn_at", ...above].join(" ")}' -a ${command.name} -d ${quote(command.text)}`,
    ...command.options.map((option) => `${here} ${describe(option)}`),
    ...command.verbs.flatMap((verb) => linesOf(verb, words)),
    ...[...new Set(command.verbs.length === 0 ? command.arguments.flatMap(actionsOf) : [])].map(
      (action) => `${here} ${action}`,
    ),
  ];
}

/**
 * Writes functions that compare the line's words, without options, with given words (`...` at their end: and more), and
 * a function that lists the folder's points.
 */
function functionsFor(options: readonly OptionWords[]): string[] {
  const valued = new Set(options.filter((option) => option.takesValue).flatMap((option) => option.words));
  return [
    "function __cairn_at",
    "    set -l found",
    "    set -l value 0",
    "    for word in (commandline -opc)[2..-1]",
    "        if test $value = 1",
    "            set value 0",
    `        else if contains -- $word ${[...valued].join(" ")}`,
    "            set value 1",
    "        else if not string match -q -- '-*' $word",
    "            set -a found $word",
    "        end",
    "    end",
    "    if test (count $argv) -gt 0; and test $argv[-1] = ...",
    "        set -e argv[-1]",
    "        set found $found[1..(count $argv)]",
    "    end",
    '    test "$found" = "$argv"',
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
  if (option.values.length > 0) return ` -x -a ${quote(option.values.join(" "))}`;
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
