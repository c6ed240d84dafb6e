import { sha256 } from "../crypto/hash.ts";
import { DEFAULT_SCRYPT } from "../crypto/key-derivation.ts";
import { advice, CairnError, call, type Hint, see, throwIfAborted, toCairnError, word } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { decodeKeyFile } from "../formats/restic/key-file.ts";
import { objectIdOf } from "../ids.ts";
import type { CallOptions, RepositoryKeys, RepositoryOptions, UnlockOptions, UnlockResult } from "../contract/index.ts";
import { type OpenRepository, passwordOf } from "./open/open-repository.ts";
import { removeDeadLocks } from "../repository/locks.ts";

/** Lists the passwords that open a repository: never shown, only who added them and when. */
export async function listKeys(access: OpenRepository): Promise<RepositoryKeys> {
  const result: RepositoryKeys = { ...access.info, keys: [], damaged: [] };
  for (const { name } of await access.storage.list("keys")) {
    try {
      const bytes = await access.storage.load("keys", name);
      if (objectIdOf(sha256(bytes)) !== name) throw new CairnError("damaged", "its SHA-256 does not match its name");
      const { created, hostname, username } = decodeKeyFile(bytes);
      result.keys.push({ key_id: name, created_at: created, hostname, username, current: name === access.keyName });
    } catch (error) {
      if (!(error instanceof CairnError) || error.code === "not_found") continue;
      if (error.code === "interrupted") throw error;
      result.damaged.push({ key_id: name, detail: error.message });
    }
  }
  result.keys.sort((a, b) => ((a.created_at ?? "") < (b.created_at ?? "") ? -1 : 1));
  return result;
}

/** Writes one more key file ●. */
export async function addKey(
  access: OpenRepository,
  password: RepositoryOptions["password"],
  options: CallOptions,
): Promise<RepositoryKeys> {
  const given = await passwordOf({ password });
  await access.locked(false, options, async () => {
    await access.repository.addKey(given, DEFAULT_SCRYPT, options.signal);
    failpoint("key.written");
  });
  return listKeys(access);
}

/** Removes a key file ●, but never the one in use, so that at least one stays. */
export async function removeKey(access: OpenRepository, key: string, options: CallOptions): Promise<RepositoryKeys> {
  await access.locked(true, options, async () => {
    const names = (await access.storage.list("keys")).map(({ name }) => name);
    const fits = /^[0-9a-f]{2,64}$/.test(key) ? names.filter((name) => name.startsWith(key)) : [];
    if (fits.length > 1)
      throw new CairnError("ambiguous", `${key} fits more than one key`, { hint: "give more digits" });
    const [name] = fits;
    if (name === undefined)
      throw new CairnError("not_found", `no key ${JSON.stringify(key.slice(0, 80))}`, {
        hint: see("backup key list", "keys"),
      });
    // Another program may have removed the key in use: then the remaining keys may open nothing.
    if (access.keyName === null || !names.includes(access.keyName))
      throw new CairnError(
        "conflict",
        "another program removed the key that opened the repository, so this command removed nothing",
        {
          hint: "open the repository again with a password that is still valid",
        },
      );
    if (name === access.keyName || names.length === 1)
      throw new CairnError("refused", `cannot remove key ${name.slice(0, 8)}: it opened the repository`, {
        hint: advice`open the repository with another password, or change this password: ${call("backup key passwd", "changePassword", word("password"))}`,
      });
    await access.storage.remove("keys", name);
    failpoint("key.removed");
  });
  return listKeys(access);
}

/**
 * Writes the new key file, reads it again, then removes the one in use ●. A kill in between leaves both passwords, and
 * a repeat continues. If the old key cannot be removed, removes the new one. If that fails too, as on append-only
 * storages, the error says that both open the repository.
 */
export async function changePassword(
  access: OpenRepository,
  password: RepositoryOptions["password"],
  options: CallOptions,
): Promise<RepositoryKeys> {
  const given = await passwordOf({ password });
  await access.locked(true, options, async () => {
    const old = access.keyName;
    const name = await access.repository.addKey(given, DEFAULT_SCRYPT, options.signal);
    failpoint("passwd.key-written");
    if (objectIdOf(sha256(await access.storage.load("keys", name))) !== name)
      throw new CairnError(
        "damaged",
        "the new key file reads back different from what was written; the password was not changed",
      );
    access.keyName = name;
    if (old === null || old === name) return;
    try {
      await access.storage.remove("keys", old);
    } catch (error) {
      throw await afterRefusal(access, { old, name, error });
    }
  });
  return listKeys(access);
}

/** Removes the new key file if the old one certainly still exists: a removal may have succeeded although its answer was lost. */
async function afterRefusal(
  access: OpenRepository,
  { old, name, error }: { old: string; name: string; error: unknown },
): Promise<CairnError> {
  const { code, message, details } = toCairnError(error);
  const failed = (then: string, hint: Hint): CairnError =>
    new CairnError(code, `the key of the old password could not be removed: ${message}; ${then}`, {
      hint,
      cause: error,
    });
  const key = old.slice(0, 8);
  // The removal was not confirmed: it may still happen, although the file is there now.
  if (details?.["undecided"] === true || (await isThere(access, old)) !== true)
    return failed(
      "the new password opens the repository; it is not known whether the old one still does",
      advice`with the new password run ${call("backup key list", "keys")}, and ${call(`backup key remove ${key}`, "removeKey", key)} if that key is listed`,
    );
  await access.storage.remove("keys", name).catch(() => undefined);
  if ((await isThere(access, name)) !== false)
    return failed(
      "both passwords open the repository now",
      advice`on a machine that may remove keys, run with the new password: ${call(`backup key remove ${key}`, "removeKey", key)}`,
    );
  access.keyName = old;
  return failed("the password was not changed", "try again on a machine that may remove keys");
}

/** True if a key file exists as written, false if it does not exist, null if neither can be known. */
async function isThere(access: OpenRepository, name: string): Promise<boolean | null> {
  try {
    return objectIdOf(sha256(await access.storage.load("keys", name))) === name ? true : null;
  } catch (error) {
    return error instanceof CairnError && error.code === "not_found" ? false : null;
  }
}

/** Removes dead locks; with `all` every lock, also of running processes, which may then lose their work. */
export async function unlock(access: OpenRepository, options: UnlockOptions): Promise<UnlockResult> {
  throwIfAborted(options.signal);
  const { storage, repository } = access;
  const before = (await storage.list("locks")).length;
  await removeDeadLocks(repository);
  if (options.all === true) {
    // Ignores a failed removal: the lock's own process may have removed the lock.
    for (const { name } of await storage.list("locks")) await storage.remove("locks", name).catch(() => undefined);
  }
  const held = (await storage.list("locks")).length;
  return { ...access.info, removed: Math.max(0, before - held), held };
}
