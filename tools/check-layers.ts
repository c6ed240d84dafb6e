import path from "node:path";
import { ROOM_LAYERS, type RoomLayer } from "./architecture-rules.ts";
import type { Finding } from "./check-architecture.ts";
import { importsOf } from "./check-limits.ts";
import { productionFiles } from "./source-files.ts";

/** Checks the layers inside rooms: a folder imports values only from folders of lower rows, so folders have no cycles. */

/** Returns findings about folders of rooms. `rooms`: rows of each room, the lowest first. */
export function checkLayers(
  source: string,
  rooms: Readonly<Record<string, readonly RoomLayer[]>> = ROOM_LAYERS,
): Finding[] {
  const files = productionFiles(source);
  const findings: Finding[] = [];
  for (const [room, inside] of Map.groupBy(files, (file) => file.split("/")[0]!)) {
    const folders = new Set(inside.map(folderOf));
    const rows = rooms[room] ?? [];
    if (folders.size === 1 && rows.length === 0) continue;
    const error = (file: string, message: string): number => findings.push({ severity: "error", file, message });
    const rowOf = new Map(rows.flatMap((row, i) => row.folders.map((folder) => [folder, i])));
    for (const folder of folders)
      if (!rowOf.has(folder)) error(`${room}/${folder}`, `has no row in ROOM_LAYERS of tools/architecture-rules.ts`);
    for (const folder of rowOf.keys())
      if (!folders.has(folder)) error(`${room}/${folder}`, "has a row in ROOM_LAYERS, and no files");
    for (const file of inside) {
      const from = rowOf.get(folderOf(file));
      const { values, lazy } = importsOf(source, file);
      for (const imported of [...values, ...lazy]) {
        const to = imported.startsWith(`${room}/`) ? rowOf.get(folderOf(imported)) : undefined;
        if (from === undefined || to === undefined || folderOf(imported) === folderOf(file) || to < from) continue;
        error(file, `may not import ${imported}, which is not of a lower layer: ${rows[from]!.reason}`);
      }
    }
  }
  return findings;
}

/** Returns the folder of a file inside its room; `.` for the room's own files. */
function folderOf(file: string): string {
  return path.posix.relative(file.split("/")[0]!, path.posix.dirname(file)) || ".";
}
