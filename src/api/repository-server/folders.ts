import { constants } from "node:fs";
import { chmod, chown, mkdir, open, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { refusesDirectorySync } from "../../fs/durable.ts";
import { keepsNoModes, sharedFolder } from "../../repository/storage/sharing.ts";

/** True if a file, or a folder above it, does not exist. */
export function isAbsent(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException;
  return code === "ENOENT" || code === "ENOTDIR";
}

/** Makes a directory, not durably; an existing one stays. `group`: the group that may use it like its parent; false: none. */
export async function makeDirectory(path: string, group: number | false): Promise<void> {
  const mode = group !== false ? sharedFolder((await stat(dirname(path))).mode) : 0o700;
  try {
    await mkdir(path, { mode });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    return;
  }
  if (group === false) return;
  await changeMode(chown(path, -1, group));
  await changeMode(chmod(path, mode));
}

/** Waits for a change of mode or group. Some file systems refuse it to every user. */
export async function changeMode(change: Promise<void>): Promise<void> {
  try {
    await change;
  } catch (error) {
    if (!keepsNoModes(error)) throw error;
  }
}

/** Makes the names in a folder durable. */
export async function syncDirectory(path: string): Promise<void> {
  const handle = await open(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await handle.sync();
  } catch (error) {
    if (!refusesDirectorySync(error)) throw error;
  } finally {
    await handle.close();
  }
}
