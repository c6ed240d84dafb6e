import type { CommandDefinition } from "../src/cli/command.ts";
import { WITHOUT_VERB } from "../src/cli/program/command-data.ts";
import { COMMANDS } from "../src/cli/program/commands.ts";
import {
  type ArgumentDefinition,
  GLOBAL_OPTIONS,
  OPTION_GROUPS,
  type OptionDefinition,
  type OptionGroup,
  type TableEntry,
} from "../src/cli/definitions.ts";
import { VERSION } from "../src/formats/program.ts";

/** Makes docs/cli.md and the man pages from the commands as the help has them. */

/** A command as both kinds of pages show it. */
interface CommandPage {
  /** `cairn backup create` */
  line: string;
  group: string;
  summary: string;
  definition: CommandDefinition;
}

async function commandPages(): Promise<CommandPage[]> {
  const pages: CommandPage[] = [];
  const add = async (line: string, group: string, { summary, load }: TableEntry): Promise<void> => {
    const { command: definition } = (await load()) as { command: CommandDefinition };
    pages.push({ line, group, summary, definition });
    for (const [verb, entry] of Object.entries(definition.verbs ?? {})) await add(`${line} ${verb}`, group, entry);
  };
  for (const [name, entry] of Object.entries(COMMANDS))
    if (entry.hidden !== true) await add(`cairn ${name}`, entry.group, entry);
  return pages;
}

function usageOf({ line, definition }: CommandPage): string {
  const given = (definition.arguments ?? []).map(({ name }) => name);
  return [line, "[options]", ...given].join(" ");
}

const cell = (text: string): string => text.replaceAll("|", "\\|");
const anchor = (line: string): string => line.replaceAll(" ", "-");

function table(head: string, rows: readonly (readonly [string, string])[]): string[] {
  if (rows.length === 0) return [];
  return [`| ${head} | |`, "| --- | --- |", ...rows.map(([name, text]) => `| \`${cell(name)}\` | ${cell(text)} |`), ""];
}

const ofArgument = ({ name, text }: ArgumentDefinition): readonly [string, string] => [name, text];
const ofOption = ({ flags, text }: OptionDefinition): readonly [string, string] => [flags, text];

/** Returns the options of each group. Throws if two commands print different texts for an option of a group. */
function optionGroups(pages: readonly CommandPage[]): ReadonlyMap<OptionGroup, readonly OptionDefinition[]> {
  const groups = new Map<OptionGroup, Map<string, OptionDefinition>>();
  for (const { line, definition } of pages)
    for (const option of definition.options ?? []) {
      if (option.group === undefined) continue;
      const group = groups.get(option.group) ?? new Map<string, OptionDefinition>();
      groups.set(option.group, group);
      const same = group.get(option.flags);
      if (same !== undefined && same.text !== option.text) throw new Error(`${line}: ${option.flags} has its own text`);
      group.set(option.flags, option);
    }
  return new Map([...groups].map(([name, options]) => [name, [...options.values()]]));
}

const linkTo = (group: OptionGroup): string =>
  `[${OPTION_GROUPS[group]}](#${anchor(OPTION_GROUPS[group].toLowerCase())})`;

/** Returns the table of a command's own options, and a line with its groups. */
function optionLines(options: readonly OptionDefinition[], groups: ReturnType<typeof optionGroups>): string[] {
  const named = [...Map.groupBy(options, ({ group }) => group)].flatMap(([group, taken]) => {
    if (group === undefined) return [];
    const lacking = groups.get(group)!.filter(({ flags }) => taken.every((option) => option.flags !== flags));
    const but = lacking.map(({ flags }) => `\`${/--[\w-]+/.exec(flags)![0]}\``).join(", ");
    return [`${linkTo(group)}${but === "" ? "" : ` without ${but}`}`];
  });
  const own = options.filter(({ group }) => group === undefined);
  return [...table("option", own.map(ofOption)), ...(named.length === 0 ? [] : [`Also: ${named.join("; ")}.`, ""])];
}

/** Returns docs/cli.md: every command with its arguments, options and examples. */
export async function commandsPage(): Promise<string> {
  const pages = await commandPages();
  const lists = [...Map.groupBy(pages, ({ group }) => group)].flatMap(([group, inside]) => [
    `**${group}**`,
    "",
    ...inside.map(({ line, summary }) => `- [\`${line}\`](#${anchor(line)}): ${summary}`),
    "",
  ]);
  const groups = optionGroups(pages);
  const shared = [...groups].flatMap(([group, options]) => [
    `## ${OPTION_GROUPS[group]}`,
    "",
    ...table("option", options.map(ofOption)),
  ]);
  const sections = pages.flatMap((page) => [
    `## ${page.line}`,
    "",
    `${page.summary[0]!.toUpperCase()}${page.summary.slice(1)}.`,
    "",
    "```",
    usageOf(page),
    "```",
    "",
    ...table("argument", (page.definition.arguments ?? []).map(ofArgument)),
    ...optionLines(page.definition.options ?? [], groups),
    "```sh",
    ...page.definition.examples.map(({ line, text }) => `${line}  # ${text}`),
    "```",
    "",
  ]);
  return [
    "# Commands",
    "",
    "Made from the commands by `npm run docs`; `npm run ok` fails when the two differ. `cairn COMMAND --help` prints the same.",
    "",
    "A POINT or TARGET is a save point: its id, a unique prefix, `latest`, `head`, `head~N`, or a time such as `2 hours ago`. What `--json` prints is in [json.md](json.md), exit statuses",
    "are in [errors.md](errors.md).",
    "",
    ...lists,
    ...table("option of every command", [...GLOBAL_OPTIONS.map(ofOption), ["-h, --help", "print help"]]),
    ...sections,
    ...shared,
    "## Commands of this machine alone",
    "",
    "Every other command is a verb: the library, the HTTP API and, if an agent may call it, MCP have it too.",
    "",
    ...table(
      "command",
      Object.entries(WITHOUT_VERB).map(([line, { why }]) => [line, why]),
    ),
  ].join("\n");
}

/** Escapes text, so that troff prints it unchanged. */
function escaped(text: string): string {
  return text
    .replaceAll("\\", "\\e")
    .replaceAll("-", "\\-")
    .replaceAll(/^([.'])/gm, "\\&$1")
    .replaceAll(/[^\n -~]/gu, (each) => `\\[u${each.codePointAt(0)!.toString(16).toUpperCase().padStart(4, "0")}]`);
}

const bold = (text: string): string => `\\fB${escaped(text)}\\fR`;

function entries(heading: string, rows: readonly (readonly [string, string])[]): string[] {
  if (rows.length === 0) return [];
  return [`.SH ${heading}`, ...rows.flatMap(([name, text]) => [".TP", bold(name), escaped(text)])];
}

function manualPage(page: CommandPage, others: readonly CommandPage[]): string {
  const name = page.line.replaceAll(" ", "-");
  const verbs = others.filter(({ line }) => line.startsWith(`${page.line} `));
  return [
    ...heading(name),
    ".SH NAME",
    `${escaped(name)} \\- ${escaped(page.summary)}`,
    ".SH SYNOPSIS",
    bold(page.line) + escaped(usageOf(page).slice(page.line.length)),
    ...entries("ARGUMENTS", (page.definition.arguments ?? []).map(ofArgument)),
    ...entries(
      "COMMANDS",
      verbs.map(({ line, summary }) => [line.slice(page.line.length + 1), summary]),
    ),
    ...entries("OPTIONS", [...(page.definition.options ?? []), ...GLOBAL_OPTIONS].map(ofOption)),
    ".SH EXAMPLES",
    ...page.definition.examples.flatMap(({ line, text }) => [".TP", bold(line), escaped(text)]),
    ".SH SEE ALSO",
    ".BR cairn (1)",
    "",
  ].join("\n");
}

const heading = (name: string): string[] => [`.TH ${escaped(name.toUpperCase())} 1 "" "cairn ${VERSION}"`];

/** Returns the man pages by file name: one for each command, and `cairn.1` that lists the commands. */
export async function manualPages(): Promise<ReadonlyMap<string, string>> {
  const pages = await commandPages();
  const made = new Map(pages.map((page) => [`${anchor(page.line)}.1`, manualPage(page, pages)]));
  const groups = Map.groupBy(
    pages.filter(({ line }) => line.split(" ").length === 2),
    ({ group }) => group,
  );
  made.set(
    "cairn.1",
    [
      ...heading("cairn"),
      ".SH NAME",
      "cairn \\- saves a folder's state whenever you, an agent's hook or a timer asks, and restores any of them",
      ".SH SYNOPSIS",
      `${bold("cairn")} ${escaped("[options] COMMAND")}`,
      ...[...groups].flatMap(([group, inside]) =>
        entries(
          `"${group.toUpperCase()}"`,
          inside.map(({ line, summary }) => [line.slice("cairn ".length), summary]),
        ),
      ),
      ...entries("OPTIONS", GLOBAL_OPTIONS.map(ofOption)),
      ".SH EXIT STATUS",
      escaped(
        "0 done, 1 internal, 2 usage, 3 not found, 4 conflict or stale, 5 busy, 6 damage found, 7 refused for safety, 8 no space, 9 permission, 10 partly done, 130 interrupted.",
      ),
      ".SH SEE ALSO",
      escaped("cairn-save(1), cairn-restore(1), cairn-history(1), cairn-backup(1); the package's docs folder."),
      "",
    ].join("\n"),
  );
  return made;
}
