import { readdirSync } from "node:fs";
import { isMountDead, toCairnError } from "../../errors.ts";

/** Names in a directory; empty if it cannot be listed. For callers that do not need the names. */
export function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}

/** Names in a directory; empty if it does not exist. Throws other errors of the listing. */
export function namesIfThere(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT" || isMountDead(error)) return [];
    throw toCairnError(error, `list ${directory}`);
  }
}
