import { type Client } from "../../contract/index.ts";
import { LIMIT, limited, listed, MORE, TARGET, type Tool } from "../kinds/tool.ts";
import { ShowOptions, ShowResult } from "../../contract/looking.ts";
import { ShowBackupResult } from "../../contract/repositories.ts";
import { flag, number, object, opt, text } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { type CallOptions, contentData, PathInput, target } from "../../contract/words.ts";
import { workspaceVerb } from "../kinds/define.ts";

const CONTENT_BYTES = 256 << 10;

async function textOf(
  client: Client,
  id: string,
  path: string,
  options: CallOptions,
): Promise<{ content: string; content_truncated: boolean } | null> {
  const pieces: Uint8Array[] = [];
  let bytes = 0;
  for await (const piece of client.read(id, path, options)) {
    pieces.push(piece);
    bytes += piece.length;
    if (bytes > CONTENT_BYTES) break;
  }
  const all = Buffer.concat(pieces).subarray(0, CONTENT_BYTES);
  if (all.includes(0)) return null;
  return { content: all.toString("utf8"), content_truncated: bytes > CONTENT_BYTES };
}

const tool: Tool = {
  title: "Look into a save point",
  about: "Lists a folder of a save point, or returns the text of one of its files.",
  takes: {
    target: TARGET,
    path: opt(text("path of a folder or file, from the workspace's root; default: the root")),
    ...LIMIT,
  },
  output: object({
    ...ShowResult.entries,
    ...MORE,
    content: opt(text(`content of a text file, at most ${CONTENT_BYTES >> 10} KiB`)),
    content_truncated: opt(flag()),
  }),
  changes: false,
  async run(client, given, options) {
    const [target, path] = [given["target"] as string, (given["path"] as string | undefined) ?? ""];
    const { entries, ...rest } = await client.show(target, path, options);
    const { rows, more } = limited(entries, given);
    const shown = { ...rest, entries: rows, more };
    if (rest.kind !== "file") {
      const lines = rows.map((each) => `${each.kind} ${each.path}`);
      return { data: shown, words: listed(lines, more, "") };
    }
    const content = await textOf(client, rest.save_point.save_point_id, path, options);
    if (content === null) return { data: shown, words: `${path} is not a text file; restore it to read it` };
    return { data: { ...shown, ...content }, words: content.content };
  },
};

export const show = workspaceVerb({
  about: "Lists a save point's entries at a path, by default at its root.",
  takes: [arg("target", target()), arg("path", opt(PathInput))],
  options: ShowOptions,
  output: ShowResult,
  errors: ["not_found", "ambiguous", "damaged"],
  command: {
    show: ShowResult,
    "show POINT:FILE": object({ ...ShowResult.entries, ...contentData }),
    "show backup:SNAPSHOT": ShowBackupResult,
    "show --to": object({ ...ShowResult.entries, target: text("the file, absolute"), bytes: number() }),
  },
  by: "writers",
  looks: true,
  withoutFolder: true,
  agents: ["limit", "skip", "sort", "reverse"],
  seals: true,
  tool,
  run: async ({ workspace }, target, path, options) =>
    (await import("../../look/show.ts")).show(workspace, target, path ?? "", options),
});
