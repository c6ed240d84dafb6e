import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { toCairnError } from "../../errors.ts";
import { decodeUnfreed, encodeUnfreed, type UnfreedFile } from "../../formats/records/cleanup.ts";
import { namesIfThere } from "../../fs/paths/names-in.ts";
import type { ControlPaths } from "../place/control-layout.ts";
import { readRecord, writeRecord } from "../place/control-directory.ts";

const NOTE_NAME = /^[0-9a-f]{16}\.json$/;

/** Reads the notes of what removals had to leave in the store: nothing else tells of points that are gone. */
export function notesIn(control: ControlPaths): { file: string; content: UnfreedFile }[] {
  return namesIfThere(control.unfreed).flatMap((name) => {
    const file = join(control.unfreed, name);
    const content = NOTE_NAME.test(name) ? contentOf(file) : null;
    return content === null ? [] : [{ file, content }];
  });
}

/** Null where another process has done what it says, or a newer version has to. Of a damaged one it is known that it is there. */
function contentOf(file: string): UnfreedFile | null {
  try {
    return readRecord(file, decodeUnfreed);
  } catch (error) {
    const { code } = toCairnError(error);
    if (code === "newer_version") return null;
    if (code === "damaged") return { points: [], thorough: true };
    throw error;
  }
}

/** True when content of points that were removed may still be in the store. */
export function isUnfreed(control: ControlPaths): boolean {
  return notesIn(control).length > 0;
}

/** Written after the points have gone, or before by whoever cannot write it then: of those that are there it does nothing. Returns its path. */
export function noteUnfreed(control: ControlPaths, content: UnfreedFile): string {
  const file = join(control.unfreed, `${randomBytes(8).toString("hex")}.json`);
  writeRecord(control, file, encodeUnfreed(content));
  return file;
}
