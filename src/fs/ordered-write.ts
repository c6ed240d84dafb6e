import { fsyncSync, renameSync } from "node:fs";
import { dirname, join } from "node:path";
import { toCairnError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { temporaryName, writeNewFile } from "./durable.ts";
import { isHeldInMetadata } from "./linux/reflink.ts";
import { clearAway } from "./remove-all.ts";

/**
 * Replaces or creates a file on a file system whose changes to names become durable in the order they were made in, as
 * on btrfs: after a power cut the file has all of the new bytes if anything that was done later is there, and all of
 * the old ones otherwise. It is durable with whatever makes the file system commit next.
 */
export function orderedWrite(path: string, bytes: Uint8Array): void {
  const temporary = join(dirname(path), temporaryName());
  try {
    writeNewFile(temporary, bytes, 0o600, (descriptor) => {
      if (!isHeldInMetadata(descriptor)) fsyncSync(descriptor);
    });
    failpoint("ordered-staged");
    renameSync(temporary, path);
  } catch (error) {
    clearAway(temporary);
    throw toCairnError(error, `write ${path}`);
  }
}
