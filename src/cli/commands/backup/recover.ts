import { CairnError } from "../../../errors.ts";
import type { RecoverBackupsOptions, RecoverBackupsResult } from "../../../operations/contract.ts";
import type { CommandDefinition, Outcome } from "../../command.ts";
import type { Context } from "../../context.ts";
import type { Input } from "../../input.ts";
import { formatBytes, limited, plural, printable } from "../../render/format.ts";
import { REPOSITORY_OPTIONS, withRepository } from "./repository.ts";

export const command: CommandDefinition = {
  name: "backup recover",
  options: [
    ...REPOSITORY_OPTIONS,
    { flags: "--host <name>", text: "recorded as the host's name; default: this machine's" },
    { flags: "--dry-run", text: "only say what would be made" },
  ],
  examples: [
    { line: "cairn backup recover -r /srv/backups --dry-run", text: "what no snapshot leads to, and is still there" },
    { line: "cairn backup recover -r /srv/backups", text: "snapshots of it, tagged recovered" },
  ],
  run,
};

async function run(context: Context, input: Input): Promise<Outcome> {
  const options: RecoverBackupsOptions = { ...context.callOptions() };
  const hostname = input.text("host");
  if (hostname !== undefined) options.hostname = hostname;
  if (input.flag("dryRun")) options.dryRun = true;
  return withRepository(context, input, async (repository) => {
    const result = await repository.recover(options);
    const outcome: Outcome = { data: result, text: () => render(context, result) };
    if (result.unreadable.length > 0)
      outcome.error = new CairnError("damaged", `${plural(result.unreadable.length, "tree")} cannot be read`, {
        hint: "`cairn backup repair packs` saves what is sound in damaged packs",
      });
    return outcome;
  });
}

const SHOWN = 20;

function render({ style }: Context, { dry_run: isDry, recovered, gathered, unreadable }: RecoverBackupsResult): string {
  const made = (id: string | null): string =>
    id === null ? "would make a snapshot" : `${style.green("snapshot")} ${style.bold(id.slice(0, 8))}`;
  const points = recovered.map(
    ({ new_id: id, paths, files, bytes, created_at: at }) =>
      `${made(id)} of ${printable(paths[0] ?? "")}, ${plural(files, "file")}, ${formatBytes(bytes)}, newest time ${at.slice(0, 19)}Z`,
  );
  const damaged = unreadable.map(
    ({ tree, detail }) => `  tree ${tree.slice(0, 8)} cannot be read: ${printable(detail)}`,
  );
  const isNothing = recovered.length === 0 && gathered === null;
  const done = isDry ? "nothing was changed" : style.dim("`cairn backup forget ID` removes what is not wanted");
  return [
    ...points,
    ...(gathered === null ? [] : [`${made(gathered.new_id)} of ${plural(gathered.trees.length, "other tree")}`]),
    ...limited((gathered?.trees ?? []).map(shownTree), SHOWN, style),
    ...limited(damaged, SHOWN, style),
    isNothing ? "nothing to recover" : done,
  ].join("\n");
}

function shownTree({ path, lost }: { path: string; lost: number }): string {
  return `    ${path}${lost === 0 ? "" : ` without ${plural(lost, "entry")} of which something is lost`}`;
}
