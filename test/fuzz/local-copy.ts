import fs from "node:fs";
import path from "node:path";
import { PASSWORD } from "../../src/repository/testing-archive.ts";
import { Repository } from "../../src/repository/repository.ts";
import { LocalStorage } from "../../src/repository/storage/local.ts";
import { FILE_KINDS, type Storage } from "../../src/repository/storage/storage.ts";

/** Copies a repository from any storage into a folder, for restic and other readers of files. */
export async function localCopy(storage: Storage, folder: string): Promise<Repository> {
  fs.rmSync(folder, { recursive: true, force: true });
  const copy = LocalStorage.create(folder, { temporaryDirectory: path.join(folder, "tmp") });
  for (const kind of FILE_KINDS) {
    if (kind === "locks") continue;
    for (const { name } of await storage.list(kind))
      await copy.save(kind, name, await storage.load(kind, name), { durable: false });
  }
  return Repository.open(copy, { password: PASSWORD });
}
