import type { BisectResult } from "../../verbs/schemas.ts";
import type { Shorten } from "../shorten.ts";
import { firstLine, formatAge, formatDuration, formatInstant, plural } from "./format.ts";
import { describeCause } from "./points.ts";
import type { Style } from "./style.ts";

export interface BisectView {
  result: BisectResult;
  shorten: Shorten;
  /** the command that shows the changes of the first bad point */
  next: string;
  /** the command that opens the page at the first bad point */
  page: string;
  style: Style;
  now: number;
}

/** Members of a cause that identify the agent of a point. */
const AGENT = ["agent", "session", "turn"];

export function renderBisect({ result, shorten, next, page, style, now }: BisectView): string {
  const { first_bad: bad, candidates, tested } = result;
  const took = formatDuration(tested.reduce((sum, { duration_ms: ms }) => sum + ms, 0));
  const facts = `${plural(tested.length, "save point")} tested in ${took}`;
  if (bad === null)
    return [
      `${style.yellow("one of these is the first bad save point")}; all but the last were skipped:`,
      ...candidates.map((id) => `  ${style.bold(shorten(id))}`),
      `  ${facts}; all changes of them: ${style.cyan(next)}`,
    ].join("\n");
  const { cause } = bad;
  const agent = AGENT.flatMap((key) => {
    const value = cause[key];
    return typeof value === "string" || typeof value === "number" ? [`${key} ${firstLine(String(value))}`] : [];
  });
  return [
    `${style.red("first bad")} ${style.bold(shorten(bad.save_point_id))}  ${firstLine(bad.message)}`.trimEnd(),
    `  saved ${formatInstant(bad.created_at)} (${formatAge(bad.created_at, now)})`,
    `  cause: ${[describeCause(bad), ...agent].join(", ")}`,
    `  ${facts}`,
    `  what it changed: ${style.cyan(next)}`,
    `  in the page: ${style.cyan(page)}`,
  ].join("\n");
}
