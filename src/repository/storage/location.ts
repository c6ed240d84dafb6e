import { CairnError } from "../../errors.ts";
import type { Limits } from "./limited.ts";
import type { Storage } from "./storage.ts";

/**
 * Parses and opens the location of a repository: `/path`, `local:/path`, `rest:https://host/`, `sftp:user@host:/path`,
 * `s3:host/bucket`.
 */

export interface OpenStorageOptions {
  /** True: the storage creates the folders or other things that a new repository needs. Default false. */
  create?: boolean;
  /** Environment variables with credentials and settings of a storage. Default: those of the process. */
  env?: Readonly<Record<string, string | undefined>>;
  /** Relative paths start here. Default: the current folder. */
  cwd?: string;
  /** Aborts the opening. Calls of the open storage have their own signals. */
  signal?: AbortSignal | undefined;
  limits?: Limits | undefined;
}

/** Opens the storage at a location. Throws `usage` if the location is invalid. The caller closes the storage. */
export type StorageFactory = (location: string, options?: OpenStorageOptions) => Promise<Storage>;

export interface SplitLocation {
  /** Lower case; `local` for a path without a scheme. */
  readonly scheme: string;
  /** The text after the scheme and its colon; for `local` the path as it was given. */
  readonly rest: string;
}

/** `user@host:path`, the form of scp and rsync for another machine. */
const ELSEWHERE = /^[^/:\s]+@[^/:\s]+:/;
const SCHEME = /^([A-Za-z][A-Za-z0-9+.-]*):(.*)$/s;

/**
 * Splits a location. A path with a colon is written `./a:b` or `local:a:b`. Throws `usage` if the location is empty, or
 * names another machine without a scheme.
 */
export function splitLocation(location: string): SplitLocation {
  const match = /^[./~]/.test(location) ? null : SCHEME.exec(location);
  if (ELSEWHERE.test(location))
    throw new CairnError("usage", `the location of another machine needs a scheme: ${JSON.stringify(location)}`, {
      hint: `use sftp:${location}; for a folder of this name on this machine begin with ./ or local:`,
    });
  const split =
    match === null ? { scheme: "local", rest: location } : { scheme: match[1]!.toLowerCase(), rest: match[2]! };
  if (split.rest !== "") return split;
  throw new CairnError("usage", `expected a repository's location, found ${JSON.stringify(location)}`, {
    hint: "for example /srv/backups or local:/srv/backups",
  });
}

/** Advice for services of other restic storages. */
const BY_S3: Readonly<Record<string, string>> = {
  b2: "Backblaze B2 speaks S3: s3:https://s3.REGION.backblazeb2.com/BUCKET/PATH",
  gs: "Google Cloud Storage speaks S3: s3:https://storage.googleapis.com/BUCKET/PATH with an HMAC key",
  swift: "many services with Swift speak S3 too: s3:https://HOST/BUCKET/PATH",
};
const BY_RCLONE =
  "for a storage that rclone supports, run `rclone serve restic REMOTE:PATH` and name rest:http://127.0.0.1:8080/";

/** Returns the error for an unknown scheme. `known` are the supported schemes. */
export function unknownScheme(scheme: string, known: readonly string[]): CairnError {
  const isWeb = scheme === "http" || scheme === "https";
  const way = isWeb
    ? `for a server of restic's protocol name rest:${scheme}://…, for an S3 server s3:${scheme}://…`
    : [...(Object.hasOwn(BY_S3, scheme) ? [BY_S3[scheme]!] : []), BY_RCLONE].join(", or ");
  return new CairnError("usage", `unknown kind of storage: ${JSON.stringify(`${scheme}:`)}`, {
    hint: `${way}; else name a path, or one of ${known.map((name) => `${name}:`).join(", ")}; begin a path with a colon in it with ./ or local:`,
  });
}
