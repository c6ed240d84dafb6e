import type { Cover } from "../../agents/covered.ts";
import { CairnError } from "../../errors.ts";
import { ReleaseOptions } from "../../contract/care.ts";
import type { Client, ReleasePlan } from "../../contract/index.ts";
import type { CommandDefinition, Outcome } from "../command.ts";
import type { Context } from "../context.ts";
import { omit, pick } from "../../contract/schema.ts";
import { only } from "../definitions.ts";
import { EXIT_PARTLY } from "../envelope.ts";
import { VerbOptions } from "../options.ts";
import { PLAN } from "../restore-outcome.ts";
import { applyLine, formatBytes, listedNames, plural, printable, shellQuote } from "../render/format.ts";

const OPTIONS = new VerbOptions(omit(ReleaseOptions, "plan"));
const APPLY = new VerbOptions(pick(ReleaseOptions, "plan"));

export const command: CommandDefinition = {
  name: "release",
  arguments: [{ name: "<dir>", text: "the workspace; its files stay as they are", completes: "folders" }],
  options: [...OPTIONS.definitions, ...only({ needs: "--delete-points" }, [PLAN, ...APPLY.definitions])],
  examples: [
    {
      line: "cairn release ~/project",
      text: "end the workspace; its points stay, and the output names the command that makes the folder a workspace with them again",
    },
    { line: "cairn release ~/project --delete-points", text: "also delete everything that Cairn stores about it" },
    { line: "cairn release ~/project --delete-points --plan", text: "print what would be deleted" },
  ],
  async run(context, input) {
    const { deletePoints = false } = OPTIONS.read(context, input);
    const { plan } = APPLY.read(context, input);
    const isPlanOnly = input.flag("plan");
    if (isPlanOnly) {
      const opened = await context.open(input.required(0), { released: true });
      return planned(context, await opened.planRelease(context.callOptions()));
    }
    const client = await openOrForget(context, input.required(0), { released: deletePoints, plan });
    if (client === null) {
      const path = context.chosenFolder(input.required(0)) ?? "";
      return {
        data: { workspace: null, points_deleted: 0, points_kept: 0, bytes_freed: 0, complete: true, next: [] },
        text: () => `${context.style.green("forgot")} ${printable(path)}; its save points no longer exist`,
      };
    }
    const { readCovered } = await import("../../agents/covered.ts");
    const covers = readCovered(context.env) ?? [];
    const next = await hooksToRemove(context, client.workspacePath(), covers);
    const result = await client.release({ ...context.callOptions(), deletePoints, plan });
    const left = covers.filter(({ folder }) => folder?.path !== result.workspace.path);
    await (await import("./agent/lost-hooks.ts")).noteLostCover(context, covers, left);
    return {
      data: { ...result, next },
      exitStatus: result.complete ? 0 : EXIT_PARTLY,
      text() {
        const { path, control_directory: control } = result.workspace;
        const hooks = next.map((each) => `\n  remove the hooks:   ${context.style.cyan(printable(each))}`).join("");
        const released = `${context.style.green("released")} ${printable(path)}`;
        if (deletePoints)
          return `${released}; ${plural(result.points_deleted, "point")} deleted, ${formatBytes(result.bytes_freed)} freed in the store${hooks}`;
        if (result.points_kept === 0) return `${released}; it had no save points${hooks}`;
        // `init` without --control-dir looks only at the default place.
        const [folder, place] = [path, control].map((each) => printable(shellQuote(each)));
        const again = `cairn init ${folder} --control-dir ${place}`;
        const remove = `cairn release ${folder} --control-dir ${place} --delete-points`;
        return `${released}; its points stay in ${printable(control)}\n  keep it again with them: ${context.style.cyan(again)}\n  delete the points:  ${context.style.cyan(remove)}${hooks}`;
      },
    };
  },
};

/** Returns the commands that remove hooks of agents, if the hooks serve no other folder than the released one. */
async function hooksToRemove({ env }: Context, path: string, covers: readonly Cover[]): Promise<string[]> {
  const { installedAt, servedBy, toolsFor } = await import("../../agents/tools.ts");
  return toolsFor(path, env, covers).flatMap((tool) => {
    const remove = `cairn -C ${shellQuote(path)} agent remove ${tool}`;
    const isIdle = servedBy(tool, covers).every(({ folder }) => folder?.path === path);
    if (installedAt(tool, path, env) !== null) return [`${remove} --for everybody`];
    return isIdle ? [remove] : [];
  });
}

function planned({ style }: Context, plan: ReleasePlan): Outcome {
  const { id, workspace, save_point_ids: points, control_directory_goes: isWhole } = plan;
  const [path, control] = [workspace.path, workspace.control_directory].map(printable);
  const names = points.length === 0 ? "" : `: ${listedNames(points.map((each) => each.slice(0, 8)))}`;
  return {
    data: { plan },
    text: () =>
      [
        `${path!} would be released; its files stay as they are`,
        `${plural(points.length, "point")} would be deleted${names}`,
        isWhole ? `the whole control directory ${control!} would go` : `the control directory ${control!} stays`,
        applyLine(id, style),
      ].join("\n"),
  };
}

const GONE: ReadonlySet<string> = new Set(["not_found", "not_a_workspace"]);

/** Null: the points were gone, so the folder is now forgotten. */
async function openOrForget(
  context: Context,
  folder: string,
  { released, plan }: { released: boolean; plan: string | undefined },
): Promise<Client | null> {
  try {
    return await context.open(folder, { released });
  } catch (error) {
    const path = context.chosenFolder(folder);
    const isGone = error instanceof CairnError && GONE.has(error.code) && path !== undefined && plan === undefined;
    if (!isGone || !(await (await context.library()).forget(path, context.callOptions()))) throw error;
    return null;
  }
}
