import type { Client } from "../../../contract/index.ts";
import { omit } from "../../../contract/schema.ts";
import { FindNamesOptions, type FindNamesResult } from "../../../verbs/schemas.ts";
import type { CommandDefinition } from "../../command.ts";
import type { Context } from "../../context.ts";
import { VerbOptions } from "../../options.ts";
import { plural, printable } from "../../render/format.ts";
import { renderTable } from "../../render/table.ts";
import { shortener } from "../../shorten.ts";
import { BACKUP_OPTIONS } from "../../operands.ts";
import { withBackups } from "./with-backups.ts";

const OPTIONS = new VerbOptions(omit(FindNamesOptions, "all"));

export const command: CommandDefinition = {
  name: "find",
  answers: true,
  arguments: [
    { name: "<pattern>", text: "a part of a name; or a pattern with *, ?, [abc] or, for a path, a slash and **" },
  ],
  options: [
    ...OPTIONS.definitions,
    { flags: "--in <states>", text: "search points (default), backups of this folder, or all" },
    ...BACKUP_OPTIONS,
  ],
  examples: [
    {
      line: "cairn find report",
      text: "every path whose name contains the word, in any save point, undo point or fork",
    },
    { line: "cairn find '*.key' -i", text: "every name that matches, in upper or lower case" },
    { line: "cairn find 'src/**/main.ts'", text: "a path" },
    { line: "cairn find report --in all -r /srv/backups", text: "in save points, and in this folder's backups" },
  ],
  async run(context, input) {
    const client = await context.open();
    const pattern = input.required(0);
    const given = { ...context.callOptions(), ...OPTIONS.read(context, input) };
    const where = input.choice("in", ["points", "backups", "all"]) ?? "points";
    const inPoints = async (): Promise<FindNamesResult> => client.findNames(pattern, { ...given, all: true });
    if (where === "points") {
      const result = await inPoints();
      return { data: result, paged: true, text: async () => render(context, client, result) };
    }
    return withBackups(context, input, async (repository) => {
      const paths = [client.workspacePath()];
      const { renderFound } = await import("../backup/find.ts");
      const backups = await repository.find(asPattern(pattern), { ...given, paths });
      if (where === "backups") return { data: backups, paged: true, text: async () => renderFound(context, backups) };
      const result = await inPoints();
      const text = async (): Promise<string> =>
        [
          await render(context, client, result),
          "",
          context.style.dim("in backups"),
          await renderFound(context, backups),
        ].join("\n");
      return { data: { ...result, backups }, paged: true, text };
    });
  },
};

/** A word without a sign of a pattern is a part of a name, in backups as in points. */
function asPattern(pattern: string): string {
  return /[*?[/]/.test(pattern) ? pattern : `*${pattern.replaceAll("\\", "\\\\")}*`;
}

async function render({ style }: Context, client: Client, { found, truncated }: FindNamesResult): Promise<string> {
  if (found.length === 0) return "nothing found: names and paths are compared, not contents";
  const shorten = await shortener(
    client,
    found.flatMap(({ newest, oldest }) => [newest, oldest]),
  );
  const isOne = new Set(found.map((each) => each.workspace_name)).size === 1;
  const heading = ["oldest", "newest", "points", "versions", "", ...(isOne ? [] : ["workspace"]), ""].map((word) =>
    style.dim(word),
  );
  const rows = found.map(
    ({ path, workspace_name: name, kind, newest, oldest, points, versions, in_latest: isInLatest }) => [
      style.bold(shorten(oldest)),
      style.bold(shorten(newest)),
      String(points),
      String(versions),
      isInLatest ? "" : style.yellow("not in the latest"),
      ...(isOne ? [] : [printable(name)]),
      printable(path) + (kind === "directory" ? "/" : ""),
    ],
  );
  const more = truncated ? ", and more: --limit" : "";
  return [...(await renderTable([heading, ...rows], [2, 3])), style.dim(`${plural(found.length, "path")}${more}`)].join(
    "\n",
  );
}
