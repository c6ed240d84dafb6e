import { randomBytes } from "node:crypto";
import { dirname, resolve } from "node:path";
import { decryptWithIdentities, encryptForRecipients } from "../crypto/age.ts";
import { DEFAULT_SCRYPT } from "../crypto/key-derivation.ts";
import { advice, CairnError, call, either, reworded, toCairnError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { fsyncDirectory, readSmallFile, writeNewFile } from "../fs/durable.ts";
import { shellPath } from "../fs/paths/safe-path.ts";
import { mayBeDone } from "../repository/storage/storage.ts";
import type { AgeKeyOptions, RepositoryKeys } from "../contract/index.ts";
import { listKeys } from "./keys.ts";
import type { OpenRepository } from "./open/open-repository.ts";
import { clearAway } from "../fs/remove-all.ts";

const MAX_FILE_BYTES = 1024 * 1024;

/**
 * Adds a random password that exists only in a file, encrypted for people's keys. The file stays with the user: anybody
 * who can write to the storage could put a repository of their own there, since recipients are public.
 * - The file is written; its name must be new. A kill afterwards leaves a file whose password opens nothing.
 * - The key is added ●. In the reverse order a kill would leave a key whose password nobody has.
 */
export async function addAgeKey(access: OpenRepository, options: AgeKeyOptions): Promise<RepositoryKeys> {
  const file = resolve(options.file);
  const password = randomBytes(32).toString("base64url");
  const encrypted = await encryptForRecipients(password, options.recipients);
  await access.locked(false, options, async () => {
    writeNew(file, encrypted);
    failpoint("age-key.file-written");
    try {
      await access.repository.addKey(password, DEFAULT_SCRYPT, options.signal);
    } catch (error) {
      throw withoutKey(toCairnError(error), file);
    }
  });
  return listKeys(access);
}

/** Removes the file if the key was certainly not added. Otherwise keeps the file: only its password may open the repository. */
function withoutKey(error: CairnError, file: string): CairnError {
  if (!mayBeDone(error)) {
    clearAway(file);
    return error;
  }
  return reworded(error, {
    message: `it is not known whether the key was added, so ${file} was kept: ${error.message}`,
    hint: advice`test the password file with ${either(`\`${lookBy(file)}\``, call("openRepository"))}; remove the file if it does not open the repository`,
  });
}

function lookBy(file: string): string {
  return `cairn backup list --password-file ${shellPath(file)} --age-identity KEYS`;
}

/** Writes the file under its final name: before the key is added its content is worthless, and no cleanup here removes files with temporary names. */
function writeNew(file: string, text: string): void {
  try {
    writeNewFile(file, Buffer.from(text), 0o600);
    fsyncDirectory(dirname(file));
  } catch (error) {
    const problem = toCairnError(error, `write ${file}`);
    if (problem.code !== "already_exists") {
      clearAway(file);
      throw problem;
    }
    throw new CairnError("already_exists", `${file} already exists`, {
      hint: `name another file. ${file} may hold a repository's password: test it with \`${lookBy(file)}\`, and remove it if it opens no repository, for example after a killed \`backup key add\``,
      cause: error,
    });
  }
}

/** The password in a file that age encrypted, by a file of identities. Throws `wrong_password`, `not_found`, `damaged`, `unsupported`. */
export async function openAgePassword(
  bytes: Uint8Array,
  from: { file: string; identity: string },
): Promise<Uint8Array> {
  const path = resolve(from.identity);
  const identities = readSmallFile(path, MAX_FILE_BYTES, true);
  if (identities === null) throw new CairnError("not_found", `there is no identity file ${path}`);
  try {
    return await decryptWithIdentities(bytes, identities.toString("utf8"));
  } catch (error) {
    if (!(error instanceof CairnError)) throw error;
    const message = `the identities in ${path} cannot decrypt the password in ${from.file}: ${error.message}`;
    throw reworded(error, { message });
  }
}
