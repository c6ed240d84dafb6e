import {
  autocomplete,
  type CANCEL_SYMBOL,
  autocompleteMultiselect,
  confirm,
  isCancel,
  log,
  select,
} from "@clack/prompts";
import type { Client, PathInput, PlanEntry, RestoreOptions, RestorePlan, SavePoint } from "../contract/index.ts";
import { CairnError } from "../errors.ts";
import type { SavePointId } from "../ids.ts";
import type { Context } from "./context.ts";
import { parseBase64 } from "./input.ts";
import { formatCounts, formatMinute, plural, shownPath } from "./render/format.ts";
import { describeCause, describePoint, foldSaves } from "./render/points.ts";
import { renderPlan, SIGNS } from "./render/restore.ts";
import { type Shorten, shortener } from "./shorten.ts";

/** The number of newest points whose changes are counted before the question. */
const COUNTED_POINTS = 100;

/** A restore that a person chose, with the plan that the person saw. */
export interface ChosenRestore {
  options: RestoreOptions;
  plan: RestorePlan;
  /**
   * The answer to the plan. Null: nothing was asked, because only the plan is wanted or because nothing would change.
   */
  isWanted: boolean | null;
}

/**
 * Asks on the terminal for a point and for everything or some files, shows the plan and asks for confirmation.
 * `isPlanOnly`: asks for no confirmation. Changes nothing. Throws `interrupted` for Ctrl-C and Escape, and `not_found`
 * if there is no point.
 */
export async function chooseRestore(
  context: Context,
  client: Client,
  { options, isPlanOnly }: { options: Omit<RestoreOptions, "target">; isPlanOnly: boolean },
): Promise<ChosenRestore> {
  // Node colours the questions; NO_COLOR turns that off.
  const target = await choosePoint(context, client);
  const chosen: RestoreOptions = { ...options, target };
  const shorten = await shortener(client, [target]);
  let plan = await planned(context, client, chosen);
  if (options.paths === undefined && plan.entries.length > 1 && !isPlanOnly) {
    const paths = await choosePaths(context, plan);
    if (paths !== null) plan = await planned(context, client, Object.assign(chosen, { paths }));
  }
  const isNothing = plan.entries.every(({ action }) => action === "keep");
  if (isPlanOnly || isNothing) return { options: chosen, plan, isWanted: null };
  // The question below the plan and the plan's first line fit on the screen.
  const most = Math.max(process.stdout.rows - 10, 10);
  log.message(renderPlan(plan, context.style.bold(shorten(target)), context.style, most).split("\n"));
  const isWanted = await answer(context, async (signal) => confirm({ message: "Restore this?", signal }));
  return { options: chosen, plan, isWanted };
}

async function choosePoint(context: Context, client: Client): Promise<SavePointId> {
  const call = context.callOptions();
  const [all, counted] = await Promise.all([
    client.history(undefined, 0, { ...call, all: true }),
    client.history(undefined, COUNTED_POINTS, { ...call, all: true, changes: true }),
  ]);
  const points = foldSaves(all).map(([point]) => point!);
  if (points.length === 0)
    throw new CairnError("not_found", "there is no save point yet", {
      hint: `make one: ${context.commandLine(["save"])}`,
    });
  const changes = new Map(counted.save_points.map((point, i) => [point.save_point_id, counted.changes?.[i]]));
  const shorten = await shortener(
    client,
    points.map(({ save_point_id: id }) => id),
  );
  const now = Date.now();
  const lines = new Map(
    points.map((point) => {
      const { save_point_id: id } = point;
      const counts = changes.get(id);
      const line = { shorten, now, counts: counts ? formatCounts(counts) : "", isHead: id === all.head };
      return [id, pointLine(context, point, line)];
    }),
  );
  const texts = new Map(points.map((point) => [point.save_point_id, searchText(point, now)]));
  return answer(context, async (signal) =>
    autocomplete<SavePointId>({
      message: "Restore which save point? (* the folder is based on it)",
      options: points.map(({ save_point_id: id }) => ({ value: id, label: lines.get(id)! })),
      filter: (search, { value }) => contains(texts.get(value)!, search),
      signal,
    }),
  );
}

function pointLine(
  { style }: Context,
  point: SavePoint,
  { shorten, now, counts, isHead }: { shorten: Shorten; now: number; counts: string; isHead: boolean },
): string {
  const facts = [formatMinute(point.created_at, now), describePoint(point, style), style.dim(counts)];
  return [`${shorten(point.save_point_id)}${isHead ? "*" : " "}`, ...facts].filter((fact) => fact !== "").join("  ");
}

/** The text of a point that the search compares, in lower case. */
function searchText(point: SavePoint, now: number): string {
  const { save_point_id: id, created_at: at, message, tags, cause } = point;
  const told = [id, at, formatMinute(at, now), message, describeCause(point), JSON.stringify(cause), ...tags];
  return told.join(" ").toLowerCase();
}

/** Compares as `history --grep` does. */
function contains(text: string, search: string): boolean {
  return text.includes(search.trim().toLowerCase());
}

/** Null: everything. */
async function choosePaths(context: Context, plan: RestorePlan): Promise<PathInput[] | null> {
  const entries = plan.entries.filter(({ action }) => action !== "keep");
  const what = await answer(context, async (signal) =>
    select({
      message: `${plural(entries.length, "entry")} would change. Restore what?`,
      options: [
        { value: "all", label: "everything" },
        { value: "some", label: "some files" },
      ],
      signal,
    }),
  );
  if (what === "all") return null;
  const labels = entries.map((entry) => entryLine(context, entry));
  const chosen = await answer(context, async (signal) =>
    autocompleteMultiselect<number>({
      message: "Restore which files? (+ comes back, ~ gets the point's content, - goes)",
      options: entries.map((_, i) => ({ value: i, label: labels[i]! })),
      filter: (search, { value }) => contains(entries[value]!.path.toLowerCase(), search),
      required: true,
      signal,
    }),
  );
  return chosen.map((i) => {
    const { path, path_b64: raw } = entries[i]!;
    return raw === undefined ? path : parseBase64(raw, "path_b64");
  });
}

function entryLine({ style }: Context, { action, path, kind }: PlanEntry): string {
  const sign = { create: style.green, update: style.yellow, delete: style.red, metadata: style.dim, keep: style.cyan };
  return `${sign[action](SIGNS[action])} ${shownPath(path)}${kind === "directory" ? "/" : ""}`;
}

async function planned(context: Context, client: Client, options: RestoreOptions): Promise<RestorePlan> {
  const plan = await client.planRestore(options);
  context.progress.finish();
  return plan;
}

/** Throws `interrupted` if the question was cancelled, the input ended (Ctrl-D), or a signal asks for the end. */
async function answer<T>(
  context: Context,
  ask: (signal: AbortSignal) => Promise<T | typeof CANCEL_SYMBOL>,
): Promise<T> {
  context.progress.finish();
  // A terminal that knows no size has 0 columns: each letter would have a line.
  if (process.stdout.columns === 0) process.stdout.columns = 80;
  const ended = new AbortController();
  // Nothing wakes the process after the end of its input.
  const end = (): void => ended.abort();
  process.once("beforeExit", end);
  const given = await ask(AbortSignal.any([context.signal, ended.signal]));
  process.off("beforeExit", end);
  if (!isCancel(given)) return given;
  throw new CairnError("interrupted", "stopped", { hint: "nothing was changed" });
}
