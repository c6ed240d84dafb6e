import { CairnError } from "../../../errors.ts";
import type { RecoverBackupsResult } from "../../../contract/index.ts";
import type { CommandDefinition, Outcome } from "../../command.ts";
import type { Context } from "../../context.ts";
import { limited, plural, printable } from "../../render/format.ts";
import { REPOSITORY_OPTIONS, withRepository } from "./repository.ts";
import { RecoverBackupsOptions } from "../../../contract/snapshots.ts";
import { VerbOptions } from "../../options.ts";

const OPTIONS = new VerbOptions(RecoverBackupsOptions.entries, { hostname: "--host <name>" });

export const command: CommandDefinition = {
  name: "backup recover",
  options: [...REPOSITORY_OPTIONS, ...OPTIONS.definitions],
  examples: [
    { line: "cairn backup recover -r /srv/backups --dry-run", text: "what no snapshot leads to, and is still there" },
    { line: "cairn backup recover -r /srv/backups", text: "one snapshot of it, tagged recovered" },
  ],
  async run(context, input) {
    const options = { ...context.callOptions(), ...OPTIONS.read(context, input) };
    return withRepository(context, input, async (repository) => {
      const result = await repository.recover(options);
      const outcome: Outcome = { data: result, text: () => render(context, result) };
      if (result.unreadable.length > 0)
        outcome.error = new CairnError("damaged", `${plural(result.unreadable.length, "tree")} cannot be read`, {
          hint: "`cairn backup repair packs` saves what is sound in damaged packs",
        });
      return outcome;
    });
  },
};

const SHOWN = 20;

function render({ style }: Context, { gathered, unreadable }: RecoverBackupsResult): string {
  const damaged = unreadable.map(
    ({ tree, detail }) => `  tree ${tree.slice(0, 8)} cannot be read: ${printable(detail)}`,
  );
  if (gathered === null) return [...limited(damaged, SHOWN, style), "nothing to recover"].join("\n");
  const { new_id: id, trees } = gathered;
  const made = id === null ? "would make a snapshot" : `${style.green("snapshot")} ${style.bold(id.slice(0, 8))}`;
  const next = id === null ? "nothing was changed" : style.dim("`cairn backup forget ID` removes what is not wanted");
  return [
    `${made} of ${plural(trees.length, "tree")}`,
    ...limited(trees.map(shownTree), SHOWN, style),
    ...limited(damaged, SHOWN, style),
    next,
  ].join("\n");
}

function shownTree({ path, lost }: { path: string; lost: number }): string {
  return `    ${path}${lost === 0 ? "" : ` without ${plural(lost, "entry")} of which something is lost`}`;
}
