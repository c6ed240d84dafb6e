import { existsSync } from "node:fs";
import type { Client, PathInput } from "../../../contract/index.ts";
import type { CommandDefinition, Outcome } from "../../command.ts";
import type { Context } from "../../context.ts";
import { toWorkspacePath } from "../../context.ts";
import { type Input, usage } from "../../input.ts";
import { formatCount, plural } from "../../render/format.ts";
import { HistoryOptions, WhyOptions } from "../../../contract/looking.ts";
import { pick } from "../../../contract/schema.ts";
import { VerbOptions } from "../../options.ts";
import { PATH_B64 } from "../../shown.ts";
import { shortener } from "../../shorten.ts";

const OPTIONS = new VerbOptions({
  ...pick(WhyOptions, "limit"),
  ...pick(HistoryOptions, "all", "since", "until", "grep", "tag", "skip", "changes"),
});
const DAYS = { flags: "--days", text: "count the points of each day instead" };

export const command: CommandDefinition = {
  name: "history",
  answers: true,
  arguments: [
    {
      name: "[path]",
      text: "only points that changed this path; or the folder of another workspace",
      completes: "files",
    },
  ],
  options: [...OPTIONS.definitions, DAYS, PATH_B64],
  examples: [
    { line: "cairn history -n 20", text: "the newest twenty; * marks the point that the folder is based on" },
    { line: "cairn history src/main.ts", text: "the points that changed one file" },
    { line: "cairn history --days", text: "how many points each day has" },
    { line: "cairn history --since yesterday --until '2 hours ago'", text: "the points of a time span" },
  ],
  async run(context, input) {
    const { limit = 0, ...given } = OPTIONS.read(context, input);
    const options: HistoryOptions = { ...context.callOptions(), ...given };
    const encoded = input.text("pathB64");
    const word = input.argument(0);
    if (word !== undefined && /^-\d+$/.test(word))
      throw usage(`to limit the number of points, use -n ${word.slice(1)}`);
    const isFolder = word !== undefined && (await isWorkspace(context, word));
    if (word !== undefined && !isFolder && encoded !== undefined) throw usage("PATH and --path-b64 exclude each other");
    const client = await context.open(isFolder ? word : undefined);
    const words = word === undefined || isFolder ? [] : [word];
    const [path = ""] = context.workspacePaths(client, words, encoded === undefined ? [] : [encoded]);
    if (input.flag("days")) return days(context, client, { input, path });
    if (path !== "") options.path = path;
    const result = await client.history(undefined, limit, options);
    return {
      data: result,
      paged: true,
      async text() {
        const { foldSaves, renderHistory } = await import("../../render/points.ts");
        const isWhole = given.all === true || given.grep !== undefined || given.tag !== undefined;
        const fold = isWhole ? undefined : foldSaves;
        let shown = result;
        // Saves that are folded are one of so many.
        for (let more = limit * 2; fold !== undefined && limit > 0 && shown.truncated; more *= 2) {
          if (fold(shown).length > limit) break;
          shown = await client.history(undefined, more, options);
        }
        const { save_points: points, undo, head } = shown;
        const ids = [...points, ...(undo === null ? [] : [undo])].map((point) => point.save_point_id);
        const filters = [given.grep, given.tag, given.since, given.until, options.path];
        const isFiltered = filters.some((filter) => filter !== undefined);
        const save = context.commandLine(["save"], isFolder ? word : undefined);
        return renderHistory({
          result: isFiltered ? { ...shown, undo: null } : shown,
          rows: (fold?.(shown) ?? points.map((point) => [point])).slice(0, limit === 0 ? undefined : limit),
          empty: isFiltered ? "no save point matches" : `no save points yet; make one: ${save}`,
          shorten: await shortener(client, [...ids, head]),
          style: context.style,
          now: Date.now(),
        });
      },
    };
  },
};

/** Counts the points of each day. Throws `usage` beside what lists points. */
async function days(
  context: Context,
  client: Client,
  { input, path }: { input: Input; path: PathInput },
): Promise<Outcome> {
  const others = ["limit", "since", "until", "grep", "tag", "skip"].some((name) => input.text(name) !== undefined);
  if (others || path !== "" || input.flag("changes"))
    throw usage("--days counts all points: of the other options only --all fits");
  const found = await client.historyDays({ ...context.callOptions(), ...(input.flag("all") ? { all: true } : {}) });
  return {
    data: found,
    paged: true,
    async text() {
      const { renderTable } = await import("../../render/table.ts");
      const rows = found.days.map(({ day, points, newest }) => [day, formatCount(points), newest?.slice(0, 8) ?? ""]);
      return [...(await renderTable(rows, [1])), plural(found.total, "save point")].join("\n");
    },
  };
}

/** Tells whether a word names a workspace, or what lies outside of the one that is looked at; else it is a path in that. */
async function isWorkspace(context: Context, word: string): Promise<boolean> {
  if (context.globals.directory !== undefined) return false;
  const library = await context.library();
  const find = async (folder: string): Promise<string | null> => library.find(folder, context.callOptions());
  const { controlDirectory } = context.globals;
  const here = (await find(context.cwd)) ?? (controlDirectory === undefined ? null : context.cwd);
  const absolute = context.absolute(word);
  if (here === null) return true;
  try {
    if (toWorkspacePath(here, context.cwd, word) === "") return true;
  } catch {
    return true;
  }
  // A workspace inside of another.
  return existsSync(absolute) && controlDirectory === undefined && (await find(absolute)) !== here;
}
