import { type Schedule, ScheduleEdit } from "../../verbs/schemas.ts";
import type { CommandDefinition } from "../command.ts";
import { noteRunner } from "./service/status.ts";
import { VerbOptions } from "../options.ts";
import { formatAge, printable } from "../render/format.ts";
import { dueIn } from "../render/schedule.ts";
import type { Style } from "../render/style.ts";
import { renderTable } from "../render/table.ts";

const OPTIONS = new VerbOptions(ScheduleEdit.entries);

export const command: CommandDefinition = {
  name: "schedule",
  answers: true,
  arguments: [{ name: "[dir]", text: "the workspace", completes: "folders" }],
  options: [OPTIONS.settings],
  examples: [
    { line: "cairn schedule", text: "what runs when on this folder, the last runs, and since when one fails" },
    {
      line: "cairn schedule --set backup=12h --set verify=7d --set restore-check=30d",
      text: "back up twice a day, read the repository each week, and restore the newest backup each month as a test",
    },
  ],
  async run(context, input) {
    const client = await context.open(input.argument(0));
    const edit = OPTIONS.readSettings(context, input);
    const options = context.callOptions();
    const isChange = Object.keys(edit).length > 0;
    const data = await (isChange ? client.setSchedule(edit, options) : client.schedule(options));
    const isRun = await noteRunner(context, data);
    return { data, text: () => renderSchedule(data, { style: context.style, now: Date.now(), isRun }) };
  },
};

/** Lists the scheduled work of a folder, and the failures. */
async function renderSchedule(
  { runs, problems }: Schedule,
  { style, now, isRun }: { style: Style; now: number; isRun: boolean },
): Promise<string> {
  const rows = runs.map((run) => [
    run.kind,
    printable(run.repository ?? ""),
    `every ${spanOf(run.every_ms)}`,
    run.good_at === null ? "never" : `last ${formatAge(run.good_at, now)}`,
    `${isRun ? "next" : "due"} ${dueIn(run.next_at, now)}`,
  ]);
  const lines = await renderTable(rows);
  return [...lines, ...problems.map((problem) => style.red(printable(problem)))].join("\n");
}

/** Returns a span as the options take it, for example `30d`. */
function spanOf(milliseconds: number): string {
  const seconds = milliseconds / 1000;
  const units = { d: 86_400, h: 3600, m: 60, s: 1 };
  const [unit, size] = Object.entries(units).find(([, each]) => seconds % each === 0) ?? ["s", 1];
  return `${seconds / size}${unit}`;
}
