import fs from "node:fs";
import { STAGING_NAME } from "../engines/scan/task.ts";
import { joinRaw } from "../fs/safe-path.ts";

/** Staging directories that a restore has left at the root of a mount: it was interrupted, and ended while that was not there. */
export function stagedIn(mountPoint: Buffer): Buffer[] {
  try {
    return fs
      .readdirSync(mountPoint)
      .filter((name) => STAGING_NAME.test(name))
      .map((name) => joinRaw(mountPoint, name));
  } catch {
    // A file, or what this user may not look into.
    return [];
  }
}
