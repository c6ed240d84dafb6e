import { createHash } from "node:crypto";
import { lstatSync, readdirSync } from "node:fs";
import { resolve } from "node:path";
import { advice, CairnError, call, damaged, word } from "../errors.ts";
import { newPacer } from "../pacer.ts";
import { failpoint } from "../failpoint.ts";
import { byCodePoint, type FileEntry } from "../formats/ovpack/manifest.ts";
import { printablePath } from "../fs/paths/safe-path.ts";
import { type FolderOutput, madeFolder } from "../output/folder.ts";
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
    modeBelow: FOLDER.mode,
    write: async (output) => unpack(bundle, { files, directories, output, ...call }),
    beforeCommit: () => failpoint("bundle-extract.staged"),
  });
  return { files: files.length, directories: directories.length, bytes };
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

const FOLDER = { type: "dir", mode: 0o777 } as const;
const FILE = { type: "file", mode: 0o644 } as const;

/** Writes entries and compares each file with its hash again. Returns the number of bytes. */
export async function unpack(
  bundle: Bundle,
  {
    files,
    directories,
    output,
    signal,
    onBytes,
  }: BundleCall & Pick<Bundle["manifest"], "files" | "directories"> & { output: FolderOutput },
): Promise<number> {
  for (const { path } of directories) await output.next(Buffer.from(path), FOLDER)!.write();
  let bytes = 0;
  const pace = newPacer(signal);
  for (const file of files) {
    await pace();
    await output.next(Buffer.from(file.path), FILE)!.write(proven(bundle, file));
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
