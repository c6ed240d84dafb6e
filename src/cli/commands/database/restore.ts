import { pick } from "../../../contract/schema.ts";
import { RestoreDatabaseOptions } from "../../../verbs/schemas.ts";
import type { CommandDefinition } from "../../command.ts";
import { usage } from "../../input.ts";
import { VerbOptions } from "../../options.ts";
import { formatBytes, formatDuration, printable } from "../../render/format.ts";

const OPTIONS = new VerbOptions(pick(RestoreDatabaseOptions, "to", "throughSqlite", "integrityCheck"));

export const command: CommandDefinition = {
  name: "database restore",
  arguments: [{ name: "<file>", text: "the image that `cairn database capture` wrote", completes: "files" }],
  options: OPTIONS.definitions,
  examples: [
    { line: "cairn database restore /srv/app.db --to app.db", text: "refused while a program has app.db open" },
    {
      line: "cairn database restore /srv/app.db --to app.db --through-sqlite",
      text: "programs that have app.db open see the new content",
    },
  ],
  async run(context, input) {
    const { to, ...options } = OPTIONS.read(context, input);
    if (to === undefined) throw usage("database restore needs --to DATABASE");
    const library = await context.library();
    const image = context.absolute(input.required(0));
    const result = await library.restoreDatabase(image, { ...context.callOptions(), ...options, to });
    return {
      data: result,
      text() {
        const how = result.through_sqlite ? "written through SQLite into" : "→";
        const lines = [
          `${context.style.green("restored")} ${printable(image)} ${how} ${printable(result.path)}`,
          `  ${formatBytes(result.bytes)} in ${formatDuration(result.duration_ms)}, SHA-256 ${result.sha256}, checked by SQLite`,
        ];
        if (result.kept !== null) lines.push(`  the replaced database is kept in ${printable(result.kept)}`);
        return lines.join("\n");
      },
    };
  },
};
