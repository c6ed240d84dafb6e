import { HooksEdit } from "../../contract/care.ts";
import type { CommandDefinition } from "../command.ts";
import { VerbOptions } from "../options.ts";
import { printable } from "../render/format.ts";

const OPTIONS = new VerbOptions(HooksEdit.entries);

export const command: CommandDefinition = {
  name: "hooks",
  answers: true,
  arguments: [{ name: "[dir]", text: "the workspace; default: the current folder", completes: "folders" }],
  options: [OPTIONS.settings, { flags: "--none", text: "remove all hooks", excludes: "all others" }],
  examples: [
    { line: "cairn hooks", text: "show the commands" },
    {
      line: `cairn hooks --set 'before-backup=pg_dump -Fc shop > "$CAIRN_DUMPS/shop.dump"'`,
      text: "each backup of this folder has a dump of the database, as .cairn-dumps/shop.dump",
    },
    { line: "cairn hooks --none", text: "remove them" },
  ],
  async run(context, input) {
    const edit = OPTIONS.readSettings(context, input);
    const isChange = Object.keys(edit).length > 0;
    const client = await context.open(input.argument(0));
    const { workspace } = client;
    const call = context.callOptions();
    const isSet = isChange || input.flag("none");
    const hooks = await (isSet ? client.setHooks(isChange ? edit : null, call) : client.hooks(call));
    if (hooks === null)
      return { data: { workspace, hooks }, text: () => `no hooks are set for ${printable(workspace.path)}` };
    const { seconds, ...commands } = hooks;
    const set = Object.entries(commands).filter(([, line]) => line !== null);
    const lines = set.map(([name, line]) => `\n  ${name.replace("_", " ")}: ${printable(line!)}`);
    const text = `hooks of ${printable(workspace.path)}, each for at most ${seconds} s${lines.join("")}`;
    return { data: { workspace, hooks }, text: () => text };
  },
};
