import { constants } from "node:fs";
import { mkdir, open } from "node:fs/promises";
import { refusesDirectorySync } from "../../fs/durable.ts";

/** No such file, or no such folder above it. */
export function isAbsent(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException;
  return code === "ENOENT" || code === "ENOTDIR";
}

/** Not durable; one that is there is kept. */
export async function makeDirectory(path: string): Promise<void> {
  try {
    await mkdir(path, { mode: 0o700 });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
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
