import { resolve } from "node:path";
import { LiveDatabases } from "./capture/sqlite/live-databases.ts";
import { PointStore } from "./workspace/store/point-store.ts";
import { btrfsHolder } from "./clones/btrfs-holder.ts";
import { juicefsHolder } from "./clones/juicefs-holder.ts";
import { reflinkHolder } from "./clones/reflink-holder.ts";
import type { TreeHolder } from "./clones/holder.ts";
import { speakOfCalls } from "./contract/checked-calls.ts";
import type { CairnLibrary } from "./contract/index.ts";
import { Library } from "./verbs/open-library.ts";
import { LimitedStorage, paceOf } from "./repository/storage/limited.ts";
import { LocalStorage } from "./repository/storage/local.ts";
import { type OpenStorageOptions, splitLocation, unknownScheme } from "./repository/storage/location.ts";
import { RetryingStorage } from "./repository/storage/retrying.ts";
import type { Storage } from "./repository/storage/storage.ts";
import type { TasksOf } from "./keep/hand.ts";
import { allRecoveries } from "./workspace/care/recoveries.ts";
import type { EngineFactory, WorkspaceParts } from "./workspace/open/workspace.ts";
import type { ChangesOf, SeenIn } from "./workspace/store/engine.ts";

/** Makes the engine that holds the points of a workspace. Only this function names concrete engines. */
function engines({ changesOf, seenIn }: Pick<LibraryParts, "changesOf" | "seenIn">): EngineFactory {
  return (found, options) =>
    new PointStore({
      control: found.control.root,
      holder: holderFor(found.controlFile.engine),
      databases: new LiveDatabases(),
      changes: changesOf?.(found.folder) ?? null,
      seen: seenIn?.(found.folder) ?? null,
      ...options,
    });
}

function holderFor(engine: string): TreeHolder | null {
  if (engine === "btrfs-snapshot") return btrfsHolder();
  if (engine === "juicefs-clone") return juicefsHolder();
  if (engine === "reflink-copy") return reflinkHolder();
  return null;
}

type OpenScheme = (rest: string, options: OpenStorageOptions) => Promise<Storage>;

/** Storages by scheme; the code of each is loaded when a location needs it. */
const STORAGES: Readonly<Record<string, OpenScheme>> = {
  local: async (path, options) => {
    const root = resolve(options.cwd ?? process.cwd(), path);
    const within = { temporaryDirectory: resolve(root, "tmp"), tellsWhatOpens: true };
    return options.create === true ? LocalStorage.create(root, within) : new LocalStorage(root, within);
  },
  rest: async (address, options) =>
    (await import("./repository/storage/rest/rest.ts")).openRestStorage(address, options),
  sftp: async (address, options) => {
    const { openSftpStorage } = await import("./repository/storage/sftp/sftp.ts");
    return openSftpStorage(address, { ...options, pace: paceOf(options.limits ?? {}) });
  },
  s3: async (address, options) => (await import("./repository/storage/s3/s3.ts")).openS3Storage(address, options),
};

/**
 * Opens the storage of a location, within the given limits. Repeats calls to other machines after a temporary error.
 * Throws `usage` for an unknown scheme.
 */
export async function openStorage(location: string, options: OpenStorageOptions = {}): Promise<Storage> {
  const { scheme, rest } = splitLocation(location);
  if (!Object.hasOwn(STORAGES, scheme)) throw unknownScheme(scheme, Object.keys(STORAGES));
  const storage = limited(scheme, await STORAGES[scheme]!(rest, options), options);
  if (scheme === "local") return storage;
  return new RetryingStorage(storage);
}

/** SFTP limits its rates itself, piece by piece. */
function limited(scheme: string, storage: Storage, { limits }: OpenStorageOptions): Storage {
  if (limits === undefined) return storage;
  return new LimitedStorage(storage, scheme === "sftp" ? { calls: limits.calls } : limits);
}

export interface LibraryParts {
  /** True: hints name calls, not commands. */
  forPrograms?: boolean;
  /** Reports changes in a workspace's folder, if a watcher exists. */
  changesOf?: ChangesOf | undefined;
  /** Reports entries that programs make or write in a workspace's folder, if a watcher exists. */
  seenIn?: SeenIn | undefined;
  /** The scheduled work of a daemon on a workspace. */
  tasksOf?: TasksOf | undefined;
}

/** Opens the library with this build's engines. */
export async function openLibrary({
  forPrograms = false,
  tasksOf,
  ...watch
}: LibraryParts = {}): Promise<CairnLibrary> {
  if (forPrograms) speakOfCalls();
  const parts: WorkspaceParts = {
    engine: engines(watch),
    // A command without a workspace runs none of their modules.
    get recoveries() {
      return allRecoveries();
    },
  };
  return new Library(parts, openStorage, tasksOf);
}
