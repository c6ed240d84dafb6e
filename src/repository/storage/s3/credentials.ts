import { statSync } from "node:fs";
import { join } from "node:path";
import { homeDirectory } from "../../../fs/users.ts";
import { readRegular } from "../../../fs/regular-file.ts";
import { CairnError, toCairnError } from "../../../errors.ts";

export interface S3Credentials {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken?: string;
}

export interface S3Settings {
  readonly credentials: S3Credentials;
  /** Null if neither the environment nor a profile has a region. */
  readonly region: string | null;
}

type Environment = Readonly<Record<string, string | undefined>>;

const MAX_FILE_BYTES = 1 << 20;

/**
 * Finds credentials and region as AWS's tools do: in the environment (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`,
 * `AWS_SESSION_TOKEN`, `AWS_REGION`, `AWS_DEFAULT_REGION`), then in the profile `AWS_PROFILE` of `~/.aws/credentials`
 * and `~/.aws/config`. Throws `permission` if there are none.
 */
export function findS3Settings(env: Environment): S3Settings {
  const { profile, credentialsFile } = sourcesOf(env);
  const section = readProfiles(credentialsFile)?.get(profile);
  const credentials = fromEnvironment(env) ?? fromProfile(section, credentialsFile);
  if (credentials !== null) return { credentials, region: findS3Region(env) };
  const text = `no credentials for S3: not in the environment and not in ${credentialsFile} [${profile}]`;
  throw new CairnError("permission", text, {
    hint: "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; CAIRN_S3_ANONYMOUS=1 sends requests without credentials",
  });
}

/** Returns the region of the environment or the profile, or null. */
export function findS3Region(env: Environment): string | null {
  const said = env["AWS_REGION"] || env["AWS_DEFAULT_REGION"];
  if (said !== undefined && said !== "") return said;
  const { profile, credentialsFile, configFile } = sourcesOf(env);
  const section = profile === "default" ? "default" : `profile ${profile}`;
  const beside = readProfiles(credentialsFile)?.get(profile)?.get("region");
  return beside || readProfiles(configFile)?.get(section)?.get("region") || null;
}

function sourcesOf(env: Environment): { profile: string; credentialsFile: string; configFile: string } {
  const folder = join(homeDirectory(env), ".aws");
  return {
    profile: env["AWS_PROFILE"] || "default",
    credentialsFile: env["AWS_SHARED_CREDENTIALS_FILE"] || join(folder, "credentials"),
    configFile: env["AWS_CONFIG_FILE"] || join(folder, "config"),
  };
}

function fromEnvironment(env: Environment): S3Credentials | null {
  const accessKeyId = env["AWS_ACCESS_KEY_ID"] ?? "";
  const secretAccessKey = env["AWS_SECRET_ACCESS_KEY"] ?? "";
  if (accessKeyId === "" && secretAccessKey === "") return null;
  if (accessKeyId === "" || secretAccessKey === "") {
    const missing = accessKeyId === "" ? "AWS_ACCESS_KEY_ID" : "AWS_SECRET_ACCESS_KEY";
    throw new CairnError("usage", `${missing} is not set, although its counterpart is`, {
      hint: "set both or neither",
    });
  }
  return withToken({ accessKeyId, secretAccessKey }, env["AWS_SESSION_TOKEN"]);
}

function fromProfile(section: ReadonlyMap<string, string> | undefined, file: string): S3Credentials | null {
  const accessKeyId = section?.get("aws_access_key_id") ?? "";
  const secretAccessKey = section?.get("aws_secret_access_key") ?? "";
  if (accessKeyId === "" && secretAccessKey === "") return null;
  if (accessKeyId === "" || secretAccessKey === "")
    throw new CairnError("usage", `${file}: the profile has only one of aws_access_key_id and aws_secret_access_key`);
  return withToken({ accessKeyId, secretAccessKey }, section?.get("aws_session_token"));
}

/** Removes spaces and line ends around the keys, which often come with files and container secrets. */
function withToken(keys: { accessKeyId: string; secretAccessKey: string }, token: string | undefined): S3Credentials {
  const [accessKeyId, secretAccessKey] = [keys.accessKeyId.trim(), keys.secretAccessKey.trim()];
  const sessionToken = token?.trim() ?? "";
  return { accessKeyId, secretAccessKey, ...(sessionToken === "" ? {} : { sessionToken }) };
}

/** Throws `usage` for characters that are invalid in a header. The HTTP client's own error would contain the secret. */
export function checkCredentials(credentials: S3Credentials): void {
  for (const [name, value] of Object.entries(credentials)) {
    if (value === "" || /[^\x21-\x7e]/.test(value))
      throw new CairnError("usage", `the ${name} for S3 is empty or has invalid characters`);
  }
}

function readProfiles(file: string): Map<string, Map<string, string>> | null {
  let text: string;
  try {
    const { size } = statSync(file);
    if (size > MAX_FILE_BYTES)
      throw new CairnError("usage", `${file} has ${size} bytes; it cannot be a file of profiles`);
    text = readRegular(file, { named: true }).toString("utf8");
  } catch (error) {
    const failure = toCairnError(error, `cannot read ${file}`);
    if (failure.code === "not_found") return null;
    throw failure;
  }
  return parseProfiles(text);
}

/** Parses an INI file of AWS's tools: `[name]`, `key = value`, `#` and `;` at the beginning of a line. */
export function parseProfiles(text: string): Map<string, Map<string, string>> {
  const profiles = new Map<string, Map<string, string>>();
  let section: Map<string, string> | null = null;
  for (const line of text.replace(/^\uFEFF/, "").split(/\r?\n/)) {
    // An indented line belongs to the setting above it, which is none of ours.
    if (line === "" || /^[#;\s]/.test(line)) continue;
    const name = /^\[([^\]]*)\]/.exec(line)?.[1]?.trim().replaceAll(/\s+/g, " ");
    if (name !== undefined) {
      section = profiles.get(name) ?? new Map<string, string>();
      profiles.set(name, section);
      continue;
    }
    const equals = line.indexOf("=");
    if (equals > 0) section?.set(line.slice(0, equals).trim().toLowerCase(), line.slice(equals + 1).trim());
  }
  return profiles;
}
