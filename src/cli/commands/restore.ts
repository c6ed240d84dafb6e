import { statSync } from "node:fs";
import { printable, shellQuote } from "../render/format.ts";
import type { CommandDefinition } from "../command.ts";
import { usage } from "../input.ts";
import { PLAN, planOutcome, restoreOutcome } from "../restore-outcome.ts";
import { PATH_B64 } from "../shown.ts";
import { tellingOfHooks } from "./agent/lost-hooks.ts";
import { RestoreOptions } from "../../contract/points.ts";
import { omit } from "../../contract/schema.ts";
import { VerbOptions } from "../options.ts";

const OPTIONS = new VerbOptions(omit(RestoreOptions, "target", "paths", "cause"));

export const command: CommandDefinition = {
  name: "restore",
  arguments: [
    {
      name: "<target>",
      text: 'a save point: id, prefix, latest, head, head~N, or a time such as "2 hours ago"',
      completes: "points",
    },
    { name: "[path...]", text: "restore only these paths, relative to the current folder", completes: "files" },
  ],
  options: [
    PLAN,
    ...OPTIONS.definitions,
    {
      ...PATH_B64,
      text: "a path from the workspace's root whose name is not UTF-8; may be repeated",
      repeat: true,
    },
  ],
  examples: [
    { line: "cairn restore head", text: "discard all changes since the last save; `cairn undo` brings them back" },
    { line: "cairn restore 1a2b3c4d src/main.ts", text: "one file" },
    { line: "cairn restore head~3 --plan", text: "print what would change" },
    { line: "cairn restore latest --to /tmp/look", text: "a copy of a save point elsewhere" },
  ],
  async run(context, input) {
    const given = OPTIONS.read(context, input);
    const options: RestoreOptions = { ...context.callOptions(), ...given, target: input.required(0) };
    const { to, allow } = given;
    const ofCopies = allow?.find((guard) => guard !== "unmounted");
    if (ofCopies !== undefined && to === undefined) throw usage(`--allow ${ofCopies} works with --to only`);
    const client = await context.open();
    const target = options.target;
    if (/[/.]/.test(target) && input.rest(1).length === 0 && isFile(context.absolute(target)))
      throw usage(`${printable(target)} is a file, not a save point`, `cairn restore head ${shellQuote(target)}`);
    const paths = context.workspacePaths(client, input.rest(1), input.list("pathB64"));
    // The workspace's root itself is the whole of it.
    if (paths.length > 0 && !paths.includes("")) options.paths = paths;
    if (input.flag("plan")) return planOutcome(context, client, await client.planRestore(options));
    return restoreOutcome(context, client, {
      result: await tellingOfHooks(context, client, async () => client.restore(options)),
      method: options.method,
      ...(to === undefined ? {} : { to }),
    });
  },
};

function isFile(place: string): boolean {
  return statSync(place, { throwIfNoEntry: false })?.isFile() === true;
}
