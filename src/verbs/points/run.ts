import { RunOptions, RunResult } from "../../contract/points.ts";
import { list, text } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { workspaceVerb } from "../kinds/define.ts";

export const run = workspaceVerb({
  about:
    "Saves, runs a command, saves again. A failure before the command is thrown; a failure after it is in `after_error`.",
  takes: [arg("command", list(text(), "the command and its arguments"))],
  options: RunOptions,
  output: RunResult,
  command: "run",
  unserved: "it runs a program, which is its caller's to run",
  needs: "nothing",
  run: async ({ client, within }, command, options) => {
    // Read before the import, because the client may be closed while the code is loaded.
    const root = client.workspacePath(options.workspaceName);
    const { run: runCommand } = await import("../../change/run.ts");
    return runCommand(command, options, {
      // Saves without the client, which may be closed when the command ends.
      save: async (saving) =>
        within(saving.workspaceName, async (workspace) =>
          (await import("../../change/save.ts")).save(workspace, saving),
        ),
      root,
    });
  },
});
