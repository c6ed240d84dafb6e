import fs from "node:fs";
import path from "node:path";
import { CairnError } from "../errors.ts";
import { temporaryName } from "../fs/durable.ts";

/**
 * What is under way, as the target of a link in the journal directory: metadata, so it is part of the same transaction
 * as the exchange that it announces, where a file's content would have to be synced first.
 */

/** Of what each of them says, after the name in its first word. */
const VERSION = 1;

/** Stands for a copy's uuid before there is a copy. */
export const NOT_MADE = "0".repeat(32);

/** True when something of that name was interrupted; cheap. */
export function isIntentPending(journal: string, name: string): boolean {
  return fs.lstatSync(path.join(journal, name), { throwIfNoEntry: false }) !== undefined;
}

/** Takes the place of an earlier one. */
export function writeIntentLink(journal: string, name: string, words: readonly unknown[]): void {
  const temporary = path.join(journal, temporaryName());
  fs.symlinkSync(words.join(":"), temporary);
  fs.renameSync(temporary, path.join(journal, name));
}

export function removeIntentLink(journal: string, name: string): void {
  fs.rmSync(path.join(journal, name), { force: true });
}

/** What `decode` makes of the words, null where there are none. Throws `damaged`, `newer_version` where it makes nothing of them. */
export function readIntentLink<T>(journal: string, name: string, decode: (target: string) => T | null): T | null {
  if (!isIntentPending(journal, name)) return null;
  const place = path.join(journal, name);
  const words = fs.readlinkSync(place);
  const intent = decode(words);
  if (intent !== null) return intent;
  const version = Number(/^cairn\.[a-z]+\.(\d+):/.exec(words)?.[1]);
  if (version > VERSION)
    throw new CairnError("newer_version", `${place} has version ${version}; this program knows ${VERSION}`, {
      hint: "use a newer Cairn",
    });
  throw new CairnError("damaged", `${place} says nothing that could be understood`, {
    hint: "run `cairn doctor --repair`",
  });
}
