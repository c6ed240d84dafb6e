import { createWriteStream, rmSync } from "node:fs";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { DatabaseProcess } from "../../capture/sqlite/database-process.ts";
import { toCairnError } from "../../errors.ts";
import { beside, LOGS } from "../../formats/sqlite-header.ts";
import { makeFolder } from "../../fs/make-folder.ts";
import { removeAll } from "../../fs/remove-all.ts";
import { displayPath, joinRaw, normalizeTyped } from "../../fs/paths/safe-path.ts";
import { newWorkDirectory } from "../../fs/work-directory.ts";
import type { Point } from "../../workspace/points/point-files.ts";
import type { Workspace } from "../../workspace/open/workspace.ts";
import type { DiffDatabaseOptions, DiffDatabaseResult } from "../../contract/looking.ts";
import type { PathInput, WorkspaceCallOptions } from "../../contract/words.ts";
import { readRaw } from "../../look/read.ts";

/** Compares a database in a point with the database in another point, or in the present folder. */
export async function diffDatabase(
  workspace: Workspace,
  path: PathInput,
  [a, b]: [string, string | null],
  options: DiffDatabaseOptions,
): Promise<DiffDatabaseResult> {
  const { limit = SHOWN_ROWS, signal } = options;
  const work = newWorkDirectory(workspace.found.control.temporary);
  const sqlite = new DatabaseProcess();
  try {
    const places = { before: join(work, "before"), after: join(work, "after") };
    for (const place of Object.values(places)) makeFolder(place);
    const [from, to] = [workspace.resolve(a), b === null ? null : workspace.resolve(b)];
    const place = async (point: Point, folder: string): Promise<string> =>
      placeDatabase(workspace, { point, path: normalizeTyped(path), folder }, options);
    const before = await place(from, places.before);
    const after = to === null ? join(places.after, "image") : await place(to, places.after);
    if (to === null) {
      const present = { path: joinRaw(workspace.root, normalizeTyped(path)), stage: places.after };
      await sqlite.do("capture", { ...present, checkpoint: false, integrityCheck: false }, { signal });
    }
    const { schema, tables } = await sqlite.do("compare", { before, after, limit }, { signal });
    return {
      ...displayPath(normalizeTyped(path)),
      from: from.descriptor.save_point_id,
      to: to?.descriptor.save_point_id ?? null,
      schema: schema.map(({ type, name, sqlBefore, sqlAfter }) => ({
        type: type as DiffDatabaseResult["schema"][0]["type"],
        name,
        sql_before: sqlBefore,
        sql_after: sqlAfter,
      })),
      tables,
    };
  } finally {
    await sqlite.close();
    removeAll(work);
  }
}

const SHOWN_ROWS = 10;
const NAME = "database";

/** Writes a point's database and its journals into a folder. Returns the database's path there. */
async function placeDatabase(
  workspace: Workspace,
  { point, path, folder }: { point: Point; path: Uint8Array; folder: string },
  options: WorkspaceCallOptions,
): Promise<string> {
  const target = point.descriptor.save_point_id;
  for (const ending of ["", ...LOGS]) {
    const place = join(folder, `${NAME}${ending}`);
    try {
      await pipeline(
        readRaw(workspace, target, beside(path, ending), options),
        createWriteStream(place, { flags: "wx" }),
      );
    } catch (error) {
      if (ending === "" || toCairnError(error).code !== "not_found") throw error;
      // The point has no journal with this ending.
      rmSync(place, { force: true });
    }
  }
  return join(folder, NAME);
}
