import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { toCairnError } from "../../errors.ts";
import { decodeUnfreed, encodeUnfreed, type UnfreedFile } from "../../formats/records/cleanup.ts";
import { namesIfThere } from "../../fs/paths/names-in.ts";
import type { ControlPaths } from "../place/control-layout.ts";
import { readRecord } from "../../fs/durable.ts";
import { writeRecord } from "../place/control-directory.ts";

const NOTE_NAME = /^[0-9a-f]{16}\.json$/;

/** Reads the notes of content that removals left in the store. No other record names removed points. */
export function notesIn(control: ControlPaths): { file: string; content: UnfreedFile }[] {
  return namesIfThere(control.unfreed).flatMap((name) => {
    const file = join(control.unfreed, name);
    const content = NOTE_NAME.test(name) ? contentOf(file) : null;
    return content === null ? [] : [{ file, content }];
  });
}

/**
 * Reads a note. Null if another process has deleted it, or only a newer version can read it. A damaged note counts,
 * with unknown content.
 */
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

/** True if content of removed points may still be in the store. */
export function isUnfreed(control: ControlPaths): boolean {
  return notesIn(control).length > 0;
}

/**
 * Writes a note and returns its path. Written after the points are removed, or earlier if that will be impossible:
 * points that still exist are skipped.
 */
export function noteUnfreed(control: ControlPaths, content: UnfreedFile): string {
  const file = join(control.unfreed, `${randomBytes(8).toString("hex")}.json`);
  writeRecord(control, file, encodeUnfreed(content));
  return file;
}
