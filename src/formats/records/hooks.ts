import { checkPath, decodeRecord, encodeChecked, encodeRecord, type RecordedPath } from "./record.ts";

/** Commands for the shell, by their place; absent: none. */
export type HookName = (typeof HOOK_NAMES)[number];
export const HOOK_NAMES = ["before_save", "after_save", "before_backup", "after_backup"] as const;

/** `hooks/<workspace id>.json` of a user's state directory: the commands before and after saves and backups. */
export interface HooksFile extends RecordedPath, Partial<Record<HookName, string>> {
  /** Limit for each command. */
  seconds: number;
}

export const DEFAULT_SECONDS = 3600;
export const MAX_SECONDS = 7 * 86_400;

const FORMAT = "cairn.hooks";
const VERSION = 1;

export function encodeHooks(file: HooksFile): Uint8Array {
  return encodeChecked(file, (value) => encodeRecord(value, FORMAT, VERSION), decodeHooks);
}

/** Throws `damaged`, naming the field, or `newer_version`; unknown fields stay. */
export function decodeHooks(bytes: Uint8Array): HooksFile {
  const { value, fields } = decodeRecord(bytes, FORMAT, VERSION);
  checkPath(fields);
  for (const name of HOOK_NAMES)
    if (fields.has(name) && fields.text(name) === "") throw fields.wrong(name, "a command");
  fields.integer("seconds", MAX_SECONDS, 1);
  return value as unknown as HooksFile;
}
