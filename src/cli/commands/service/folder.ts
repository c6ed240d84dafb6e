import { EngineOptions } from "../../../contract/care.ts";
import type { Conversion, ReleaseResult } from "../../../contract/index.ts";
import type { ServedWorkspace } from "../../../formats/records/daemon-state.ts";
import type { CommandDefinition } from "../../command.ts";
import { VerbOptions } from "../../options.ts";
import { plural, printable } from "../../render/format.ts";
import { askDaemon } from "./status.ts";

const OPTIONS = new VerbOptions(EngineOptions.entries);
const FOLDER = { name: "<dir>", text: "the workspace", completes: "folders" } as const;

export const unregister: CommandDefinition = {
  name: "service unregister",
  arguments: [FOLDER],
  examples: [
    {
      line: "cairn service unregister ~/project",
      text: "its points stay; `cairn init` makes the folder a workspace with them again",
    },
  ],
  async run(context, input) {
    const path = context.absolute(input.required(0));
    const released = (await askDaemon("release", { workspace: path })) as ReleaseResult | null;
    const control = released?.workspace.control_directory ?? null;
    return {
      data: { path, control_directory: control },
      text: () =>
        `${context.style.green("unregistered")} ${printable(path)}; ${control === null ? "the folder was no workspace any more" : `its points stay in ${printable(control)}`}`,
    };
  },
};

export const recover: CommandDefinition = {
  name: "service recover",
  arguments: [FOLDER],
  options: OPTIONS.definitions,
  examples: [
    {
      line: "cairn service recover ~/project",
      text: "copy the subvolume to a plain folder, and compare; its points stay as they are",
    },
  ],
  async run(context, input) {
    const path = context.absolute(input.required(0));
    const options = OPTIONS.read(context, input);
    const done = (await askDaemon("recover", { path, options })) as ServedWorkspace & Conversion;
    const { entries, original, control_directory } = done;
    return {
      data: { path: done.path, entries, original, control_directory },
      text: () =>
        [
          `${context.style.green("recovered")} ${printable(done.path)}: ${plural(entries, "entry")} copied and compared`,
          ...(original === ""
            ? []
            : [`  the original subvolume stays in ${printable(original)}; remove it when you do not need it`]),
          `  its points stay in ${printable(control_directory)}`,
        ].join("\n"),
    };
  },
};
