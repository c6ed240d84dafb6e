import type { CommandDefinition } from "../command.ts";
import { usage } from "../input.ts";
import { HistoryOptions } from "../../contract/looking.ts";
import { pick } from "../../contract/schema.ts";
import { VerbOptions } from "../options.ts";
import { shortener } from "../shorten.ts";

const OPTIONS = new VerbOptions(pick(HistoryOptions, "grep", "tag"), { tag: "--tag <tag>" });

export const command: CommandDefinition = {
  name: "history",
  arguments: [{ name: "[dir]", text: "the workspace", completes: "folders" }],
  options: [
    { flags: "-n, --limit <count>", text: "at most so many; 0 is all (default)" },
    ...OPTIONS.definitions,
    { flags: "--path <path>", text: "only points in which this path differs from the point before" },
    { flags: "--path-b64 <base64>", text: "the same, for a name that is not UTF-8" },
  ],
  examples: [
    { line: "cairn history -n 20", text: "the newest twenty; * marks where the folder stands" },
    { line: "cairn history --path src/main.ts", text: "the points that changed one file" },
  ],
  async run(context, input) {
    const given = OPTIONS.read(context, input);
    const options: HistoryOptions = { ...context.callOptions(), ...given };
    const limit = input.count("limit") ?? 0;
    if (limit < 0) throw usage("--limit wants a number of points; 0 is all of them");
    const [path, encoded] = [input.text("path"), input.text("pathB64")];
    const client = await context.open(input.argument(0));
    const paths = context.workspacePaths(
      client,
      path === undefined ? [] : [path],
      encoded === undefined ? [] : [encoded],
    );
    if (paths.length > 1) throw usage("--path and --path-b64 cannot be given together");
    if (paths[0] !== undefined) options.path = paths[0];
    const result = await client.history(undefined, limit, options);
    return {
      data: result,
      paged: true,
      async text() {
        const { renderHistory } = await import("../render/points.ts");
        const ids = [...result.save_points.map((point) => point.save_point_id), result.head];
        const save = context.commandLine(["save"], input.argument(0));
        const isFiltered = [given.grep, given.tag, path, encoded].some((filter) => filter !== undefined);
        const empty = isFiltered ? "no save point fits" : `no save points yet; make one: ${save}`;
        return renderHistory({
          result,
          empty,
          shorten: await shortener(client, ids),
          style: context.style,
          now: Date.now(),
        });
      },
    };
  },
};
