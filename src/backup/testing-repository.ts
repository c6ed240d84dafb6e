import { openStorage } from "../compose.ts";
import { Repository } from "../repository/repository.ts";
import type { OpenStorageOptions, StorageFactory } from "../repository/storage/location.ts";

interface NewRepository {
  repository: string;
  password: string;
  env?: NonNullable<OpenStorageOptions["env"]>;
}

/**
 * Makes an empty repository as `initRepository` does, but with a key that takes milliseconds: a test that opens it in
 * many commands would otherwise spend most of its time on the password.
 */
export async function makeRepository(
  { repository, password, env }: NewRepository,
  open: StorageFactory = openStorage,
): Promise<void> {
  const storage = await open(repository, { create: true, ...(env === undefined ? {} : { env }) });
  try {
    await Repository.create(storage, { password });
  } finally {
    await storage.close?.();
  }
}
