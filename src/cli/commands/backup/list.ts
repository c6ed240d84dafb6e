import { append } from "../../../append.ts";
import type { BackupList, BackupSnapshot } from "../../../contract/index.ts";
import { pick } from "../../../contract/schema.ts";
import { ListBackupsOptions, type SnapshotChoice, SnapshotFilter } from "../../../contract/snapshots.ts";
import type { CommandDefinition } from "../../command.ts";
import type { Context } from "../../context.ts";
import { grouped } from "../../definitions.ts";
import type { Input } from "../../input.ts";
import { usage } from "../../input.ts";
import { VerbOptions } from "../../options.ts";
import {
  formatBytes,
  formatCount,
  formatInstant,
  formatMinute,
  limited,
  plural,
  printable,
} from "../../render/format.ts";
import type { Style } from "../../render/style.ts";
import { renderTable } from "../../render/table.ts";
import { msgvaultFolder, REPOSITORY_OPTIONS, withRepository } from "./repository.ts";

const FILTER = new VerbOptions(pick(SnapshotFilter, "hosts", "paths", "tags"));
/** Options that choose snapshots, and the snapshot that `latest` is. */
export const FILTER_OPTIONS = grouped("snapshots", FILTER.definitions);
const OPTIONS = new VerbOptions(pick(ListBackupsOptions, "latest"));

export const command: CommandDefinition = {
  name: "backup list",
  answers: true,
  arguments: [{ name: "[snapshots...]", text: "only these snapshots: ids, prefixes, or latest; default: all" }],
  options: [...REPOSITORY_OPTIONS, ...FILTER_OPTIONS, ...OPTIONS.definitions],
  examples: [
    { line: "cairn backup list -r /srv/backups", text: "every snapshot, oldest first" },
    { line: "cairn backup list -r /srv/backups --latest 1", text: "the newest snapshot of each host and folder" },
  ],
  async run(context, input) {
    const given = OPTIONS.read(context, input);
    if (given.latest !== undefined && given.latest < 1) throw usage("--latest must be at least 1");
    const options = { ...context.callOptions(), ...readChoice(context, input), ...given };
    const folder = await msgvaultFolder(context, input);
    if (folder !== null) {
      if (Object.keys({ ...readChoice(context, input), ...given }).length > 0)
        throw usage("a msgvault repository is listed as a whole", "leave out snapshots, filters and --latest");
      const list = await (await context.library()).listMsgvault(folder, context.callOptions());
      return { data: list, paged: true, text: () => render(context, list) };
    }
    return withRepository(context, input, async (repository) => {
      const list = await repository.list(options);
      return { data: list, paged: true, text: () => render(context, list) };
    });
  },
};

/** Reads the snapshots that the arguments from `from` on and the filter options name; without any, all that match the filter. */
export function readChoice(context: Context, input: Input, from = 0): SnapshotChoice {
  const snapshots = input.rest(from);
  return { ...readFilter(context, input), ...(snapshots.length === 0 ? {} : { snapshots }) };
}

export function readFilter(context: Context, input: Input): SnapshotFilter {
  return FILTER.read(context, input);
}

/** Returns how many characters of an id name one snapshot. Ids of msgvault begin with the day, so eight are not enough. */
export function digitsOf(ids: readonly string[], least = 8): number {
  return new Set(ids.map((id) => id.slice(0, least))).size === ids.length ? least : digitsOf(ids, least + 1);
}

/** Returns a snapshot's row in a list; the fourth cell is its size, the fifth the bytes that it added. */
export function rowOf(snapshot: BackupSnapshot, style: Style, now: number, digits = 8): string[] {
  return [
    style.bold(snapshot.snapshot_id.slice(0, digits)),
    formatMinute(snapshot.created_at, now),
    printable(snapshot.hostname),
    snapshot.bytes === null ? "" : formatBytes(snapshot.bytes),
    snapshot.bytes_stored === null ? "" : `+${formatBytes(snapshot.bytes_stored)}`,
    [...(snapshot.incomplete ? [style.yellow("incomplete")] : []), printable(snapshot.tags.join(","))].join(" ").trim(),
    printable(snapshot.paths.join(" ")),
  ];
}

const SHOWN_COUNTED = 3;
const SHOWN_TABLES = 10;

/** Shows the rows of databases in the newest snapshots that were restored and counted here. */
function rowLines(snapshots: readonly BackupSnapshot[], style: Style): string[] {
  return snapshots
    .filter(({ counted }) => counted !== undefined)
    .slice(-SHOWN_COUNTED)
    .flatMap(({ snapshot_id: id, counted }) => {
      const { at, databases } = counted!;
      const tables = databases.flatMap(({ path, tables: all }) =>
        all.map(
          ({ name, rows }) => `  ${printable(path)}: ${printable(name)} ${rows === null ? "?" : formatCount(rows)}`,
        ),
      );
      return [
        style.dim(`rows in ${id.slice(0, 8)}, counted when it was restored on ${formatInstant(at)}:`),
        ...limited(tables, SHOWN_TABLES, style),
      ];
    });
}

async function render(context: Context, list: BackupList): Promise<string> {
  const { style } = context;
  const now = Date.now();
  const lines: string[] = [];
  if (list.snapshots.length === 0) lines.push("no snapshots");
  else {
    const digits = digitsOf([...new Set(list.snapshots.map(({ snapshot_id: id }) => id))]);
    const rows = list.snapshots.map((snapshot) => rowOf(snapshot, style, now, digits));
    append(lines, await renderTable(rows, [3, 4]));
    lines.push(style.dim(plural(list.snapshots.length, "snapshot")));
    append(lines, rowLines(list.snapshots, style));
  }
  for (const { snapshot_id: id, detail } of list.damaged)
    lines.push(style.red(`snapshot ${id.slice(0, 8)} cannot be read: ${printable(detail)}`));
  return lines.join("\n");
}
