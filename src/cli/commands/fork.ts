import type { Client, ForkRemovalPlan, RemovedFork } from "../../contract/index.ts";
import type { CommandDefinition, Outcome } from "../command.ts";
import type { Context } from "../context.ts";
import { only } from "../definitions.ts";
import { forkWord } from "../operands.ts";
import { isPoint } from "../shown.ts";
import { usage } from "../input.ts";
import { EXIT_PARTLY } from "../envelope.ts";
import { applyLine, formatBytes, limited, listedNames, plural, printable, shellQuote } from "../render/format.ts";
import { ForkOptions, RemoveForkOptions } from "../../contract/points.ts";
import { pick } from "../../contract/schema.ts";
import { VerbOptions } from "../options.ts";
import { PLAN } from "../restore-outcome.ts";
import { shortener } from "../shorten.ts";

const OPTIONS = new VerbOptions(ForkOptions.entries);
const REMOVAL = new VerbOptions(pick(RemoveForkOptions, "plan"));
const SHOWN = 100;

function planned({ style }: Context, plan: ForkRemovalPlan): Outcome {
  const { id, workspace, save_point_ids: points, entries } = plan;
  return {
    data: { plan },
    paged: true,
    async text() {
      const { renderEntryLine, renderSummary } = await import("../render/diff.ts");
      const lines = (entries ?? []).map((entry) => `  ${renderEntryLine(entry, style)}`);
      const since =
        entries === null ? "" : ` after a save of what changed since its newest point: ${renderSummary(entries)}`;
      return [
        `the fork ${printable(workspace.path)} would be removed${since}`,
        ...limited(lines, SHOWN, style),
        `${plural(points.length, "point")} of it would go: ${listedNames(points.map((each) => each.slice(0, 8)))}`,
        applyLine(id, style),
      ].join("\n");
    },
  };
}

async function removed(context: Context, client: Client, result: RemovedFork): Promise<Outcome> {
  const shorten = await shortener(client, [result.save_point_id]);
  const id = shorten(result.save_point_id);
  const line = context.commandLine(["restore", id, "--to", "DIR"]);
  const { style } = context;
  const { rest, left_out: left } = result;
  return {
    data: result,
    exitStatus: rest === null ? 0 : EXIT_PARTLY,
    async text() {
      const { renderLeftOut } = await import("../render/points.ts");
      return [
        `${style.green("removed")} the fork ${printable(result.workspace.path)}`,
        `  its last state is saved as ${style.bold(id)}: ${style.cyan(line)}`,
        ...(rest === null ? [] : [`  the rest of its folder lies in ${printable(rest.path)}`]),
        ...renderLeftOut(left, style),
      ].join("\n");
    },
  };
}

export const command: CommandDefinition = {
  name: "fork",
  arguments: [
    { name: "[target]", text: "a save point", completes: "points" },
    { name: "[path]", text: "the new folder, absent or empty", completes: "folders" },
  ],
  options: [
    ...OPTIONS.definitions,
    {
      flags: "--remove <fork>",
      text: "remove a fork, named or by its folder, with its points; this workspace keeps a point of its last state. A fork whose folder is gone is forgotten",
    },
    ...only({ needs: "--remove" }, [PLAN, ...REMOVAL.definitions]),
  ],
  examples: [
    { line: "cairn fork head ../try-it", text: "a second, independent folder with the same state" },
    { line: "cairn fork 1a2b3c4d /mnt/disk/copy --standalone", text: "a fork that does not need the original" },
    { line: "cairn save ../try-it", text: "a point of the fork's present" },
    { line: "cairn diff try-it", text: "what the fork's newest point changed" },
    { line: "cairn adopt ../try-it", text: "make this folder equal to the fork" },
    { line: "cairn fork --remove ../try-it", text: "remove the fork" },
    { line: "cairn fork --remove ../try-it --plan", text: "print what would be saved and removed" },
  ],
  async run(context, input) {
    const options = { ...context.callOptions(), ...OPTIONS.read(context, input) };
    const client = await context.open();
    const gone = input.text("remove");
    if (gone !== undefined) {
      const { allow } = options;
      if (input.argument(0) !== undefined) throw usage("--remove names the fork: give no other argument");
      const [fork, how] = [
        forkWord(context, gone),
        { ...context.callOptions(), allow, ...REMOVAL.read(context, input) },
      ];
      if (input.flag("plan")) return planned(context, await client.planRemoveFork(fork, how));
      return removed(context, client, await client.removeFork(fork, how));
    }
    if (input.argument(1) === undefined) {
      const given = input.argument(0) ?? "head";
      const [point, folder] = (await isPoint(client, given)) ? [given, "DIR"] : ["head", given];
      throw usage("a fork needs a save point and a new folder", context.commandLine(["fork", point, folder]));
    }
    const result = await client.fork(input.required(0), context.place(input.required(1)), options);
    return {
      data: result,
      exitStatus: result.left_out.length === 0 ? 0 : EXIT_PARTLY,
      async text() {
        const { renderLeftOut } = await import("../render/points.ts");
        const { style } = context;
        const from = (await shortener(client, [result.started_from]))(result.started_from);
        const { path, name: made } = result.workspace;
        const { entries, bytes } = result.save_point;
        const size =
          entries === null ? "a clone, not counted yet" : `${plural(entries, "entry")}, ${formatBytes(bytes ?? 0)}`;
        return [
          `${style.green("forked")} ${style.bold(from)} into ${printable(path)} (workspace ${printable(made)})`,
          `  ${size}`,
          ...renderLeftOut(result.left_out, style),
          `  show its state: ${style.cyan(`cairn -C ${printable(shellQuote(path))} status`)}`,
        ].join("\n");
      },
    };
  },
};
