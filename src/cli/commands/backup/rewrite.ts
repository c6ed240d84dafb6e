import { CairnError } from "../../../errors.ts";
import type { PathPattern, RewriteBackupsResult } from "../../../contract/index.ts";
import type { CommandDefinition, Outcome } from "../../command.ts";
import type { Context } from "../../context.ts";
import { limited, plural, printable } from "../../render/format.ts";
import { FILTER_OPTIONS, readChoice } from "./list.ts";
import { REPOSITORY_OPTIONS, UNREADABLE_HINT, withRepository } from "./repository.ts";
import { RewriteBackupsOptions } from "../../../contract/snapshots.ts";
import { pick } from "../../../contract/schema.ts";
import { VerbOptions } from "../../options.ts";

const OPTIONS = new VerbOptions(pick(RewriteBackupsOptions, "forget", "dryRun"));

export const command: CommandDefinition = {
  name: "backup rewrite",
  arguments: [{ name: "[snapshots...]", text: "ids, prefixes, or latest; default: all that the filter takes" }],
  options: [
    ...REPOSITORY_OPTIONS,
    ...FILTER_OPTIONS,
    {
      flags: "--exclude <pattern>",
      text: "what goes, with all under it: a name, the end of a path, or a whole one; may be repeated",
      repeat: true,
    },
    { flags: "--iexclude <pattern>", text: "as --exclude, upper and lower case being equal", repeat: true },
    ...OPTIONS.definitions,
  ],
  examples: [
    { line: "cairn backup rewrite -r /srv/backups --exclude '*.key' --dry-run", text: "which snapshots have some" },
    {
      line: "cairn backup rewrite -r /srv/backups --exclude '*.key' --forget",
      text: "take them out of all; then `cairn backup prune --max-unused 0`",
    },
  ],
  async run(context, input) {
    const folded = input.list("iexclude").map((pattern): PathPattern => ({ pattern, ignoreCase: true }));
    const options: RewriteBackupsOptions = {
      ...context.callOptions(),
      ...readChoice(context, input),
      ...OPTIONS.read(context, input),
      exclude: [...input.list("exclude"), ...folded],
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
                ? "`cairn backup repair snapshots --plan` says what is lost of them; repair them first"
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
    const made = newId === null ? "nothing is left of it" : `${newId.slice(0, 8)} was made without`;
    const fate = result.dry_run ? "" : `: ${made}${forgotten ? ", and it is forgotten" : ""}`;
    const paths = takenOut.map(({ path, kind }) => `    /${printable(path)}${kind === "directory" ? "/" : ""}`);
    return [
      `  snapshot ${id.slice(0, 8)} has ${plural(paths.length, "path")} of it${fate}`,
      ...limited(paths, SHOWN, style),
    ];
  });
  for (const { snapshot_id: id, reason } of result.unreadable)
    lines.push(`  snapshot ${id.slice(0, 8)} stays as it is: ${printable(reason)}`);
  for (const id of result.lacking) lines.push(`  snapshot ${id.slice(0, 8)} stays as it is: something of it is lost`);
  const others = result.unchanged === 0 ? "" : `; ${plural(result.unchanged, "snapshot")} without it`;
  if (result.rewritten.length === 0) return [...lines, `nothing to take out${others}`].join("\n");
  if (result.dry_run) return [...lines, `nothing was changed${others}`].join("\n");
  const next = result.rewritten.some(({ forgotten }) => !forgotten)
    ? "the old snapshots still have it: with --forget they go"
    : "its content is in the repository until `cairn backup prune --max-unused 0`, and in the save points that were backed up until `cairn cleanup`";
  return [...lines, `${style.green("taken out")}${others}`, style.dim(next)].join("\n");
}
