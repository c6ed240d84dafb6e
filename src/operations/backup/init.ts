import { throwIfAborted } from "../../errors.ts";
import { DEFAULT_SCRYPT } from "../../crypto/key-derivation.ts";
import { Repository } from "../../repository/repository.ts";
import { CallStorage } from "../../repository/storage/call-storage.ts";
import type { StorageFactory } from "../../repository/storage/location.ts";
import type { InitRepositoryOptions } from "../contract.ts";
import { passwordOf, RepositoryAccess, storageCall, storageOptions } from "./repository-access.ts";

/**
 * Makes an empty repository. Steps: folders or what a storage has like them → the key file → the config ●. A kill before
 * ● leaves a key file that opens nothing, which the next call takes away. `already_exists` when there is a repository.
 *
 * `chunkerPolynomial`: of the workspace, or the user, whose cutting restic shall share.
 */
export async function initRepository(
  open: StorageFactory,
  options: InitRepositoryOptions,
  chunkerPolynomial: string,
): Promise<RepositoryAccess> {
  const password = await passwordOf(options);
  throwIfAborted(options.signal);
  const storage = await open(options.repository, { ...storageOptions(options), create: true });
  try {
    const repository = await Repository.create(new CallStorage(storage, storageCall(options)), {
      password,
      kdf: DEFAULT_SCRYPT,
      replaceUnfinished: true,
      signal: options.signal,
      chunkerPolynomial,
    });
    return RepositoryAccess.over(options, storage, repository);
  } catch (error) {
    await storage.close?.();
    throw error;
  }
}
