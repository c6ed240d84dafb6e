import type { CancelResult, RunningCall, RunningCalls } from "../../../contract/index.ts";
import type { CommandDefinition } from "../../command.ts";
import { formatAge, formatBytes, printable } from "../../render/format.ts";
import { renderTable } from "../../render/table.ts";
import { askDaemon } from "./status.ts";

export const command: CommandDefinition = {
  name: "service running",
  harmless: true,
  examples: [{ line: "cairn service running", text: "list what the daemon does now, with the progress and an id" }],
  async run() {
    const data = (await askDaemon("running")) as RunningCalls;
    return { data, paged: true, text: async () => render(data.calls) };
  },
};

export const cancel: CommandDefinition = {
  name: "service cancel",
  arguments: [{ name: "<id>", text: "the id that `cairn service running` shows" }],
  examples: [
    { line: "cairn service cancel 0123456789abcdef", text: "stop a save or a backup, with nothing half done" },
  ],
  async run(_context, input) {
    const data = (await askDaemon("cancel", { id: input.required(0) })) as CancelResult;
    return { data, text: () => `${data.state}: ${data.verb}. ${printable(data.stays)}` };
  },
};

async function render(calls: readonly RunningCall[]): Promise<string> {
  if (calls.length === 0) return "nothing runs";
  const now = Date.now();
  const rows = calls.map((call) => [
    call.running_id,
    call.verb,
    call.state,
    formatAge(call.since, now),
    progressOf(call),
    printable(call.workspace ?? call.repository ?? ""),
    call.scheduled ? "schedule" : `user ${call.uid}${call.pid === null ? "" : `, pid ${call.pid}`}`,
  ]);
  return (await renderTable(rows, [])).join("\n");
}

function progressOf({ progress }: RunningCall): string {
  if (progress === null) return "";
  const { phase, done, total, bytes } = progress;
  const whole = total === undefined ? String(done) : `${done} of ${total}`;
  return `${phase} ${whole}${bytes === undefined ? "" : `, ${formatBytes(bytes)}`}`;
}
