import { existsSync } from "node:fs";
import type { Client, HistoryDaysResult } from "../../../contract/index.ts";
import type { CommandDefinition } from "../../command.ts";
import type { Context } from "../../context.ts";
import type { OptionDefinition } from "../../definitions.ts";
import { toWorkspacePath } from "../../context.ts";
import { usage } from "../../input.ts";
import { HistoryOptions } from "../../../contract/looking.ts";
import { WhyOptions } from "../../../contract/repositories.ts";
import { pick } from "../../../contract/schema.ts";
import { VerbOptions } from "../../options.ts";
import { printable } from "../../render/format.ts";
import { hintOfTwin } from "../../../fs/paths/safe-path.ts";
import { PATH_B64 } from "../../shown.ts";
import { shortener } from "../../shorten.ts";

const OPTIONS = new VerbOptions({
  ...pick(WhyOptions, "limit"),
  ...pick(HistoryOptions, "all", "since", "until", "grep", "tag"),
});
const DAYS: OptionDefinition = { flags: "--days", text: "count the points of each day instead of listing points" };

export const command: CommandDefinition = {
  name: "history",
  answers: true,
  arguments: [
    {
      name: "[path]",
      text: "a path: list only points that changed it; or another workspace's folder: list its points",
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
    if (input.flag("days")) {
      if (
        Object.keys(given).some((name) => name !== "all") ||
        limit > 0 ||
        encoded !== undefined ||
        (word !== undefined && !isFolder)
      )
        throw usage("--days counts all points of each day: of the other options only --all works with it");
      const result = await client.historyDays({
        ...context.callOptions(),
        ...(given.all === true ? { all: true } : {}),
      });
      return { data: result, paged: true, text: async () => daysText(context, client, result) };
    }
    const words = word === undefined || isFolder ? [] : [word];
    const [path = ""] = context.workspacePaths(client, words, encoded === undefined ? [] : [encoded]);
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
        // Folded saves count as one line of `limit`.
        for (let more = limit * 2; fold !== undefined && limit > 0 && shown.truncated; more *= 2) {
          if (fold(shown).length > limit) break;
          shown = await client.history(undefined, more, options);
        }
        const { save_points: points, undo, head } = shown;
        const ids = [...points, ...(undo === null ? [] : [undo])].map((point) => point.save_point_id);
        const filters = [given.grep, given.tag, given.since, given.until, options.path].filter(
          (filter) => filter !== undefined,
        );
        const isFiltered = filters.length > 0;
        const isPathAlone = options.path !== undefined && filters.length === 1;
        const noneMatches = isPathAlone
          ? `no save point has a path ${JSON.stringify(printable(word ?? encoded ?? ""))}`
          : "no save point matches";
        const other = isPathAlone && points.length === 0 ? await hintOfOtherForm(client, options) : undefined;
        const save = context.commandLine(["save"], isFolder ? word : undefined);
        return renderHistory({
          result: isFiltered ? { ...shown, undo: null } : shown,
          rows: (fold?.(shown) ?? points.map((point) => [point])).slice(0, limit === 0 ? undefined : limit),
          empty: isFiltered
            ? [noneMatches, ...(other === undefined ? [] : [`  ${other}`])].join("\n")
            : `no save points yet; make one: ${save}`,
          shorten: await shortener(client, [...ids, head]),
          style: context.style,
          now: Date.now(),
        });
      },
    };
  },
};

async function daysText(context: Context, client: Client, result: HistoryDaysResult): Promise<string> {
  const { renderDays } = await import("../../render/points.ts");
  const shorten = await shortener(
    client,
    result.days.map(({ newest }) => newest),
  );
  return renderDays(result, { shorten, style: context.style, empty: "no save points yet" });
}

/** True if a word names a workspace, or a path outside the current one; false for a path in the current workspace. */
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
  // A workspace inside another.
  return existsSync(absolute) && controlDirectory === undefined && (await find(absolute)) !== here;
}

/** A hint if the points have the path in another Unicode form. */
async function hintOfOtherForm(client: Client, options: HistoryOptions): Promise<string | undefined> {
  const { path } = options;
  const text = path === undefined ? "" : Buffer.from(path).toString("utf8");
  for (const form of new Set([text.normalize("NFC"), text.normalize("NFD")])) {
    if (form === text) continue;
    const { save_points: points } = await client.history(undefined, 1, { ...options, path: form });
    if (points.length > 0) return hintOfTwin(Buffer.from(form, "utf8"));
  }
  return undefined;
}
