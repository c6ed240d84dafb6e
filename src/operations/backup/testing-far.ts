import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { openStorage } from "../../compose.ts";
import { CopyEngine } from "../../engines/copy/copy-engine.ts";
import { CountingStorage } from "../../repository/storage/counting.ts";
import { FaultyStorage } from "../../repository/storage/faulty.ts";
import type { StorageFactory } from "../../repository/storage/location.ts";
import type { BackupRepository, CairnLibrary, RepositoryOptions } from "../contract.ts";
import { Library } from "../library.ts";
import { testFolder, type TestFolder } from "../testing-folder.ts";

/** Workspaces and repositories of a test; `far:/path` is a local repository that looks as if it lay elsewhere. */

export interface BackupScene extends TestFolder {
  library: CairnLibrary;
  repository: BackupRepository;
  options: RepositoryOptions;
  /** Of the repository, absolute. */
  place: string;
}

/** What was opened last as `faulty:/path`: it fails as it is told. */
export const opened: { faulty: FaultyStorage | null } = { faulty: null };

const storages: StorageFactory = async (location, options = {}) => {
  if (location.startsWith("faulty:")) {
    opened.faulty = new FaultyStorage(await openStorage(location.slice("faulty:".length), options));
    return opened.faulty;
  }
  if (!location.startsWith("far:")) return openStorage(location, options);
  const near = await openStorage(location.slice("far:".length), options);
  const far = new CountingStorage(near);
  delete far.localPath;
  return far;
};

export async function backupScene(context: TestContext, scheme: "local" | "far" | "faulty"): Promise<BackupScene> {
  const at = await testFolder(context, { "a.txt": "a\n", "deep/b.txt": "b\n" });
  const cache = process.env["XDG_CACHE_HOME"];
  context.after(() => {
    if (cache === undefined) delete process.env["XDG_CACHE_HOME"];
    else process.env["XDG_CACHE_HOME"] = cache;
  });
  process.env["XDG_CACHE_HOME"] = join(at.root, "cache");
  for (let i = 0; i < 50; i++) at.write(`many/${i}`, `file ${i}\n`.repeat(i));
  const library = new Library(
    (found, options) => new CopyEngine({ control: found.control.root, ...options }),
    storages,
  ) as unknown as CairnLibrary;
  const client = await library.open(at.folder);
  const place = join(at.root, "repository");
  mkdirSync(place);
  const options = { repository: `${scheme}:${place}`, password: "correct horse" };
  const repository = await library.initRepository(options);
  context.after(async () => repository.close());
  return { ...at, client, library, repository, options, place };
}

/** Flips a byte in the largest pack of a repository; returns its name. */
export function damagePack(place: string, at: (size: number) => number, pick: "largest" | "smallest"): string {
  const data = join(place, "data");
  const packs = readdirSync(data, { recursive: true, encoding: "utf8" })
    .filter((name) => /\/[0-9a-f]{64}$/.test(name))
    .map((name) => ({ path: join(data, name), bytes: readFileSync(join(data, name)) }))
    .toSorted((a, b) => a.bytes.length - b.bytes.length);
  const { path, bytes } = packs.at(pick === "largest" ? -1 : 0)!;
  const offset = at(bytes.length);
  bytes[offset] = bytes[offset]! ^ 1;
  writeFileSync(path, bytes);
  return path.slice(-64);
}
