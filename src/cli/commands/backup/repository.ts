import { resolve } from "node:path";
import { Compression, KeptRepositoryEdit, RepositoryOptions, TransferLimits } from "../../../contract/repositories.ts";
import { pick } from "../../../contract/schema.ts";
import type { BackupRepository, CallOptions, KeptRepository } from "../../../contract/index.ts";
import { advice, CairnError, call, reworded, toCairnError, word } from "../../../errors.ts";
import { isAbsent } from "../../../keep/kept-repository.ts";
import { readRegular } from "../../../fs/regular-file.ts";
import { splitLocation } from "../../../repository/storage/location.ts";
import type { Context } from "../../context.ts";
import { grouped } from "../../definitions.ts";
import type { Input } from "../../input.ts";
import { usage } from "../../input.ts";
import { VerbOptions } from "../../options.ts";
import { askPassword } from "../../password.ts";
import { printable, shellQuote } from "../../render/format.ts";

const LIMITS_ENTRIES = pick(TransferLimits, "uploadRate", "downloadRate");
const LIMITS = new VerbOptions(LIMITS_ENTRIES);
/** Options with which every verb finds and opens its repository. */
export const REPOSITORY_OPTIONS = grouped(
  "repository",
  new VerbOptions({
    ...pick(RepositoryOptions, "repository"),
    ...pick(KeptRepositoryEdit, "passwordFile", "passwordCommand", "ageIdentity"),
    ...LIMITS_ENTRIES,
  }).definitions,
);

export const COMPRESSION = new VerbOptions(pick(RepositoryOptions, "compression")).definitions;

/** Hint for damaged files of snapshots. */
export const UNREADABLE_HINT =
  "`cairn backup recover` finds the trees of such a snapshot, and `cairn backup forget ID` removes a snapshot whose file cannot be read";

/** Jobs for which the storages' default of connections suffices. */
const FEW_JOBS = 5;
/** The largest default of a storage. */
const CONNECTIONS = 16;

const PREFIXES = ["CAIRN_", "RESTIC_"];
const MAX_NAME_BYTES = 64 << 10;

/** A repository that the line or the environment names, and its password source. */
export interface NamedOptions {
  options: RepositoryOptions & CallOptions;
  /** Returns the password as earlier versions read it from the same source, if that differs; null before the password was read. */
  former: () => string | null;
  /** The folder for which the repository is kept. */
  folder?: string | undefined;
}

/** The folder whose kept repository counts. */
interface ForFolder {
  /** Default: the chosen folder, else the nearest workspace. */
  folder?: string | undefined;
  /** True: the folder is going to be saved, so a renamed folder's records move with it. */
  saves?: boolean;
}

/**
 * Returns the repository of a line: the one that the line or the environment names, else the one kept for the folder.
 */
export async function repositoryOptions(
  context: Context,
  input: Input,
  of: ForFolder = {},
): Promise<NamedOptions & { isKept: boolean }> {
  const kept = await keptRepository(context, input, of);
  const { json, quiet } = context.globals;
  if (kept !== null && !json && !quiet)
    context.diagnose(
      `using the repository ${printable(kept.repository)}, set for ${printable(kept.folder)} by \`backup use\``,
    );
  return { ...namedOptions(context, input, kept === null ? {} : { kept }), isKept: kept !== null };
}

/** Returns options for a named or kept repository. A password source on the line replaces the kept one. */
export function namedOptions(
  context: Context,
  input: Input,
  { kept, twice }: { kept?: KeptRepository & { folder?: string }; twice?: boolean } = {},
): NamedOptions {
  const [file, command] = [input.text("passwordFile"), input.text("passwordCommand")];
  const isNamed = file !== undefined || command !== undefined;
  const isKept = input.text("repo") === undefined && kept !== undefined;
  const named = optionsFor(context, input, {
    repository: isKept ? kept.repository : locationOf(context, input),
    file: isNamed ? file : (kept?.password_file ?? undefined),
    command: isNamed ? command : (kept?.password_command ?? undefined),
    identity: kept?.age_identity ?? undefined,
    variable: "PASSWORD",
    ...(twice === undefined ? {} : { twice }),
  });
  return isKept ? { ...named, folder: kept.folder } : named;
}

/** Returns the repository kept for a folder; null if there is none, or if the line or the environment names a repository. */
export async function keptRepository(
  context: Context,
  input: Input,
  of: ForFolder = {},
): Promise<(KeptRepository & { folder: string }) | null> {
  return nameOf(context, input) === undefined ? keptFor(context, of) : null;
}

/** Returns the repository kept for a folder, whatever the line names; null if there is none. */
export async function keptFor(
  context: Context,
  { folder, saves = false }: ForFolder = {},
): Promise<(KeptRepository & { folder: string }) | null> {
  try {
    const client = await context.open(folder).catch(async (error: unknown) => {
      // The folder's save points move with it, and so do its settings.
      const isRenamed = error instanceof CairnError && error.details?.["moved_from"] !== undefined;
      if (!saves || !isRenamed) throw error;
      return context.openOrInit(folder);
    });
    const kept = await client.backupRepository(context.callOptions());
    return kept === null ? null : { ...kept, folder: client.workspacePath() };
  } catch (error) {
    if (error instanceof CairnError && (error.code === "not_a_workspace" || error.code === "not_found")) return null;
    throw error;
  }
}

/** Opens a repository. If the password fails, tries it as earlier versions read it, with a warning. */
export async function openNamed(
  context: Context,
  { options, former, folder }: NamedOptions,
): Promise<BackupRepository> {
  const library = await context.library();
  try {
    return await library.openRepository(options);
  } catch (error) {
    if (isAbsent(error) && folder !== undefined) {
      const moved = call(`backup use ${shellQuote(folder)} -r NEW`, "setBackupRepository", { repository: word("NEW") });
      // No advice to make one: a repository made below a disk that is not mounted takes the backups of that disk.
      const hint = advice`check that its disk is mounted, or its server can be reached; if the repository was moved: ${moved}`;
      throw reworded(error, { hint });
    }
    const password = former();
    if (password === null || !isWrongPassword(error)) throw error;
    const repository = await library.openRepository({ ...options, password }).catch((again: unknown) => {
      throw isWrongPassword(again) ? error : again;
    });
    context.note(
      `the password of ${withoutSecret(options.repository)} opens it only in the altered form that earlier versions of Cairn used: restic cannot open it with this password, and similar passwords may open it too; to fix this, run \`cairn backup key passwd\` and give the same password as the new one`,
    );
    return repository;
  }
}

export function isWrongPassword(error: unknown): boolean {
  return error instanceof CairnError && error.code === "wrong_password";
}

interface NamedRepository {
  repository: string;
  /** File with the password. */
  file: string | undefined;
  command?: string | undefined;
  /** File with age identities, if the line names none. */
  identity?: string | undefined;
  variable: string;
  twice?: boolean;
}

/**
 * Returns the options of one repository. The speed limits of the line apply to each of its repositories: of two, one is
 * mainly read and the other mainly written.
 */
function optionsFor(context: Context, input: Input, { repository, ...asked }: NamedRepository): NamedOptions {
  const { env, cwd, signal, progress } = context;
  const limits = limitsOf(context, input);
  const identity = input.text("ageIdentity") ?? asked.identity;
  for (const file of [asked.file, identity]) if (file !== undefined) context.place(file);
  let former: string | null = null;
  const options: RepositoryOptions & CallOptions = {
    ...context.callOptions(),
    ...(limits === null ? {} : { limits }),
    ...packStyle(env, input),
    repository,
    env,
    password: async () => {
      progress.finish();
      const question = `password of ${withoutSecret(repository)}`;
      const given = await askPassword({ ...asked, identity, env, cwd, question, signal });
      former = given.former;
      return given.bytes;
    },
  };
  return { options, former: () => former };
}

/** Reads compression and pack size from the line, else from the environment. */
function packStyle(env: Context["env"], input: Input): Pick<RepositoryOptions, "compression" | "packSize"> {
  const style: Pick<RepositoryOptions, "compression" | "packSize"> = {};
  const [how, ofHow] = given(env, input.text("compression"), "COMPRESSION");
  if (how !== undefined) {
    style.compression = Compression.options.find((each) => each === how);
    if (style.compression === undefined)
      throw usage(`${ofHow} must be one of ${Compression.options.join(", ")}; found ${JSON.stringify(how)}`);
  }
  const [size, ofSize] = given(env, undefined, "PACK_SIZE");
  if (size !== undefined) {
    const count = /^\d{1,3}$/.test(size) ? Number(size) : 0;
    if (count < 4 || count > 128) throw usage(`${ofSize} must be 4 to 128, in MiB; found ${JSON.stringify(size)}`);
    style.packSize = count * 1024 * 1024;
  }
  return style;
}

/** Returns a value of the line, else of the environment (`CAIRN_…`, then `RESTIC_…`), and the name of its source. */
export function given(env: Context["env"], value: string | undefined, variable: string): [string | undefined, string] {
  if (value !== undefined) return [value, `--${variable.toLowerCase().replace("_", "-")}`];
  const name = PREFIXES.map((prefix) => `${prefix}${variable}`).find((each) => (env[each] ?? "") !== "");
  return name === undefined ? [undefined, variable] : [env[name], name];
}

function limitsOf(context: Context, input: Input): TransferLimits | null {
  const limits: TransferLimits = LIMITS.read(context, input);
  const named = { "--limit-upload": limits.uploadRate, "--limit-download": limits.downloadRate };
  for (const [option, value] of Object.entries(named))
    if (value !== undefined && value < 1) throw usage(`${option} must be at least 1`, "leave it out for the default");
  // Each pack that is uploaded or read at the same time has a connection.
  const jobs = input.count("jobs") ?? 0;
  if (jobs > FEW_JOBS) limits.connections = Math.max(jobs, CONNECTIONS);
  return Object.keys(limits).length === 0 ? null : limits;
}

/** Returns the repository that the line or the environment names. */
function nameOf({ env, cwd }: Context, input: Input): string | undefined {
  const option = input.text("repo");
  if (option !== undefined) return option;
  for (const prefix of PREFIXES) {
    const [name, file] = [env[`${prefix}REPOSITORY`], env[`${prefix}REPOSITORY_FILE`]];
    if (name !== undefined && name !== "") return name;
    if (file !== undefined && file !== "") return nameIn(resolve(cwd, file));
  }
  return undefined;
}

/** Returns the repository's name in a file, without white space at its ends, as restic reads it. */
function nameIn(file: string): string {
  let bytes: Buffer;
  try {
    bytes = readRegular(file, { named: true, limit: MAX_NAME_BYTES });
  } catch (error) {
    throw toCairnError(error, `reading the repository's name in ${printable(file)}`);
  }
  const name = bytes.toString("utf8").trim();
  if (name === "")
    throw usage(
      `the repository file ${printable(file)} names no repository`,
      "write one line into it, with a value of -r",
    );
  return name;
}

export function locationOf(context: Context, input: Input): string {
  const location = nameOf(context, input);
  if (location === undefined || location === "")
    throw usage(
      "no repository is named",
      "name one with -r, for example -r /srv/backups, or in the variable CAIRN_REPOSITORY; `cairn backup init -r /srv/backups` makes one, and `cairn backup use -r /srv/backups` remembers it for a folder",
    );
  return absolute(context, location);
}

/** Returns the folder that the line names if a msgvault repository lies there, else null. */
export async function msgvaultFolder(context: Context, input: Input): Promise<string | null> {
  const location = nameOf(context, input) ?? "";
  if (location === "") return null;
  return (await import("../../../look/inspect/msgvault-folder.ts")).msgvaultAt(absolute(context, location));
}

/** Makes a relative path absolute, from the current folder. */
function absolute(context: Context, location: string): string {
  const { scheme, rest } = splitLocation(location);
  return scheme === "local" ? context.place(rest) : location;
}

/** True if a location begins with a scheme other than `local:`. */
export function isRemote(location: string): boolean {
  return /^[A-Za-z][A-Za-z0-9+.-]*:/.test(location);
}

/** Returns the second repository of a verb with two: `--to` and its password. */
export function otherRepositoryOptions(context: Context, input: Input): NamedOptions {
  const location = input.text("to");
  if (location === undefined || location === "") throw usage("no repository to copy into is named: use --to");
  return optionsFor(context, input, {
    repository: absolute(context, location),
    file: input.text("toPasswordFile"),
    variable: "TO_PASSWORD",
  });
}

/**
 * Runs work with the open repository, and always closes it. `soon`: the kind of work, so that its threads start early.
 */
export async function withRepository<T>(
  context: Context,
  input: Input,
  work: (repository: BackupRepository) => Promise<T>,
  soon?: RepositoryOptions["soon"],
): Promise<T> {
  return whileOpening(context, input, async (opening) => work(await opening), { soon });
}

/**
 * Opens a repository while `work` begins, because deriving the password's key takes time. `folder`: the folder whose
 * kept repository may be used.
 */
export async function whileOpening<T>(
  context: Context,
  input: Input,
  work: (opening: Promise<BackupRepository>, isKept: boolean) => Promise<T>,
  { soon, ...of }: Pick<RepositoryOptions, "soon"> & ForFolder = {},
): Promise<T> {
  const named = await repositoryOptions(context, input, of);
  if (soon !== undefined) named.options.soon = soon;
  return whileOpeningNamed(context, named, async (opening) => work(opening, named.isKept));
}

/** Runs `work` while a known repository is opened. */
export async function whileOpeningNamed<T>(
  context: Context,
  named: NamedOptions,
  work: (opening: Promise<BackupRepository>) => Promise<T>,
): Promise<T> {
  const opening = openNamed(context, named);
  // The opening may fail before `work` waits for it.
  opening.catch(() => undefined);
  try {
    return await work(opening);
  } finally {
    const repository = await opening.catch(() => null);
    await repository?.close();
  }
}

/** Removes the user and password that a location's address may have. */
function withoutSecret(location: string): string {
  return location.replace(/\/\/[^/@]*@/, "//");
}
