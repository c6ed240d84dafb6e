import { DatabaseProcess } from "../../capture/sqlite/database-process.ts";
import type { PathInput } from "../../contract/words.ts";
import { toCairnError } from "../../errors.ts";
import { beside, LOGS } from "../../formats/sqlite-header.ts";
import { makeFolder } from "../../fs/make-folder.ts";
import { displayPath, joinRaw, normalizeTyped } from "../../fs/paths/safe-path.ts";
import { removeAll } from "../../fs/remove-all.ts";
import { newWorkDirectory } from "../../fs/work-directory.ts";
import { readRaw } from "../../look/read.ts";
import { type Looking, meantBy, namesOf, now } from "../../look/sources/operands.ts";
import type { Workspace } from "../../workspace/open/workspace.ts";
import type { DiffDatabaseOptions, DiffDatabaseResult } from "./diff-database.ts";
import { createWriteStream, rmSync } from "node:fs";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";

/** Compares a database in a state with the database in another state, or in the present folder. */
export async function diffDatabase(
  hand: Looking,
  path: PathInput,
  [a, b]: [string, string | null],
  options: DiffDatabaseOptions,
): Promise<DiffDatabaseResult> {
  const { limit = SHOWN_ROWS, signal } = options;
  const { from, to } = await namesOf(hand, [a, b], options);
  const work = newWorkDirectory(hand.workspace.found.control.temporary);
  const sqlite = new DatabaseProcess();
  try {
    const places = { before: join(work, "before"), after: join(work, "after") };
    for (const place of Object.values(places)) makeFolder(place);
    const place = async (target: string | null, folder: string): Promise<string> => {
      const present = presentPlace(hand.workspace, target, normalizeTyped(path));
      if (present === null)
        return placeDatabase(hand, { target: target!, path: normalizeTyped(path), folder }, options);
      await sqlite.do(
        "capture",
        { path: present, stage: folder, checkpoint: false, integrityCheck: false },
        { signal },
      );
      return join(folder, "image");
    };
    const before = await place(from, places.before);
    const after = await place(to, places.after);
    const { schema, tables } = await sqlite.do("compare", { before, after, limit }, { signal });
    return {
      ...displayPath(normalizeTyped(path)),
      from: from as DiffDatabaseResult["from"],
      to: to as DiffDatabaseResult["to"],
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

/** Returns the place of a file in a present folder; null if `target` means no folder. */
function presentPlace(workspace: Workspace, target: string | null, path: Uint8Array): Buffer | null {
  const meant = target === null ? now() : meantBy(workspace, target);
  if (meant.kind !== "now" && meant.kind !== "folder") return null;
  const root = meant.kind === "now" ? workspace.root : meant.found.folder;
  return joinRaw(meant.path.length === 0 ? root : joinRaw(root, meant.path), path);
}

/** Writes a state's database and its journals into a folder. Returns the database's path there. */
async function placeDatabase(
  hand: Looking,
  { target, path, folder }: { target: string; path: Uint8Array; folder: string },
  options: DiffDatabaseOptions,
): Promise<string> {
  for (const ending of ["", ...LOGS]) {
    const place = join(folder, `${NAME}${ending}`);
    try {
      await pipeline(readRaw(hand, target, beside(path, ending), options), createWriteStream(place, { flags: "wx" }));
    } catch (error) {
      if (ending === "" || toCairnError(error).code !== "not_found") throw error;
      // The point has no journal with this ending.
      rmSync(place, { force: true });
    }
  }
  return join(folder, NAME);
}
