import type { FindInBackupsResult } from "../../../contract/index.ts";
import { CairnError } from "../../../errors.ts";
import type { CommandDefinition, Outcome } from "../../command.ts";
import type { Context } from "../../context.ts";
import { usage } from "../../input.ts";
import { formatMinute, formatBytes, plural, printable } from "../../render/format.ts";
import { renderTable } from "../../render/table.ts";
import { FILTER_OPTIONS, readChoice } from "./list.ts";
import { REPOSITORY_OPTIONS, withRepository } from "./repository.ts";
import { FindInBackupsOptions } from "../../../contract/repositories.ts";
import { pick } from "../../../contract/schema.ts";
import { VerbOptions } from "../../options.ts";

const OPTIONS = new VerbOptions(pick(FindInBackupsOptions, "object", "ignoreCase", "limit"));

export const command: CommandDefinition = {
  name: "backup find",
  answers: true,
  arguments: [
    { name: "<pattern>", text: "a name, or a path if it has a slash, with *, ?, [abc] and **; or an object's id" },
    { name: "[snapshots...]", text: "only these snapshots; default: all" },
  ],
  options: [...REPOSITORY_OPTIONS, ...FILTER_OPTIONS, ...OPTIONS.definitions],
  examples: [
    {
      line: "cairn backup find -r /srv/backups '*.key'",
      text: "every file that matches in any snapshot, newest first",
    },
    { line: "cairn backup find -r /srv/backups 'src/**/main.ts' latest", text: "a path in the newest snapshot" },
    { line: "cairn backup find -r /srv/backups --object blob 1a2b3c4d", text: "the files that contain a damaged blob" },
  ],
  async run(context, input) {
    const given = OPTIONS.read(context, input);
    if (given.limit !== undefined && given.limit < 1) throw usage("--limit must be at least 1");
    const options: FindInBackupsOptions = { ...context.callOptions(), ...readChoice(context, input, 1), ...given };
    return withRepository(context, input, async (repository) => {
      const result = await repository.find(input.required(0), options);
      const outcome: Outcome = { data: result, paged: true, text: () => renderFound(context, result) };
      if (result.damaged.length > 0)
        outcome.error = new CairnError("damaged", `${plural(result.damaged.length, "directory")} could not be read`, {
          hint: "run `cairn backup verify` to see what is lost",
        });
      return outcome;
    });
  },
};

export async function renderFound(
  { style }: Context,
  { found, truncated, damaged }: FindInBackupsResult,
): Promise<string> {
  const lost = damaged.map(({ snapshot_id: id, path, detail }) =>
    style.red(`${printable(path)} of snapshot ${id.slice(0, 8)} cannot be read: ${printable(detail)}`),
  );
  if (found.length === 0) return [...lost, "nothing found"].join("\n");
  const now = Date.now();
  const rows = found.map((hit) => [
    style.bold(hit.snapshot_id.slice(0, 8)),
    formatMinute(hit.created_at, now),
    hit.size === null ? "" : formatBytes(hit.size),
    printable(hit.path) + (hit.kind === "directory" && hit.path !== "/" ? "/" : ""),
  ]);
  const more = truncated ? ", and more: --limit" : "";
  return [...(await renderTable(rows, [2])), ...lost, style.dim(`${plural(found.length, "entry")}${more}`)].join("\n");
}
