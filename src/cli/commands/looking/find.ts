import type { FindNamesResult } from "../../../contract/index.ts";
import { FindNamesOptions } from "../../../contract/looking.ts";
import { pick } from "../../../contract/schema.ts";
import type { CommandDefinition } from "../../command.ts";
import type { Context } from "../../context.ts";
import { VerbOptions } from "../../options.ts";
import { plural, printable } from "../../render/format.ts";
import { renderTable } from "../../render/table.ts";
import { type Shorten, shortener } from "../../shorten.ts";

const OPTIONS = new VerbOptions(pick(FindNamesOptions, "ignoreCase", "limit", "all"));

export const command: CommandDefinition = {
  name: "find",
  answers: true,
  arguments: [
    {
      name: "<pattern>",
      text: "a part of a name, or a pattern with *, ? or [abc]; with a slash it is compared with whole paths",
    },
  ],
  options: OPTIONS.definitions,
  examples: [
    { line: "cairn find config", text: "every name with this text in any save point, also of files that are gone" },
    { line: "cairn find 'src/**/*.ts'", text: "paths that match" },
  ],
  async run(context, input) {
    const client = await context.open();
    const options = { ...context.callOptions(), ...OPTIONS.read(context, input) };
    const found = await client.findNames(input.required(0), options);
    const ids = found.found.flatMap(({ newest, oldest }) => [newest, oldest]);
    return {
      data: found,
      paged: true,
      text: async () => render(context, found, await shortener(client, ids)),
    };
  },
};

async function render(
  { style }: Context,
  { found, truncated, not_read }: FindNamesResult,
  shorten: Shorten,
): Promise<string> {
  const lost =
    not_read.length === 0
      ? []
      : [style.red(`${plural(not_read.length, "save point")} could not be read: see \`cairn doctor\``)];
  if (found.length === 0) return [...lost, "no save point has such a name"].join("\n");
  const rows = found.map(({ path, kind, newest, oldest, points, in_latest }) => [
    printable(path) + (kind === "directory" ? "/" : ""),
    points === 1 ? "in 1 point" : `in ${points} points`,
    newest === oldest ? shorten(newest) : `${shorten(oldest)} to ${shorten(newest)}`,
    in_latest ? "" : style.yellow("gone"),
  ]);
  const more = truncated ? ", and more: --limit" : "";
  return [...lost, ...(await renderTable(rows)), plural(found.length, "name") + more].join("\n");
}
