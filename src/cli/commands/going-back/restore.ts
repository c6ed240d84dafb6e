import { statSync } from "node:fs";
import type { CairnError } from "../../../errors.ts";
import { printable, shellQuote } from "../../render/format.ts";
import type { CommandDefinition } from "../../command.ts";
import type { Context } from "../../context.ts";
import { usage } from "../../input.ts";
import { changeOptions, planOutcome, restoreOutcome } from "../../restore-outcome.ts";
import { PATH_B64 } from "../../shown.ts";
import { tellingOfHooks } from "../agent/lost-hooks.ts";
import { RestoreOptions } from "../../../contract/points.ts";
import { omit } from "../../../contract/schema.ts";
import { VerbOptions } from "../../options.ts";

const OPTIONS = new VerbOptions(omit(RestoreOptions, "target", "paths", "cause"));

export const command: CommandDefinition = {
  name: "restore",
  arguments: [
    {
      name: "[target]",
      text: 'a save point: id, prefix, latest, head, head~N, or a time such as "2 hours ago"; without one, on a terminal, Cairn asks which',
      completes: "points",
    },
    { name: "[path...]", text: "restore only these paths, relative to the current folder", completes: "files" },
  ],
  options: [
    ...changeOptions(OPTIONS.definitions),
    {
      ...PATH_B64,
      text: "a path from the workspace's root whose name is not UTF-8; may be repeated",
      repeat: true,
    },
  ],
  examples: [
    { line: "cairn restore", text: "choose a save point and files, see what would change, and confirm" },
    { line: "cairn restore head", text: "discard all changes since the last save; `cairn undo` brings them back" },
    { line: "cairn restore 1a2b3c4d src/main.ts", text: "one file" },
    { line: "cairn restore head~3 --plan", text: "print what would change" },
    { line: "cairn restore latest --to /tmp/look", text: "a copy of a save point elsewhere" },
  ],
  async run(context, input) {
    const { to, ...given } = OPTIONS.read(context, input);
    const ofCopies = given.allow?.find((guard) => guard !== "unmounted");
    if (ofCopies !== undefined && to === undefined) throw usage(`--allow ${ofCopies} works with --to only`);
    const isAsked = input.argument(0) === undefined;
    if (isAsked) requireTerminal(context, to);
    const target = isAsked ? "" : input.required(0);
    const client = await context.open();
    const namesFile = (): boolean => input.rest(1).length === 0 && target !== "" && isFile(context.absolute(target));
    if (/[/.]/.test(target) && namesFile()) throw isNoPoint(target);
    const paths = context.workspacePaths(client, input.rest(1), input.list("pathB64"));
    let options: RestoreOptions = { ...context.callOptions(), ...given, ...(to === undefined ? {} : { to }), target };
    // The workspace's root means the whole workspace.
    if (paths.length > 0 && !paths.includes("")) options.paths = paths;
    const isPlanOnly = input.flag("plan");
    if (isAsked) {
      const { chooseRestore } = await import("../../choose-restore.ts");
      const chosen = await chooseRestore(context, client, { options, isPlanOnly });
      if (chosen.isWanted === false) return { data: { plan: chosen.plan }, text: () => "nothing was changed" };
      if (chosen.isWanted === null) return planOutcome(context, client, chosen.plan);
      options = chosen.options;
    } else if (isPlanOnly) return planOutcome(context, client, await client.planRestore(options));
    return restoreOutcome(context, client, {
      result: await tellingOfHooks(context, client, async () => client.restore(options)).catch((error: unknown) => {
        throw (error as { code?: unknown }).code === "invalid_id" && namesFile() ? isNoPoint(target) : error;
      }),
      method: options.method,
      ...(to === undefined ? {} : { to }),
    });
  },
};

function isNoPoint(file: string): CairnError {
  return usage(`${printable(file)} is a file, not a save point`, `cairn restore head ${shellQuote(file)}`);
}

/** Throws `usage` for a missing argument if questions are impossible, or if they do not fit the line. */
function requireTerminal({ globals, env }: Context, to: string | undefined): void {
  const canAsk = process.stdin.isTTY && process.stdout.isTTY && !globals.json && env["TERM"] !== "dumb";
  if (!canAsk || to !== undefined)
    throw usage("missing required argument 'target'", "`cairn restore --help` shows its options");
}

function isFile(place: string): boolean {
  return statSync(place, { throwIfNoEntry: false })?.isFile() === true;
}
