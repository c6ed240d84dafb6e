import { readdirSync } from "node:fs";
import { isMountDead, toCairnError } from "../../errors.ts";

/** Names in a directory; none where it cannot be listed, for whoever can do without. */
export function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}

/** Names in a directory; none where it is not there. Throws what else keeps it from being listed. */
export function namesIfThere(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT" || isMountDead(error)) return [];
    throw toCairnError(error, `list ${directory}`);
  }
}
