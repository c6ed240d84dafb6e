import { HooksEdit } from "../../contract/care.ts";
import type { CommandDefinition } from "../command.ts";
import { usage } from "../input.ts";
import { VerbOptions } from "../options.ts";
import { printable } from "../render/format.ts";

const OPTIONS = new VerbOptions(HooksEdit.entries);

export const command: CommandDefinition = {
  name: "hooks",
  answers: true,
  arguments: [{ name: "[dir]", text: "the workspace; default: the current folder", completes: "folders" }],
  options: [...OPTIONS.definitions, { flags: "--none", text: "remove all hooks" }],
  examples: [
    { line: "cairn hooks", text: "show the commands" },
    {
      line: `cairn hooks --before-backup 'pg_dump -Fc shop > "$CAIRN_DUMPS/shop.dump"'`,
      text: "each backup of this folder has a dump of the database, as .cairn-dumps/shop.dump",
    },
    { line: "cairn hooks --none", text: "remove them" },
  ],
  async run(context, input) {
    const edit = OPTIONS.read(context, input);
    const isChange = Object.keys(edit).length > 0;
    if (input.flag("none") && isChange) throw usage("--none removes all hooks: give no other option with it");
    const client = await context.open(input.argument(0));
    const options = context.callOptions();
    const hooks =
      isChange || input.flag("none")
        ? await client.setHooks(isChange ? edit : null, options)
        : await client.hooks(options);
    const { workspace } = client;
    return {
      data: { workspace, hooks },
      text() {
        if (hooks === null) return `no hooks are set for ${printable(workspace.path)}`;
        const { seconds, ...commands } = hooks;
        const lines = Object.entries(commands).flatMap(([name, line]) =>
          line === null ? [] : [`  ${name.replace("_", " ")}: ${printable(line)}`],
        );
        return [`hooks of ${printable(workspace.path)}, each for at most ${seconds} s`, ...lines].join("\n");
      },
    };
  },
};
