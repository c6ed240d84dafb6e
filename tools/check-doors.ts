import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import type { Finding } from "./check-architecture.ts";
import { importsOf } from "./check-limits.ts";
import { productionFiles, roomOf } from "./source-files.ts";

/**
 * Checks the doors of rooms: other rooms import only files that the room's README.md names in its paragraph `Doors:`.
 * There `save.ts` is a file, `open/` all files directly in a folder, and `*.ts` all files directly in the room.
 */

const DOORS = /^Doors?:[^]*?(?=\n\s*\n|$(?![^]))/m;

/** Returns findings about imports of files that are no doors, and about doors that no other room uses. */
export function checkDoors(source: string): Finding[] {
  const importer = importersOfOthers(source);
  return [...Map.groupBy(importer.keys(), roomOf)].flatMap(([room, used]) => {
    const readme = path.join(source, room, "README.md");
    const [doors = ""] = (existsSync(readme) ? DOORS.exec(readFileSync(readme, "utf8")) : null) ?? [];
    const named = [...doors.matchAll(/`([\w./*-]+)`/g)].map(([, name]) => name!);
    const opens = (name: string, file: string): boolean => {
      const own = path.posix.relative(room, file);
      return name === own || name === (own.includes("/") ? `${path.posix.dirname(own)}/` : "*.ts");
    };
    const isHere = (name: string): boolean => name === "*.ts" || existsSync(path.join(source, room, name));
    const closed = used.filter((file) => !named.some((name) => opens(name, file)));
    const unused = named.filter((name) => isHere(name) && !used.some((file) => opens(name, file)));
    return [
      ...closed.map(
        (file) => `${file} is no door, and ${importer.get(file)} imports it: name it under "Doors:", or import a door`,
      ),
      ...unused.map((name) => `no other room uses the door ${name}`),
    ].map((message): Finding => ({ severity: "error", file: `${room}/README.md`, message }));
  });
}

/** Returns the files of rooms that another room, or a file without a room, imports, each with the first of these importers. */
function importersOfOthers(source: string): Map<string, string> {
  const files = new Set(productionFiles(source));
  const found = new Map<string, string>();
  for (const file of files) {
    const { all, lazy } = importsOf(source, file);
    for (const other of [...all, ...lazy])
      if (files.has(other) && roomOf(other) !== "top" && roomOf(other) !== roomOf(file) && !found.has(other))
        found.set(other, file);
  }
  return found;
}
