import { pick } from "../../../contract/schema.ts";
import { CairnError } from "../../../errors.ts";
import { CaptureDatabaseOptions, type CaptureDatabaseResult } from "../../../verbs/schemas.ts";
import type { CommandDefinition, Outcome } from "../../command.ts";
import type { Context } from "../../context.ts";
import { EXIT_PARTLY } from "../../envelope.ts";
import { usage } from "../../input.ts";
import { VerbOptions } from "../../options.ts";
import { formatBytes, formatCount, formatDuration, plural, printable } from "../../render/format.ts";

const OPTIONS = new VerbOptions(pick(CaptureDatabaseOptions, "to", "overwrite", "integrityCheck"));
const METHOD = {
  flags: "--method <how>",
  text: "pinned (default): read under a lock that keeps the file unchanged; backup: do not write to the database or its log, and use SQLite's backup API",
  values: ["pinned", "backup"],
} as const;

export const command: CommandDefinition = {
  name: "database capture",
  arguments: [{ name: "<database>", text: "a SQLite database, which may be in use", completes: "files" }],
  options: [...OPTIONS.definitions, METHOD],
  examples: [
    { line: "cairn database capture app.db --to /srv/app.db", text: "one file with every committed transaction" },
    { line: "cairn database capture app.db --to new.db --method backup", text: "without writing to app.db" },
  ],
  async run(context, input) {
    const { to, ...options } = OPTIONS.read(context, input);
    if (to === undefined) throw usage("database capture needs --to FILE");
    const writes = input.choice("method", METHOD.values) === "backup" ? { checkpoint: false } : {};
    const library = await context.library();
    const source = context.absolute(input.required(0));
    const result = await library.captureDatabase(source, { ...context.callOptions(), ...options, ...writes, to });
    const outcome: Outcome = { data: result, text: () => render(context, result, source) };
    const { problems } = result;
    if (problems !== null && problems.length > 0)
      outcome.error = new CairnError(
        "damaged",
        `SQLite reports damage in ${source}: ${problems.slice(0, 3).join("; ")}`,
        {
          hint: "the image has the same damage as the database; run `.recover` in the program sqlite3 to save the readable rows",
        },
      );
    else if (result.label === "torn-possible") outcome.exitStatus = EXIT_PARTLY;
    return outcome;
  },
};

function render({ style }: Context, result: CaptureDatabaseResult, source: string): string {
  const { label, method, reason, statistics } = result;
  const colour = label === "transaction-consistent" ? style.green : style.yellow;
  const lines = [
    `captured ${printable(source)} → ${printable(result.path)}: ${colour(label)}${reason === null ? "" : `, because ${printable(reason)}`}`,
    `  ${formatBytes(result.bytes)} in ${formatDuration(result.duration_ms)}, SHA-256 ${result.sha256}`,
  ];
  if (method !== "copy")
    lines.push(
      `  ${method === "pinned" ? "read under a lock" : "by SQLite's backup API, under a lock"} of ${formatDuration(result.held_ms)}; log ${formatBytes(result.wal_bytes_before)} before, ${formatBytes(result.wal_bytes_after)} after`,
    );
  if (result.sidecars.length > 0)
    lines.push(`  with ${result.sidecars.map((ending) => printable(`${result.path}${ending}`)).join(", ")}`);
  if (statistics !== null) {
    const total = statistics.tables.reduce((sum, { rows }) => sum + (rows ?? 0), 0);
    lines.push(
      `  ${plural(statistics.tables.length, "table")}, ${formatCount(total)} rows${result.problems === null ? "" : "; checked by SQLite"}`,
    );
  }
  return lines.join("\n");
}
