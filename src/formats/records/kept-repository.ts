import { checkRetention, type StoredRetention } from "./policy.ts";
import { checkPath, decodeRecord, encodeChecked, encodeRecord, type RecordedPath } from "./record.ts";

/** `repository.json` of a workspace: its repository for backups. Never has a password. */
export interface KeptRepositoryFile {
  repository: string;
  /** The repository's own id; absent before the first backup. */
  repository_id?: string | undefined;
  /** Absolute. */
  password_file: string | null;
  password_command: string | null;
  /** Absolute. */
  age_identity: string | null;
  retention: StoredRetention | null;
  /** Command or URL of an alarm; absent in older records. */
  on_failure?: string | null;
  /** Commands that ask a copy of each backup; absent in older records. */
  probe?: string[];
}

const FORMAT = "cairn.kept-repository";
const VERSION = 1;

export function encodeKeptRepository(file: KeptRepositoryFile): Uint8Array {
  return encodeChecked(file, (value) => encodeRecord(value, FORMAT, VERSION), decodeKeptRepository);
}

/** Throws `damaged`, naming the field, or `newer_version`; unknown fields stay. */
export function decodeKeptRepository(bytes: Uint8Array): KeptRepositoryFile {
  const { value, fields } = decodeRecord(bytes, FORMAT, VERSION);
  if (fields.text("repository") === "") throw fields.wrong("repository", "a location");
  for (const key of ["password_file", "password_command", "age_identity"]) if (!fields.isNull(key)) fields.text(key);
  if (fields.has("on_failure") && !fields.isNull("on_failure")) fields.text("on_failure");
  if (fields.has("repository_id")) fields.text("repository_id");
  if (fields.has("probe")) fields.texts("probe");
  const retention = fields.objectOrNull("retention");
  if (retention !== null) checkRetention(retention);
  return value as unknown as KeptRepositoryFile;
}

/** Commands for the shell, by their place; absent: none. */
export type HookName = (typeof HOOK_NAMES)[number];
export const HOOK_NAMES = ["before_save", "after_save", "before_backup", "after_backup"] as const;

/** `hooks/<workspace id>-<path hash>.json` of a user's state directory: the commands before and after saves and backups. */
export interface HooksFile extends RecordedPath, Partial<Record<HookName, string>> {
  /** Limit for each command. */
  seconds: number;
}

export const DEFAULT_SECONDS = 3600;
export const MAX_SECONDS = 7 * 86_400;

const HOOKS_FORMAT = "cairn.hooks";

export function encodeHooks(file: HooksFile): Uint8Array {
  return encodeChecked(file, (value) => encodeRecord(value, HOOKS_FORMAT, VERSION), decodeHooks);
}

/** Throws `damaged`, naming the field, or `newer_version`; unknown fields stay. */
export function decodeHooks(bytes: Uint8Array): HooksFile {
  const { value, fields } = decodeRecord(bytes, HOOKS_FORMAT, VERSION);
  checkPath(fields);
  for (const name of HOOK_NAMES)
    if (fields.has(name) && fields.text(name) === "") throw fields.wrong(name, "a command");
  fields.integer("seconds", MAX_SECONDS, 1);
  return value as unknown as HooksFile;
}
