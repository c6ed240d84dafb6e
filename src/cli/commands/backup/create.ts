import type { CreateBackupOptions, CreateBackupResult } from "../../../operations/contract.ts";
import type { CommandDefinition, Outcome } from "../../command.ts";
import type { Context } from "../../context.ts";
import type { Input } from "../../input.ts";
import { usage } from "../../input.ts";
import { formatBytes, formatDuration, plural, printable } from "../../render/format.ts";
import { REPOSITORY_OPTIONS, withRepository } from "./repository.ts";

export const command: CommandDefinition = {
  name: "backup create",
  arguments: [{ name: "[point]", text: "a save point; default: head", completes: "points" }],
  options: [
    ...REPOSITORY_OPTIONS,
    { flags: "--save", text: "save the folder first, unless nothing changed" },
    { flags: "-m, --message <text>", text: "of the save point that --save makes" },
    { flags: "-t, --tag <tag>", text: "a tag of the snapshot", repeat: true },
    { flags: "--host <name>", text: "recorded as the host's name; default: where the point was made" },
    { flags: "--skip-if-unchanged", text: "no snapshot when the newest one of the folder holds the same" },
    { flags: "--dry-run", text: "only say what would be transferred" },
  ],
  examples: [
    { line: "cairn backup create -r /srv/backups", text: "the point that the folder stands at" },
    { line: "cairn backup create -r /srv/backups --save", text: "the folder as it is now" },
    { line: "cairn backup create -r /srv/backups head~3 -t before-release", text: "an older point, with a tag" },
  ],
  run,
};

async function run(context: Context, input: Input): Promise<Outcome> {
  const point = input.argument(0);
  const message = input.text("message");
  const isSaved = input.flag("save");
  if (isSaved && point !== undefined) throw usage("backup create wants a POINT or --save, not both");
  if (message !== undefined && !isSaved) throw usage("--message is of the point that --save makes");
  const options: CreateBackupOptions = { ...context.callOptions(), tags: input.list("tag") };
  const hostname = input.text("host");
  if (point !== undefined) options.point = point;
  if (message !== undefined) options.message = message;
  if (hostname !== undefined) options.hostname = hostname;
  if (isSaved) options.save = true;
  if (input.flag("skipIfUnchanged")) options.skipIfUnchanged = true;
  if (input.flag("dryRun")) options.dryRun = true;
  return withRepository(context, input, async (repository) => {
    const client = await context.open();
    const result = await client.createBackup(repository, options);
    return { data: result, text: () => render(context, result) };
  });
}

function render(context: Context, result: CreateBackupResult): string {
  const { style } = context;
  const { added, snapshot } = result;
  const blobs = plural(added.data_blobs + added.tree_blobs, "blob");
  const size = `${blobs}, ${formatBytes(added.bytes)}${added.packs === 0 ? "" : ` in ${formatBytes(added.stored_bytes)}`}`;
  if (result.dry_run) return `would transfer ${size}; nothing was written`;
  const point = result.save_point_id.slice(0, 8);
  if (snapshot === null) return `unchanged since snapshot ${result.parent?.slice(0, 8) ?? ""}: no snapshot was made`;
  return [
    `${style.green("snapshot")} ${style.bold(snapshot.snapshot_id.slice(0, 8))} of point ${point} in ${printable(result.location)}`,
    `  ${added.packs === 0 ? "everything was there already" : `added ${size}`}, ${formatDuration(result.duration_ms)}`,
  ].join("\n");
}
