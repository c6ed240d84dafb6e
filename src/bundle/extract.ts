import { createHash } from "node:crypto";
import { lstatSync, mkdirSync, readdirSync, renameSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { advice, CairnError, call, damaged, toCairnError, word } from "../errors.ts";
import { newPacer } from "../pacer.ts";
import { failpoint } from "../failpoint.ts";
import { byCodePoint, type DirectoryEntry, type FileEntry } from "../formats/ovpack/manifest.ts";
import { fsyncDirectory, writePieces } from "../fs/durable.ts";
import { flushFileSystem } from "../fs/linux/flush.ts";
import { removeAll } from "../fs/remove-all.ts";
import { printablePath } from "../fs/paths/safe-path.ts";
import { unfinishedBeside } from "../fs/work-directory.ts";
import type { Bundle, BundleCall } from "./bundle.ts";

/** Steps: the whole bundle is checked; files are written below a temporary name beside the target; the rename is the commit. */
export async function extractBundle(
  bundle: Bundle,
  { to, paths, ...call }: BundleCall & { to: string; paths?: readonly string[] | undefined },
): Promise<{ files: number; directories: number; bytes: number }> {
  const target = resolve(to);
  requireFree(target);
  const { files, directories } = chosenEntries(bundle, paths);
  await bundle.verify(call);
  const bytes = await madeFolder(target, {
    mode: 0o755,
    write: async (staged) => unpack(bundle, { files, directories, place: (path) => join(staged, path), ...call }),
    beforeCommit: () => failpoint("bundle-extract.staged"),
  });
  return { files: files.length, directories: directories.length, bytes };
}

/** Makes a folder in the place of an absent or empty one: writes it below a temporary name beside it, flushes it; ● the rename. */
export async function madeFolder<T>(
  target: string,
  { mode, write, beforeCommit }: { mode: number; write: (staged: string) => Promise<T>; beforeCommit: () => void },
): Promise<T> {
  const staged = unfinishedBeside(target);
  mkdirSync(staged, { mode });
  try {
    const written = await write(staged);
    await flushFileSystem(staged);
    beforeCommit();
    renameSync(staged, target);
    fsyncDirectory(dirname(target));
    return written;
  } catch (error) {
    removeAll(staged);
    throw toCairnError(error, `write ${printablePath(target)}`);
  }
}

function requireFree(target: string): void {
  const facts = lstatSync(target, { throwIfNoEntry: false });
  if (facts === undefined || (facts.isDirectory() && readdirSync(target).length === 0)) return;
  throw new CairnError("already_exists", `${printablePath(target)} exists and is not empty`, {
    hint: "name a folder that is absent or empty",
  });
}

/**
 * The entries at or below some paths, and these paths without a trailing slash; without paths all entries. Throws
 * `not_found` for a path that the bundle lacks.
 */
export function chosenEntries(
  { manifest: { files, directories } }: Bundle,
  given: readonly string[] | undefined,
): Pick<Bundle["manifest"], "files" | "directories"> & { paths?: string[] } {
  if (given === undefined) return { files, directories };
  // `inspect` prints directories with a trailing slash.
  const paths = given.map((path) => path.replace(/\/+$/, ""));
  const known = new Set([...files, ...directories].map(({ path }) => path));
  for (const path of paths)
    if (path === "" || !known.has(path))
      throw new CairnError("not_found", `there is no ${JSON.stringify(path)} in the bundle`, {
        hint: advice`${call("bundle inspect FILE", "inspectBundle", word("path"))} lists the paths of a bundle`,
        details: { path },
      });
  const isIn = ({ path }: { path: string }): boolean =>
    paths.some((each) => each === path || path.startsWith(`${each}/`));
  return { files: files.filter(isIn), directories: directories.filter(isIn), paths };
}

/** Writes entries to new places and makes their folders; compares each file with its hash again. The caller flushes. Returns the number of bytes. */
export async function unpack(
  bundle: Bundle,
  entries: BundleCall & {
    files: readonly FileEntry[];
    directories: readonly DirectoryEntry[];
    place: (path: string) => string;
  },
): Promise<number> {
  const { files, directories, place, signal, onBytes } = entries;
  const made = new Set<string>();
  const makeFolder = (folder: string): void => {
    if (made.has(folder)) return;
    mkdirSync(folder, { recursive: true });
    made.add(folder);
  };
  for (const { path } of directories) makeFolder(place(path));
  let bytes = 0;
  const pace = newPacer(signal);
  for (const file of files) {
    await pace();
    const target = place(file.path);
    makeFolder(dirname(target));
    await writePieces(target, proven(bundle, file), 0o644);
    bytes += file.size;
    onBytes?.(bytes);
    failpoint("bundle-extract.file-written");
  }
  return bytes;
}

/** Yields the content of a file. Throws at its end if it does not have the file's hash. */
async function* proven(bundle: Bundle, file: FileEntry): AsyncGenerator<Buffer> {
  const hash = createHash("sha256");
  for await (const piece of bundle.read(file)) {
    hash.update(piece);
    yield piece;
  }
  if (hash.digest("hex") !== file.sha256) throw damaged(`${file.path} changed while it was read`, { path: file.path });
}

/** Differences of two bundles' content, by path. */
export interface BundleDifference {
  added: string[];
  removed: string[];
  changed: string[];
}

/** Compares the entries of two manifests; reads no content. */
export function diffBundles(one: Bundle, other: Bundle): BundleDifference {
  const facts = ({ manifest }: Bundle): Map<string, string> =>
    new Map([
      ...manifest.directories.map(({ path }) => [path, ""] as const),
      ...manifest.files.map(({ path, sha256 }) => [path, sha256] as const),
    ]);
  const [before, after] = [facts(one), facts(other)];
  const only = (a: Map<string, string>, b: Map<string, string>): string[] =>
    [...a.keys()].filter((path) => !b.has(path)).toSorted(byCodePoint);
  const changed = [...before].flatMap(([path, fact]) => (after.has(path) && after.get(path) !== fact ? [path] : []));
  return { added: only(after, before), removed: only(before, after), changed: changed.toSorted(byCodePoint) };
}
