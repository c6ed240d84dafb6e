import { CairnError } from "../../../errors.ts";
import type { RewriteBackupsResult } from "../../../contract/index.ts";
import type { CommandDefinition, Outcome } from "../../command.ts";
import type { Context } from "../../context.ts";
import { limited, plural, printable } from "../../render/format.ts";
import { FILTER_OPTIONS, readChoice } from "./list.ts";
import { REPOSITORY_OPTIONS, UNREADABLE_HINT, withRepository } from "./repository.ts";
import { RewriteBackupsOptions } from "../../../contract/snapshots.ts";
import { pick } from "../../../contract/schema.ts";
import { VerbOptions } from "../../options.ts";

const OPTIONS = new VerbOptions(pick(RewriteBackupsOptions, "exclude", "forget", "dryRun"));

export const command: CommandDefinition = {
  name: "backup rewrite",
  arguments: [
    { name: "[snapshots...]", text: "snapshots: ids, prefixes, or latest; default: all that match the filter" },
  ],
  options: [...REPOSITORY_OPTIONS, ...FILTER_OPTIONS, ...OPTIONS.definitions],
  examples: [
    {
      line: "cairn backup rewrite -r /srv/backups --exclude '*.key' --plan",
      text: "report which snapshots have such files",
    },
    {
      line: "cairn backup rewrite -r /srv/backups --exclude '*.key' --forget",
      text: "remove them from all snapshots; then run `cairn backup prune --max-unused 0 --instant`",
    },
  ],
  async run(context, input) {
    const { exclude = [], ...given } = OPTIONS.read(context, input);
    const options: RewriteBackupsOptions = {
      ...context.callOptions(),
      ...readChoice(context, input),
      ...given,
      exclude,
    };
    return withRepository(context, input, async (repository) => {
      const result = await repository.rewrite(options);
      const outcome: Outcome = { data: result, text: () => render(context, result) };
      const staying = result.unreadable.length + result.lacking.length;
      if (staying > 0)
        outcome.error = new CairnError(
          "damaged",
          staying === 1 ? "a snapshot stays as it is" : `${staying} snapshots stay as they are`,
          {
            hint:
              result.lacking.length > 0
                ? "repair them first: `cairn backup repair snapshots --plan` reports what they have lost"
                : UNREADABLE_HINT,
          },
        );
      return outcome;
    });
  },
};

const SHOWN = 20;

function render({ style }: Context, result: RewriteBackupsResult): string {
  const lines = result.rewritten.flatMap(({ snapshot_id: id, new_id: newId, forgotten, taken_out: takenOut }) => {
    const made = newId === null ? "no entry of it is left" : `replaced by ${newId.slice(0, 8)} without them`;
    const fate = result.dry_run ? "" : `: ${made}${forgotten ? ", and the old snapshot was forgotten" : ""}`;
    const paths = takenOut.map(({ path, kind }) => `    /${printable(path)}${kind === "directory" ? "/" : ""}`);
    return [
      `  snapshot ${id.slice(0, 8)} has ${plural(paths.length, "matching path")}${fate}`,
      ...limited(paths, SHOWN, style),
    ];
  });
  for (const { snapshot_id: id, reason } of result.unreadable)
    lines.push(`  snapshot ${id.slice(0, 8)} stays as it is: ${printable(reason)}`);
  for (const id of result.lacking) lines.push(`  snapshot ${id.slice(0, 8)} stays as it is: some of its data is lost`);
  const others = result.unchanged === 0 ? "" : `; ${plural(result.unchanged, "snapshot")} without a match`;
  if (result.rewritten.length === 0) return [...lines, `nothing to remove${others}`].join("\n");
  if (result.dry_run) return [...lines, `nothing was changed${others}`].join("\n");
  const next = result.rewritten.some(({ forgotten }) => !forgotten)
    ? "the old snapshots still contain these paths: --forget removes the old snapshots"
    : "their content stays in the repository until `cairn backup prune --max-unused 0 --instant`, and in the save points until `cairn cleanup purge --path`";
  return [...lines, `${style.green("removed")}${others}`, style.dim(next)].join("\n");
}
