import type { ListedEntry, NamedPath, SavePoint } from "../../contract/index.ts";
import { formatAge, formatBytes, formatInstant, formatMode, plural, printable } from "./format.ts";
import { describeCause } from "./points.ts";
import type { Shorten } from "../shorten.ts";
import type { Style } from "./style.ts";
import { renderTable } from "./table.ts";

/** The id of an owner that a save in a user namespace could not know. */
const UNKNOWN_ID = 0xffffffff;

type Listing = NamedPath & { entries: ListedEntry[] };

export async function renderListing(shown: Listing, style: Style): Promise<string[]> {
  const rows = shown.entries.map((entry) => [
    formatMode(entry.kind, entry.mode),
    printable(entry.user === "" ? (entry.uid === UNKNOWN_ID ? "unknown" : String(entry.uid)) : entry.user),
    entry.kind === "file" ? formatBytes(entry.size) : "",
    style.dim(formatInstant(entry.modified_at)),
    describeName(entry, shown, style),
  ]);
  return renderTable(rows, [2]);
}

/** The name below the listed folder. */
function describeName(entry: ListedEntry, shown: Listing, style: Style): string {
  const prefix = `${shown.path}/`;
  const name = printable(entry.path.startsWith(prefix) ? entry.path.slice(prefix.length) : entry.path);
  if (entry.kind === "directory") return style.bold(`${name}/`);
  return entry.target === undefined ? name : `${style.cyan(name)} → ${printable(entry.target)}`;
}

/** Shows a point as rows of a name and a value. */
export async function renderPoint(
  point: SavePoint,
  shorten: Shorten,
  style: Style,
  now = Date.now(),
): Promise<string[]> {
  const [message = "", ...more] = point.message.trimEnd().split("\n").map(printable);
  const rows: [string, string][] = [
    ["save point", style.bold(point.save_point_id)],
    ["saved", `${formatInstant(point.created_at)} (${formatAge(point.created_at, now)})`],
    ["message", point.message === "" ? style.dim("none") : message],
    ...more.map((line): [string, string] => ["", line]),
    ["cause", describeCause(point)],
    [
      "holds",
      point.entries === null || point.bytes === null
        ? "a clone, not read into the store yet"
        : `${plural(point.entries, "entry")}, ${formatBytes(point.bytes)}; added ${formatBytes(point.bytes_stored)} to the store`,
    ],
    ["engine", point.effective_engine],
    ["state digest", point.payload_root_hash ?? style.dim("not sealed yet")],
    ["integrity", point.integrity_state],
  ];
  if (point.tags.length > 0) rows.push(["tags", point.tags.map(printable).join(", ")]);
  if (point.parent_id !== null) rows.push(["parent", shorten(point.parent_id)]);
  if (point.restored_from !== null) rows.push(["based on an older point", shorten(point.restored_from)]);
  for (const { at, paths } of point.rewritten ?? [])
    rows.push(["paths removed", `${at}: ${paths.map(({ path }) => printable(path)).join(", ")}`]);
  if (point.pinned) rows.push(["pinned", "yes"]);
  if (!point.complete) rows.push(["complete", style.yellow("no: something could not be recorded, or may be torn")]);
  for (const label of point.labels)
    rows.push([
      label.label,
      [label.path, ...(label.reason === undefined ? [] : [label.reason])].map(printable).join(": "),
    ]);
  if (point.labels_known === false) rows.push(["databases", style.dim("not checked until the point is sealed")]);
  return renderTable(rows.map(([name, value]) => [style.dim(name), value]));
}
