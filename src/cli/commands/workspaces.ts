import type { SavePoint, WorkspaceInfo } from "../../contract/index.ts";
import { toCairnError } from "../../errors.ts";
import type { CommandDefinition, Outcome } from "../command.ts";
import type { Context } from "../context.ts";
import { EXIT_PARTLY } from "../envelope.ts";
import { formatAge, formatBytes, plural, printable } from "../render/format.ts";
import { renderTable } from "../render/table.ts";

export const command: CommandDefinition = {
  name: "workspaces",
  answers: true,
  options: [{ flags: "--points", text: "list the save points of all workspaces, newest first" }],
  examples: [
    { line: "cairn workspaces", text: "every workspace that this user made or opened; missing folders are marked" },
  ],
  async run(context, input) {
    const library = await context.library();
    const workspaces = await library.listWorkspaces(context.callOptions());
    if (input.flag("points")) return listPoints(context, await pointsOfAll(context, workspaces));
    return { data: { workspaces }, paged: true, text: () => render(context, workspaces) };
  },
};

/** A point with its workspace's folder. */
interface PointOf {
  workspace: string;
  point: SavePoint;
}

/** Returns the save points of workspaces, newest first. Reports workspaces that cannot be read. */
async function pointsOfAll(
  context: Context,
  workspaces: readonly WorkspaceInfo[],
): Promise<{ points: PointOf[]; isComplete: boolean }> {
  const all: PointOf[] = [];
  const library = await context.library();
  let isComplete = true;
  for (const { path } of workspaces) {
    try {
      await using client = await library.open(path, context.openOptions());
      const { save_points: points } = await client.history(undefined, 0, { ...context.callOptions(), all: true });
      for (const point of points) all.push({ workspace: path, point });
    } catch (error) {
      const failed = toCairnError(error);
      if (failed.code === "interrupted") throw failed;
      isComplete = false;
      context.note(`${path}: ${failed.message}`);
    }
  }
  const points = all.sort(
    (a, b) => Number(a.point.created_at < b.point.created_at) - Number(a.point.created_at > b.point.created_at),
  );
  return { points, isComplete };
}

async function render(context: Context, workspaces: readonly WorkspaceInfo[]): Promise<string> {
  const { style } = context;
  if (workspaces.length === 0) return "there are no workspaces yet; `cairn save DIR` makes one";
  const now = Date.now();
  const rows = workspaces.map((workspace) => [
    workspace.present ? style.green("present") : style.yellow("missing"),
    style.bold(printable(workspace.name)),
    plural(workspace.points, "point"),
    formatBytes(workspace.store_bytes),
    workspace.last_save_at === null ? "never saved" : formatAge(workspace.last_save_at, now),
    printable(workspace.path) + (workspace.problem === undefined ? "" : style.red(`  ${printable(workspace.problem)}`)),
  ]);
  const lines = await renderTable(rows, [2, 3]);
  const missing = workspaces.find((workspace) => !workspace.present);
  if (missing !== undefined)
    lines.push(
      style.dim(
        "if the folder was moved: cairn relocate OLD NEW; if it was deleted: cairn -C OLD restore latest; if you no longer need it: cairn release OLD",
      ),
    );
  return lines.join("\n");
}

function listPoints(
  context: Context,
  { points, isComplete }: { points: readonly PointOf[]; isComplete: boolean },
): Outcome {
  return {
    exitStatus: isComplete ? 0 : EXIT_PARTLY,
    data: { save_points: points.map(({ workspace, point }) => ({ workspace, ...point })) },
    paged: true,
    text: async () => {
      const now = Date.now();
      const rows = points.map(({ workspace, point }) => [
        context.style.bold(point.save_point_id.slice(0, 8)),
        formatAge(point.created_at, now),
        printable(workspace),
        [point.message.split("\n")[0]!, ...point.tags.map((tag) => `[${tag}]`), ...(point.pinned ? ["pinned"] : [])]
          .map(printable)
          .join("  "),
      ]);
      return rows.length === 0 ? "nothing has been saved yet" : (await renderTable(rows, [])).join("\n");
    },
  };
}
