import type { CommandDefinition } from "../command.ts";
import { printable } from "../render/format.ts";
import { RelocateOptions } from "../../contract/care.ts";
import { pick } from "../../contract/schema.ts";
import { VerbOptions } from "../options.ts";

const OPTIONS = new VerbOptions(pick(RelocateOptions, "allow"));

export const command: CommandDefinition = {
  name: "relocate",
  arguments: [
    { name: "<old>", text: "the folder's old path", completes: "folders" },
    { name: "<new>", text: "the folder's new path", completes: "folders" },
  ],
  options: OPTIONS.definitions,
  examples: [
    { line: "cairn relocate ~/project ~/work/project", text: "after `mv ~/project ~/work/project`" },
    {
      line: "cairn --control-dir /mnt/points relocate ~/project ~/project",
      text: "after the control directory was moved to /mnt/points",
    },
  ],
  async run(context, input) {
    const library = await context.library();
    const [from, to] = [context.absolute(input.required(0)), context.absolute(input.required(1))];
    const result = await library.relocate(from, to, {
      ...context.openOptions(),
      ...OPTIONS.read(context, input),
    });
    const { passCover } = await import("../../agents/cover.ts");
    await passCover(context.env, result.from, result.workspace.path, true);
    return {
      data: result,
      text: () =>
        `${context.style.green("relocated")} ${printable(result.from)} → ${printable(result.workspace.path)}; its save points belong to the new path`,
    };
  },
};
