import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { durableWrite, readSmallFile } from "../fs/durable.ts";
import { userCacheDirectory } from "../fs/users.ts";
import type { SavePointId } from "../ids.ts";

/** The views of the page that were open last. The page's name is new at each start, so a browser cannot keep them. */

/** The fragment of a view's address, and the path of its workspace; the newest first. */
type View = readonly [view: string, workspace: string | null];

const MOST_VIEWS = 100;
const MOST_BYTES = 1 << 20;

/** The part of a save point's address in the page after the page's name, which is new at each start. */
export function pageOfPoint(workspace: string, point: SavePointId): string {
  return `#/point?w=${encodeURIComponent(workspace)}&p=${point}`;
}

/** The view that was open last, of a workspace if one is given; null if there is none. */
export function lastView(workspace: string | null): string | null {
  return lastViews().find(([, of]) => workspace === null || of === workspace)?.[0] ?? null;
}

/** Makes a view the one that `cairn ui` begins with. Best effort, because the cache may be read-only. */
export function noteView(view: string): void {
  const workspace = new URLSearchParams(view.split("?", 2)[1]).get("w");
  const others = lastViews().filter(([, of]) => of !== workspace);
  try {
    mkdirSync(userCacheDirectory(), { recursive: true, mode: 0o700 });
    const views: View[] = [[view, workspace], ...others.slice(0, MOST_VIEWS - 1)];
    durableWrite(file(), Buffer.from(JSON.stringify(views)), { syncDirectory: false });
  } catch {
    // The next `cairn ui` begins with the timeline.
  }
}

function file(): string {
  return join(userCacheDirectory(), "last-views.json");
}

function lastViews(): readonly View[] {
  try {
    const found: unknown = JSON.parse(readSmallFile(file(), MOST_BYTES)?.toString("utf8") ?? "[]");
    return Array.isArray(found) ? found.filter(isView) : [];
  } catch {
    // Another program wrote the file, or no cache is known.
    return [];
  }
}

function isView(found: unknown): found is View {
  return Array.isArray(found) && typeof found[0] === "string" && (found[1] === null || typeof found[1] === "string");
}
