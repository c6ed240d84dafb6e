import { dirname } from "node:path";
import { surveyTree } from "../../engines/copy/survey-tree.ts";
import { rulesOfTask } from "../../engines/scan/directory-rules.ts";
import { CairnError } from "../../errors.ts";
import { IgnoreRules } from "../../fs/ignore.ts";
import { PathSelection } from "../../fs/path-selection.ts";
import { isAtOrBelow, printablePath } from "../../fs/safe-path.ts";
import { realPathOf } from "../../workspace/find-workspace.ts";
import type { RepositoryAccess } from "./repository-access.ts";
import type { WantedInPlace } from "./wanted-in-place.ts";

/** A repository must not be changed by what is restored from it. */

/** Real path of the folder that a repository is; null where it lies elsewhere than on this machine. */
function ownFolder({ storage }: RepositoryAccess): Buffer | null {
  const config = storage.localPath?.("config", "config");
  return config === undefined ? null : realPathOf(dirname(config));
}

/** Throws `refused` for a target (its real path) in the repository's own folder. */
export function requireOutside(access: RepositoryAccess, target: Buffer): void {
  const own = ownFolder(access);
  if (own === null || !isAtOrBelow(target, own)) return;
  throw new CairnError("refused", `${printablePath(target)} lies in the repository ${printablePath(own)} itself`, {
    hint: "name a folder outside of it",
  });
}

/**
 * Throws `refused` where a restore over a folder (its real path) would make the repository's own folder what it was:
 * it lies in there, it is or holds something that is chosen, and the snapshot's rules do not leave it out.
 */
export async function requireUntouched(
  access: RepositoryAccess,
  folder: Buffer,
  { wanted, signal }: { wanted: WantedInPlace; signal: AbortSignal | undefined },
): Promise<void> {
  const own = ownFolder(access);
  if (own === null || !isAtOrBelow(own, folder)) return;
  const path = own.subarray(folder.length + 1);
  const { paths } = wanted.chosen;
  if (paths !== null && new PathSelection(paths).of(path) === "no") return;
  if (wanted.content.manifest !== null && (await isLeftOut(path, wanted, signal))) return;
  throw new CairnError(
    "refused",
    `the repository ${printablePath(own)} lies in the folder, and would become what it was then`,
    { hint: "restore into another folder with --to, name only other paths, or move the repository out of the folder" },
  );
}

/** Whether the rules of a snapshot leave a directory out, or one above it. */
async function isLeftOut(
  path: Buffer,
  { from, content, listed }: WantedInPlace,
  signal: AbortSignal | undefined,
): Promise<boolean> {
  const { ignoreFiles } = await surveyTree(from, content.root, { only: null, signal });
  const record = rulesOfTask({ excludes: listed.snapshot.excludes ?? [], rules: null }).record(ignoreFiles);
  let rules = IgnoreRules.fromRecord(record);
  let above = "";
  for (const name of path.toString("latin1").split("/")) {
    rules = IgnoreRules.enterDirectory(rules, above, null);
    if (rules.ignores(name, true)) return true;
    above = above === "" ? name : `${above}/${name}`;
  }
  return false;
}
