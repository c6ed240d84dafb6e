import { InspectOptions } from "../../verbs/schemas.ts";
import type { CommandDefinition } from "../command.ts";
import { VerbOptions } from "../options.ts";
import { formatCount, printable } from "../render/format.ts";

const OPTIONS = new VerbOptions(InspectOptions.entries);

export const command: CommandDefinition = {
  name: "inspect",
  answers: true,
  arguments: [
    {
      name: "<file>",
      text: "a file of a control directory or of a store, or the folder of a msgvault repository",
      completes: "files",
    },
  ],
  options: OPTIONS.definitions,
  examples: [
    { line: "cairn inspect ~/.local/state/cairn/…/descriptor.json", text: "the file's format, version and content" },
  ],
  async run(context, input) {
    const options = { ...context.callOptions(), ...OPTIONS.read(context, input) };
    const library = await context.library();
    const result = await library.inspect(context.absolute(input.required(0)), options);
    return {
      data: result,
      paged: true,
      text() {
        const version = result.version === null ? "" : ` version ${result.version}`;
        const head = `${context.style.bold(result.format)}${version}, ${formatCount(result.bytes)} bytes: ${printable(result.path)}`;
        const body = (JSON.stringify(result.content, null, 2) ?? "null").split("\n").map(printable);
        return [head, ...body].join("\n");
      },
    };
  },
};
