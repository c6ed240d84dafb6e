import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";

/** Returns the sorted paths of production files below `source`: no tests, and no files that only tests use. */
export function productionFiles(source: string): string[] {
  return readdirSync(source, { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(".ts") && !/\.(?:test|contract)\.ts$|(?:^|\/)test(?:ing)?-[^/]*\.ts$/.test(file))
    .toSorted();
}

/** Counts the production lines of each folder of `source`, and of its top. */
export function linesByRoom(source: string): Map<string, number> {
  const rooms = new Map<string, number>();
  for (const file of productionFiles(source)) {
    const room = file.includes("/") ? file.slice(0, file.indexOf("/")) : "(top)";
    const lines = readFileSync(path.join(source, file), "utf8").split("\n").length - 1;
    rooms.set(room, (rooms.get(room) ?? 0) + lines);
  }
  return rooms;
}

/** Returns one line: all production lines, the change since the last release, and the lines of each room, most first. */
export function linesMessage(rooms: ReadonlyMap<string, number>, atRelease: number): string {
  const total = [...rooms.values()].reduce((sum, lines) => sum + lines, 0);
  const change = total - atRelease;
  const each = [...rooms].toSorted((a, b) => b[1] - a[1]).map(([room, lines]) => `${room} ${lines}`);
  return `${total} production lines, ${change > 0 ? "+" : ""}${change} since the last release: ${each.join(", ")}`;
}

/** Production lines at release 0.1.0, before it was made smaller. Update this number with each release. */
export const LINES_AT_RELEASE = 83_864;

if (import.meta.main)
  console.log(linesMessage(linesByRoom(path.resolve(import.meta.dirname, "../src")), LINES_AT_RELEASE));
