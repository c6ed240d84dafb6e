import { dirname } from "node:path";
import { ignoreFilesBelow } from "../../workspace/store/survey-tree.ts";
import { rulesOfRequest } from "../../archive/scan/directory-rules.ts";
import { advice, CairnError, option } from "../../errors.ts";
import { IGNORE_FILE, IgnoreRules } from "../../fs/ignore.ts";
import { patternOfPath } from "../../fs/ignore-pattern.ts";
import { PathSelection } from "../../fs/path-selection.ts";
import { isAtOrBelow, joinRaw, printablePath } from "../../fs/paths/safe-path.ts";
import { readRegular } from "../../fs/regular-file.ts";
import { realPathOf } from "../../workspace/place/find-workspace.ts";
import { givenPatterns } from "../../workspace/save/given-patterns.ts";
import type { CreateBackupOptions } from "../../contract/index.ts";
import type { OpenRepository } from "./open-repository.ts";
import { type SnapshotContent, storedRoot } from "./content.ts";
import type { ContentElsewhere } from "../../workspace/store/engine.ts";
import { isEmptyFolder } from "../../clones/as-made.ts";
import type { ListedSnapshot } from "../../repository/repository.ts";

/** The part of a snapshot that a restore in place takes. */
interface Wanted {
  from: ContentElsewhere;
  content: Pick<SnapshotContent, "root">;
  listed: ListedSnapshot;
  chosen: { readonly paths: readonly Uint8Array[] | null };
}

/** Real path of the repository's folder; null if it is not on this machine. */
export function ownFolder({ storage }: OpenRepository): Buffer | null {
  const config = storage.localPath?.("config", "config");
  return config === undefined ? null : realPathOf(dirname(config));
}

/** Throws `refused` for a target (its real path) in the repository's own folder. */
export function requireOutside(access: OpenRepository, target: Buffer): void {
  const own = ownFolder(access);
  if (own === null || !isAtOrBelow(target, own)) return;
  throw new CairnError("refused", `${printablePath(target)} lies in the repository ${printablePath(own)} itself`, {
    hint: "name a folder outside of the repository",
  });
}

/**
 * Throws `refused` if a restore over a folder (its real path) would change the repository's own folder: the repository
 * lies inside, overlaps chosen paths, and the snapshot's rules do not exclude it.
 */
export async function requireUntouched(
  access: OpenRepository,
  folder: Buffer,
  { wanted, signal }: { wanted: Wanted; signal: AbortSignal | undefined },
): Promise<void> {
  const own = ownFolder(access);
  if (own === null || !isAtOrBelow(own, folder)) return;
  const path = own.subarray(folder.length + 1);
  const { paths } = wanted.chosen;
  if (paths !== null && new PathSelection(paths).of(path) === "no") return;
  if (await isLeftOut(path, wanted, signal)) return;
  throw new CairnError(
    "refused",
    `the repository ${printablePath(own)} lies in the folder, and would get its state of that time back`,
    {
      hint: advice`restore into another folder with ${option("to")}, name only other paths, or move the repository out of the folder`,
    },
  );
}

/**
 * The exclude patterns for a save of a folder (its real path): adds the repository's folder if it lies inside, since
 * each backup would hold the packs of earlier ones. Throws `refused` if the folder is the repository.
 */
export function withoutOwn(
  access: OpenRepository,
  folder: Buffer,
  { exclude = [], onWarning }: Pick<CreateBackupOptions, "exclude" | "onWarning">,
): readonly string[] {
  const own = ownFolder(access);
  if (own === null || !isAtOrBelow(own, folder)) return exclude;
  if (own.length === folder.length)
    throw new CairnError("refused", `${printablePath(folder)} is the repository itself`, {
      hint: "name the folder that is to be backed up",
    });
  const path = own.subarray(folder.length + 1);
  const rules = IgnoreRules.fromExcludes(givenPatterns(folder, exclude, undefined));
  if (isIgnored(rules, path, (above) => ignoreFileIn(joinRaw(folder, above)))) return exclude;
  const pattern = `/${patternOfPath(path)}`;
  onWarning?.(`the repository ${printablePath(own)} lies in the folder and is left out, as by --exclude ${pattern}`);
  // The pattern of the user stays as typed: with a slash in front it may be another path.
  return [...exclude, `.${pattern}`];
}

/** The ignore file of a directory; null if it has no ordinary file of that name. */
function ignoreFileIn(directory: Buffer): Uint8Array | null {
  const file = joinRaw(directory, IGNORE_FILE);
  try {
    return readRegular(file);
  } catch {
    return null;
  }
}

/** True if the rules of a snapshot leave out a directory, or one above it. */
async function isLeftOut(
  path: Buffer,
  { from, content, listed }: Wanted,
  signal: AbortSignal | undefined,
): Promise<boolean> {
  const ignoreFiles = await ignoreFilesBelow(from.blobs, storedRoot(content), signal);
  const record = rulesOfRequest({ excludes: listed.snapshot.excludes ?? [], rules: null }).record(ignoreFiles);
  return isIgnored(IgnoreRules.fromRecord(record), path, () => null);
}

/** True if rules leave out a directory, or one above it. */
function isIgnored(top: IgnoreRules, path: Buffer, ignoreFile: (directory: Buffer) => Uint8Array | null): boolean {
  let rules = top;
  let above = "";
  for (const name of path.toString("latin1").split("/")) {
    rules = IgnoreRules.enterDirectory(rules, above, ignoreFile(Buffer.from(above, "latin1")));
    if (rules.ignores(name, true)) return true;
    above = above === "" ? name : `${above}/${name}`;
  }
  return false;
}

/** True if a folder is empty, as far as this user can see. */
export function looksEmpty(folder: Buffer): boolean {
  try {
    return isEmptyFolder(folder);
  } catch {
    return true;
  }
}
