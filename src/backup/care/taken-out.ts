import type { PathPattern } from "../../contract/index.ts";
import { advice, CairnError, call, option, word } from "../../errors.ts";
import { joinPath, latin1 } from "../../formats/bytes.ts";
import { isAtOrBelow, printablePath } from "../../fs/paths/safe-path.ts";
import type { LostEntry, TakenEntries } from "../../repository/trees/tree-mender.ts";
import type { BlobSource } from "../../repository/read/blob-source.ts";
import { isUnreadable, type PlacedDatabases } from "../../archive/databases/placed-databases.ts";
import { databaseFolders, folderName, readPagesManifest } from "../../archive/databases/stored-database.ts";
import { type Fitting, fitting } from "../open/paths.ts";

/** Matches the entries to remove by their paths, in latin1 with a leading slash. */
export interface TakesOut extends Fitting {
  /** Throws if the saved folder, or a folder above it, would be taken out. */
  requireNot(path: string): void;
  /** Throws if one pattern has matched both below the folder and as a whole path: only one meaning can be intended. */
  requireOneWay(): void;
}

export function takesOutOf(exclude: readonly PathPattern[]): TakesOut {
  const patterns = exclude.map((given) => {
    const pattern = fitting(given);
    const text = typeof given === "string" ? given : given.pattern;
    if (pattern.fits("/")) throw everything(`the pattern ${JSON.stringify(text)} fits every path`);
    return { ...pattern, text, met: { below: false, whole: false } };
  });
  if (patterns.length === 0)
    throw new CairnError("usage", "no pattern says which entries to take out", {
      hint: advice`name them with ${option("exclude", "--exclude PATTERN")}`,
    });
  return {
    isName: patterns.every(({ isName }) => isName),
    fits: (path) => patterns.some(({ fits, met }) => fits(path) && (met.below = true)),
    fitsWhole: (path) => patterns.some(({ fitsWhole, met }) => fitsWhole(path) && (met.whole = true)),
    requireNot(path) {
      if (!patterns.some(({ fitsWhole }) => fitsWhole(path))) return;
      throw everything(`${printablePath(Buffer.from(path, "latin1"))} is the saved folder, or a folder above it`);
    },
    requireOneWay() {
      const both = patterns.find(({ met }) => met.below && met.whole);
      if (both === undefined) return;
      const text = JSON.stringify(both.text);
      throw new CairnError("usage", `${text} fits one path below the saved folder, and another path from the root`, {
        hint: "leave out the slash at its start: then the pattern fits the end of a path",
      });
    },
  };
}

function everything(why: string): CairnError {
  return new CairnError("usage", `${why}: nothing would be left`, {
    hint: advice`to remove a whole snapshot, run ${call("backup forget SNAPSHOT", "forget", { snapshots: [word("snapshot")] })}`,
  });
}

/** Chooses entries to take out by their paths from the topmost tree. A path also fits as a whole, as lists print it. */
export function belowDepth({ fits, fitsWhole, isName, requireNot }: TakesOut, depth: number | null): TakenEntries {
  if (depth === null) return { fits: (path) => fits(`/${path}`), isAnywhere: () => isName };
  return {
    fits(path) {
      const parts = path.split("/");
      if (parts[0] === ".cairn") return false;
      if (parts.length > depth) return fits(`/${parts.slice(depth).join("/")}`) || fitsWhole(`/${path}`);
      requireNot(`/${path}`);
      return false;
    },
    isAnywhere(at) {
      const parts = at === "" ? [] : at.split("/");
      return isName && parts.length >= depth && parts[0] !== ".cairn";
    },
  };
}

const DATABASES = ".cairn/databases";
/** Paths of databases that are stored page by page, below the saved folder, by their folders in the topmost tree. */
export type DatabaseFolders = ReadonlyMap<string, Uint8Array>;

export function foldersOfDatabases(placed: PlacedDatabases | undefined): DatabaseFolders {
  const all = placed?.below(placed.root) ?? [];
  return new Map(all.map(({ path }) => [`${DATABASES}/${folderName(path)}`, path]));
}

/** The databases of a snapshot that has lost a folder above one of them, as far as they can be read. */
export async function foldersInDamaged(reader: BlobSource, top: string): Promise<DatabaseFolders> {
  const found = new Map<string, Uint8Array>();
  try {
    for (const { name, subtree } of await databaseFolders(reader, Buffer.from(top, "hex"))) {
      const { path } = await readPagesManifest(reader, subtree!);
      found.set(`${DATABASES}/${latin1(name)}`, path);
    }
  } catch (error) {
    if (!isUnreadable(error)) throw error;
  }
  return found;
}

/** True for a path from the topmost tree at which a snapshot has parts of databases. */
export function isOfDatabase(path: Uint8Array): boolean {
  return isAtOrBelow(path, DATABASES);
}

/**
 * Returns the databases of which something is lost, or a folder above them, by their folders in the topmost tree.
 * `folder`: path of the saved folder from that tree.
 */
export function lossesOfDatabases(
  lost: readonly LostEntry[],
  databases: DatabaseFolders,
  folder: Uint8Array,
): Map<string, LostEntry> {
  const losses = new Map<string, LostEntry>();
  for (const [own, path] of databases) {
    const whole = joinPath(folder, path);
    const isOf = (each: Uint8Array): boolean =>
      isAtOrBelow(each, own) || isAtOrBelow(own, each) || isAtOrBelow(whole, each);
    const loss = lost.find((each) => isOf(each.path));
    if (loss !== undefined) losses.set(own, { ...loss, path: whole, kind: "file" });
  }
  return losses;
}

/** Takes out also the databases that lie elsewhere in a snapshot, if their own paths or folders above them fit. */
export function withDatabases(
  taken: TakenEntries,
  { fits, fitsWhole }: Pick<TakesOut, "fits" | "fitsWhole">,
  { paths, databases }: { paths: readonly string[]; databases: DatabaseFolders },
): TakenEntries {
  const goes = (path: string): boolean => fits(`/${path}`) || fitsWhole(`${paths[0]!}/${path}`);
  return {
    fits(path) {
      const own = databases.get(path);
      if (own === undefined) return taken.fits(path);
      const parts = latin1(own).split("/");
      return parts.some((_part, n) => goes(parts.slice(0, n + 1).join("/")));
    },
    isAnywhere: (at) => !isAboveDatabases(at) && taken.isAnywhere(at),
  };
}

/** Takes out the folders of databases. */
export function exactly(folders: readonly string[]): TakenEntries {
  return { fits: (path) => folders.includes(path), isAnywhere: (at) => !isAboveDatabases(at) };
}

function isAboveDatabases(at: string): boolean {
  return at === "" || at === ".cairn" || at === DATABASES;
}
