import { createHash } from "node:crypto";
import { rmdirSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { durableMkdir, durableWrite, readSmallFile } from "../../../fs/durable.ts";
import { userStateDirectory } from "../../../fs/users.ts";
import { removeUnfinished } from "../../../fs/work-directory.ts";
import { requireOwnHome } from "../../../workspace/place/owners.ts";

/** A tool's file before `install` changed it. `remove` restores the same bytes if the file was not changed since. */
interface KeptBefore {
  /** null: there was no file */
  before: string | null;
  /** digest of the text that `install` wrote */
  after: string;
  /** topmost folder that was made for the file; null: none */
  made: string | null;
}

const LIMIT = 128 << 20;
const digestOf = (text: string): string => createHash("sha256").update(text).digest("hex");
const placeOf = (file: string): string => join(userStateDirectory(), "agents", `${digestOf(file)}.json`);

/** Returns the record of a file; null if there is none, or if `text` is not the text that `install` wrote. */
export function keptBefore(file: string, text: string | null): KeptBefore | null {
  const record = readSmallFile(placeOf(file), LIMIT, true);
  if (record === null || text === null) return null;
  try {
    const kept = JSON.parse(record.toString("utf8")) as KeptBefore;
    return kept.after === digestOf(text) ? kept : null;
  } catch {
    return null;
  }
}

/** Throws `refused` for root in another user's home, before the first file is written: the user could not read it any more. */
export function requireKeepable(): void {
  requireOwnHome(userStateDirectory());
}

/** Records a file's text before an install. A repeated install keeps the first text. */
export function keepBefore(
  file: string,
  { before, text, made }: { before: string | null; text: string; made: string | null },
): void {
  const kept = { ...(keptBefore(file, before) ?? { before, made }), after: digestOf(text) };
  durableMkdir(dirname(placeOf(file)), { mode: 0o700 });
  removeUnfinished(dirname(placeOf(file)));
  durableWrite(placeOf(file), Buffer.from(JSON.stringify(kept)), { mode: 0o600 });
}

/** Removes the record, and the empty folders that were made for the file. */
export function forgetBefore(file: string, made: string | null): void {
  rmSync(placeOf(file), { force: true });
  try {
    for (let folder = dirname(file); made !== null && folder.startsWith(made); folder = dirname(folder))
      rmdirSync(folder);
  } catch {
    // The folder is not empty.
  }
}
