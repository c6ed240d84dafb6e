import { createHash } from "node:crypto";
import { createWriteStream, lstatSync, mkdirSync, readdirSync, renameSync, rmdirSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { once } from "node:events";
import { CairnError, throwIfAborted, toCairnError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { badBundle, byCodePoint, type FileEntry } from "../formats/ovpack/manifest.ts";
import { fsyncDirectory, temporaryName } from "../fs/durable.ts";
import { removeAll } from "../fs/remove-all.ts";
import { printablePath } from "../fs/safe-path.ts";
import type { Bundle, BundleCall } from "./bundle.ts";

/** Steps: all of the bundle is checked; files are written below a temporary name beside the target; the rename is the commit. */
export async function extractBundle(
  bundle: Bundle,
  { to, paths, ...call }: BundleCall & { to: string; paths?: readonly string[] | undefined },
): Promise<{ files: number; directories: number; bytes: number }> {
  const target = resolve(to);
  requireFree(target);
  const { files, directories } = chosen(bundle, paths);
  await bundle.verify(call);
  const staged = join(dirname(target), temporaryName());
  mkdirSync(staged, { mode: 0o755 });
  try {
    for (const { path } of directories) mkdirSync(join(staged, path), { recursive: true });
    let bytes = 0;
    for (const file of files) {
      throwIfAborted(call.signal);
      mkdirSync(dirname(join(staged, file.path)), { recursive: true });
      await writeFile(bundle, file, join(staged, file.path));
      bytes += file.size;
      failpoint("bundle-extract.file-written");
    }
    if (lstatSync(target, { throwIfNoEntry: false }) !== undefined) rmdirSync(target);
    failpoint("bundle-extract.staged");
    renameSync(staged, target);
    fsyncDirectory(dirname(target));
    return { files: files.length, directories: directories.length, bytes };
  } catch (error) {
    removeAll(staged);
    throw toCairnError(error, `write ${printablePath(target)}`);
  }
}

function requireFree(target: string): void {
  const facts = lstatSync(target, { throwIfNoEntry: false });
  if (facts === undefined || (facts.isDirectory() && readdirSync(target).length === 0)) return;
  throw new CairnError("already_exists", `${printablePath(target)} is there and not empty`, {
    hint: "name a folder that is absent or empty",
  });
}

/** The entries at or below some paths; all without any. Throws `not_found` for a path that is not in it. */
function chosen(
  bundle: Bundle,
  paths: readonly string[] | undefined,
): Pick<Bundle["manifest"], "files" | "directories"> {
  const { files, directories } = bundle.manifest;
  if (paths === undefined) return { files, directories };
  const isIn = (path: string): boolean => paths.some((each) => each === path || path.startsWith(`${each}/`));
  for (const path of paths)
    if (![...files, ...directories].some((each) => each.path === path))
      throw new CairnError("not_found", `there is no ${path} in the bundle`, {
        hint: "`cairn bundle inspect` lists what is in it",
        details: { path },
      });
  return { files: files.filter(({ path }) => isIn(path)), directories: directories.filter(({ path }) => isIn(path)) };
}

async function writeFile(bundle: Bundle, file: FileEntry, place: string): Promise<void> {
  const hash = createHash("sha256");
  const out = createWriteStream(place, { flags: "wx", mode: 0o644, flush: true });
  const closed = once(out, "close");
  closed.catch(() => undefined);
  for await (const piece of bundle.read(file)) {
    hash.update(piece);
    if (!out.write(piece)) await Promise.race([once(out, "drain"), closed]);
  }
  out.end();
  await closed;
  if (hash.digest("hex") !== file.sha256)
    throw badBundle(`${file.path} changed while it was read`, { path: file.path });
}

/** Differences of two bundles' content, by path. */
export interface BundleDifference {
  added: string[];
  removed: string[];
  changed: string[];
}

/** Compares what two manifests list; no content is read. */
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
