import { isAbsolute } from "node:path";
import { CairnError } from "../../errors.ts";
import { shortId, TARGET, type Tool } from "../kinds/tool.ts";
import { target } from "../../contract/words.ts";
import { ForkOptions, ForkResult } from "../../contract/points.ts";
import { place, text } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { workspaceVerb } from "../kinds/define.ts";

const tool: Tool = {
  title: "Start a second folder from a save point",
  about:
    "Writes a save point into a new folder, which becomes an independent workspace. Use it to try something without touching the first folder.",
  takes: { target: TARGET, path: text("the new folder, absolute; absent or empty") },
  output: ForkResult,
  changes: true,
  async run(client, given, options) {
    if (!isAbsolute(String(given["path"])))
      throw new CairnError("usage", "path must be absolute", {
        hint: "give an absolute path: the server's current folder may differ from yours",
      });
    const data = await client.fork(given["target"] as string, given["path"] as string, options);
    return { data, words: `forked ${shortId(data.started_from)} into ${data.workspace.path}` };
  },
};

export const fork = workspaceVerb({
  about: "Starts a new workspace from a save point, in an absent or empty folder.",
  takes: [arg("target", target()), arg("path", place("the new folder, absolute"))],
  options: ForkOptions,
  output: ForkResult,
  errors: ["already_exists", "refused"],
  command: "fork",
  by: "operators",
  agents: ["name"],
  seals: true,
  makesFolder: true,
  tool,
  async run({ workspace, parts }, point, path, options) {
    const { fork: start } = await import("../../change/fork.ts");
    const result = await start(workspace, { point, path }, { ...options, parts });
    const from = workspace.found.folder.toString();
    await (await import("../../agents/cover.ts")).passCover(process.env, from, result.workspace.path);
    return result;
  },
});
