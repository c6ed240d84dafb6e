import type { CommandDefinition } from "../../command.ts";
import { noteRunner } from "../service/status.ts";
import { shortener } from "../../shorten.ts";

export const command: CommandDefinition = {
  name: "status",
  answers: true,
  arguments: [{ name: "[dir]", text: "the workspace", completes: "folders" }],
  examples: [
    { line: "cairn status", text: "clean or changed, the point that the folder is based on, and recoveries" },
    { line: "cairn status --json -C ~/project", text: "for programs" },
  ],
  async run(context, input) {
    const client = await context.open(input.argument(0));
    const status = await client.status(context.callOptions());
    const schedule = await client.schedule(context.callOptions());
    for (const problem of schedule.problems) context.note(problem);
    const isRun = await noteRunner(context, schedule);
    const { LateSaves } = await import("../../late-saves.ts");
    const background = new LateSaves(client.workspacePath()).describe();
    if (background !== null) context.note(background);
    return {
      data: status,
      async text() {
        const { renderStatus } = await import("../../render/status.ts");
        const shorten = await shortener(client, [status.head, status.latest]);
        const save = context.commandLine(["save"], input.argument(0));
        return renderStatus({ status, schedule, isRun, shorten, save, style: context.style, now: Date.now() });
      },
    };
  },
};
