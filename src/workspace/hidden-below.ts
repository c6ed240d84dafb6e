import fs from "node:fs";
import type { RecordFinder } from "../engines/scan/find-record.ts";

const SLASH = Buffer.from("/");

/** Whether a directory of the folder has something in it, at any depth, that a scan did not record; false of what is none. */
export function holdsUnrecorded(root: Uint8Array, where: Uint8Array, finder: RecordFinder): boolean {
  const open = [Buffer.from(where)];
  for (let at = open.pop(); at !== undefined; at = open.pop()) {
    for (const entry of entriesOf(Buffer.concat([root, SLASH, at]))) {
      const own = Buffer.concat([at, SLASH, entry.name]);
      if (finder.find(own) === null) return true;
      if (entry.isDirectory()) open.push(own);
    }
  }
  return false;
}

/** None of what is no directory, or cannot be looked into. */
function entriesOf(place: Buffer): fs.Dirent<Buffer>[] {
  try {
    if (!fs.lstatSync(place).isDirectory()) return [];
    return fs.readdirSync(place, { withFileTypes: true, encoding: "buffer" });
  } catch {
    return [];
  }
}
