import { realpathSync } from "node:fs";
import { isJournalKept } from "../../../daemon/log/journal.ts";
import { type LogRecord, readLog, type ReadLog } from "../../../daemon/log/read.ts";
import { daemonPlaces } from "../../../daemon/places.ts";
import { UNIT } from "../../../daemon/unit.ts";
import type { CommandDefinition } from "../../command.ts";
import { usage } from "../../input.ts";
import { printable } from "../../render/format.ts";

export const command: CommandDefinition = {
  name: "service logs",
  options: [
    { flags: "-f, --follow", text: "follow: print new records as they come" },
    { flags: "-n, --limit <count>", text: "at most this many of the newest; default 100, with --since all" },
    { flags: "--workspace <dir>", text: "only records about this folder" },
    { flags: "--since <time>", text: "a time as for journalctl: 2026-11-23, yesterday, -2h" },
  ],
  examples: [
    { line: "cairn service logs -f", text: "follow the daemon's log" },
    {
      line: "cairn service logs --workspace . --since yesterday --json",
      text: "print records with verb, user and outcome",
    },
  ],
  async run(context, input) {
    const [given, folder] = [input.text("limit"), input.text("workspace")];
    const since = input.text("since") ?? null;
    const follow = input.flag("follow");
    if (given !== undefined && !/^\d{1,9}$/.test(given))
      throw usage(`-n must be a number of lines; found ${JSON.stringify(given)}`);
    if (follow && context.globals.json)
      throw usage(
        "-f and --json exclude each other: -f never ends, and --json prints one object",
        "leave one of them out",
      );
    const { isSystem } = daemonPlaces();
    const options: ReadLog = {
      isSystem,
      unit: UNIT,
      lines: given !== undefined ? Number(given) : since === null ? LINES : null,
      workspace: folder === undefined ? null : realPath(context.place(folder)),
      since,
      follow,
      isKept: isJournalKept(),
      signal: context.signal,
    };
    if (context.globals.json) {
      const records: LogRecord[] = [];
      for await (const record of readLog(options)) records.push(record);
      return { data: { records } };
    }
    return { data: null, content: asLines(readLog(options)) };
  },
};

const LINES = 100;

/** Returns the real path of an existing folder, which is the daemon's name for it. */
function realPath(folder: string): string {
  try {
    return realpathSync.native(folder);
  } catch {
    return folder;
  }
}

async function* asLines(records: AsyncIterable<LogRecord>): AsyncGenerator<Uint8Array> {
  for await (const { time, priority, message } of records) {
    const mark = priority <= 3 ? "error: " : priority === 4 ? "warning: " : "";
    yield Buffer.from(`${time} ${mark}${printable(message)}\n`);
  }
}
