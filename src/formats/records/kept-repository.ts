import { checkRetention, type StoredRetention } from "./policy.ts";
import { decodeRecord, encodeChecked, encodeRecord } from "./record.ts";

/** `repository.json` of a workspace: the repository that it is backed up into. It never has a password in it. */
export interface KeptRepositoryFile {
  repository: string;
  /** Absolute. */
  password_file: string | null;
  password_command: string | null;
  /** Absolute. */
  age_identity: string | null;
  retention: StoredRetention | null;
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
  const retention = fields.objectOrNull("retention");
  if (retention !== null) checkRetention(retention);
  return value as unknown as KeptRepositoryFile;
}
