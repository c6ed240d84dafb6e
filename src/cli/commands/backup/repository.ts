import { resolve } from "node:path";
import { Compression, KeptRepositoryEdit, RepositoryOptions, TransferLimits } from "../../../contract/repositories.ts";
import { pick } from "../../../contract/schema.ts";
import type { BackupRepository, CallOptions, KeptRepository } from "../../../contract/index.ts";
import { CairnError, toCairnError } from "../../../errors.ts";
import { readRegular } from "../../../fs/regular-file.ts";
import { splitLocation } from "../../../repository/storage/location.ts";
import type { Context } from "../../context.ts";
import type { Input } from "../../input.ts";
import { usage } from "../../input.ts";
import { VerbOptions } from "../../options.ts";
import { readPassword } from "../../password.ts";
import { printable } from "../../render/format.ts";

const LIMITS = new VerbOptions(TransferLimits.entries);
/** Options with which every verb finds its repository and opens it. */
export const REPOSITORY_OPTIONS = new VerbOptions({
  ...pick(RepositoryOptions, "repository"),
  ...pick(KeptRepositoryEdit, "passwordFile", "passwordCommand", "ageIdentity"),
}).definitions.concat(LIMITS.definitions);

/** Options of verbs that make packs of what is new. */
export const PACK_OPTIONS = new VerbOptions(pick(RepositoryOptions, "compression", "packSize")).definitions;
export const PACK_SIZE_OPTION = PACK_OPTIONS[1]!;

/** Hint where files of snapshots are damaged. */
export const UNREADABLE_HINT =
  "`cairn backup recover` finds the trees of such a snapshot, and `cairn backup forget ID` removes a snapshot whose file cannot be read";

const PREFIXES = ["CAIRN_", "RESTIC_"];
const MAX_NAME_BYTES = 64 << 10;

/** A repository that a line or the environment names, and how its password is asked for. */
export interface NamedOptions {
  options: RepositoryOptions & CallOptions;
  /** Returns what earlier versions took its password for, where that is another; null until it has been asked for. */
  former: () => string | null;
}

/** Folder whose kept repository counts. */
interface ForFolder {
  /** Default: the chosen one, else the nearest workspace. */
  folder?: string | undefined;
  /** It is saved: a folder that was renamed is followed. */
  saves?: boolean;
}

/** The repository of a line: the one that it or the environment names, else the one that was kept for the folder. */
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

/** Options for a repository that is named, or that was kept; a password source on the line takes the place of the kept one. */
export function namedOptions(
  context: Context,
  input: Input,
  { kept, twice }: { kept?: KeptRepository; twice?: boolean } = {},
): NamedOptions {
  const [file, command] = [input.text("passwordFile"), input.text("passwordCommand")];
  const isNamed = file !== undefined || command !== undefined;
  return optionsFor(context, input, {
    repository: input.text("repo") === undefined && kept !== undefined ? kept.repository : locationOf(context, input),
    file: isNamed ? file : (kept?.password_file ?? undefined),
    command: isNamed ? command : (kept?.password_command ?? undefined),
    identity: kept?.age_identity ?? undefined,
    variable: "PASSWORD",
    ...(twice === undefined ? {} : { twice }),
  });
}

/** The repository that was kept for a folder, where neither the line nor the environment names one; null without one. */
export async function keptRepository(
  context: Context,
  input: Input,
  { folder, saves = false }: ForFolder = {},
): Promise<(KeptRepository & { folder: string }) | null> {
  if (nameOf(context, input) !== undefined) return null;
  try {
    const client = await context.open(folder).catch(async (error: unknown) => {
      // Its save points follow it, and what is kept with them.
      const isRenamed = error instanceof CairnError && error.details?.["moved_from"] !== undefined;
      if (!saves || !isRenamed) throw error;
      return context.openOrAdopt(folder);
    });
    const kept = await client.backupRepository(context.callOptions());
    return kept === null ? null : { ...kept, folder: client.workspacePath() };
  } catch (error) {
    if (error instanceof CairnError && (error.code === "not_a_workspace" || error.code === "not_found")) return null;
    throw error;
  }
}

/** Opens it. What was made with what an earlier version took its password for still opens, with a warning. */
export async function openNamed(context: Context, { options, former }: NamedOptions): Promise<BackupRepository> {
  const library = await context.library();
  try {
    return await library.openRepository(options);
  } catch (error) {
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

function isWrongPassword(error: unknown): boolean {
  return error instanceof CairnError && error.code === "wrong_password";
}

interface NamedRepository {
  repository: string;
  /** File in which its password is looked for. */
  file: string | undefined;
  command: string | undefined;
  /** A file of identities of age, where the line names none. */
  identity?: string | undefined;
  variable: string;
  twice?: boolean;
}

/** The limits are those of each repository that a line names: of two, one is read and the other written for the most part. */
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
      const given = await readPassword({ ...asked, identity, env, cwd, question, signal });
      former = given.former;
      return given.bytes;
    },
  };
  return { options, former: () => former };
}

/** As the line says, or the environment. */
function packStyle(env: Context["env"], input: Input): Pick<RepositoryOptions, "compression" | "packSize"> {
  const style: Pick<RepositoryOptions, "compression" | "packSize"> = {};
  const [how, ofHow] = given(env, input.text("compression"), "COMPRESSION");
  if (how !== undefined) {
    style.compression = Compression.options.find((each) => each === how);
    if (style.compression === undefined)
      throw usage(`${ofHow} must be one of ${Compression.options.join(", ")}; found ${JSON.stringify(how)}`);
  }
  const [size, ofSize] = given(env, input.text("packSize"), "PACK_SIZE");
  if (size !== undefined) {
    const count = /^\d{1,3}$/.test(size) ? Number(size) : 0;
    if (count < 4 || count > 128) throw usage(`${ofSize} must be 4 to 128, in MiB; found ${JSON.stringify(size)}`);
    style.packSize = count * 1024 * 1024;
  }
  return style;
}

/** A value of the line, else of the environment (`CAIRN_…`, then `RESTIC_…`), and what it is called there. */
export function given(env: Context["env"], value: string | undefined, variable: string): [string | undefined, string] {
  if (value !== undefined) return [value, `--${variable.toLowerCase().replace("_", "-")}`];
  const name = PREFIXES.map((prefix) => `${prefix}${variable}`).find((each) => (env[each] ?? "") !== "");
  return name === undefined ? [undefined, variable] : [env[name], name];
}

function limitsOf(context: Context, input: Input): TransferLimits | null {
  const limits = LIMITS.read(context, input);
  const { uploadRate, downloadRate, connections } = limits;
  const named = { "--limit-upload": uploadRate, "--limit-download": downloadRate, "--connections": connections };
  for (const [option, value] of Object.entries(named))
    if (value !== undefined && value < 1) throw usage(`${option} must be at least 1`, "leave it out for the default");
  return Object.keys(limits).length === 0 ? null : limits;
}

/** The name that the line or the environment gives a repository. */
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

/** The name in a file, without white space at its ends, as restic takes it. */
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
      "name one with -r, for example -r /srv/backups, or in the variable CAIRN_REPOSITORY; `cairn backup use -r /srv/backups` remembers one for a folder",
    );
  return absolute(context, location);
}

/** A relative path is one from the current folder. */
function absolute(context: Context, location: string): string {
  const { scheme, rest } = splitLocation(location);
  return scheme === "local" ? context.place(rest) : location;
}

/** Tells whether a location that is not `local:` begins with a scheme. */
export function isRemote(location: string): boolean {
  return /^[A-Za-z][A-Za-z0-9+.-]*:/.test(location);
}

/** The other repository of a verb that has two: `--to-repo` and its password. */
export function otherRepositoryOptions(context: Context, input: Input): NamedOptions {
  const location = input.text("toRepo");
  if (location === undefined || location === "") throw usage("no repository to copy into is named: use --to-repo");
  return optionsFor(context, input, {
    repository: absolute(context, location),
    file: input.text("toPasswordFile"),
    command: input.text("toPasswordCommand"),
    variable: "TO_PASSWORD",
  });
}

/** Runs work with the repository open and closes it whatever happens. `soon`: what work it is, where that has threads. */
export async function withRepository<T>(
  context: Context,
  input: Input,
  work: (repository: BackupRepository) => Promise<T>,
  soon?: RepositoryOptions["soon"],
): Promise<T> {
  return whileOpening(context, input, async (opening) => work(await opening), { soon });
}

/** Opens a repository beside work that begins while the password's key is derived. `folder`: the one that it may be kept for. */
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

/** Runs `work` beside the opening of a repository that is known already. */
export async function whileOpeningNamed<T>(
  context: Context,
  named: NamedOptions,
  work: (opening: Promise<BackupRepository>) => Promise<T>,
): Promise<T> {
  const opening = openNamed(context, named);
  // It may fail before it is waited for.
  opening.catch(() => undefined);
  try {
    return await work(opening);
  } finally {
    const repository = await opening.catch(() => null);
    await repository?.close();
  }
}

/** A location without the user and password that an address may have. */
function withoutSecret(location: string): string {
  return location.replace(/\/\/[^/@]*@/, "//");
}
