import fs from "node:fs";
import { posix } from "node:path";
import type { MovedRef } from "../../contract/points.ts";
import { toCairnError } from "../../errors.ts";
import { joinPath, latin1 } from "../../formats/bytes.ts";
import type { TreeNode } from "../../formats/restic/tree.ts";
import { displayPath, printablePath, shellPath } from "../../fs/paths/safe-path.ts";
import { readRegular } from "../../fs/regular-file.ts";
import type { TreeSource } from "../../repository/trees/tree-source.ts";
import { packedRefs, symbolicTarget } from "./git-files.ts";
import { type GitView, GitViews, type State, textOf, TooLarge } from "./git-view.ts";

/** Tells about git's own state in a plan. */

/** bytes of a file `.git` that names a directory */
const MOST_LINK = 4096;
const REF_FILE = /^((?:.*\/)?[^/]*\.git(?:\/modules\/.+?)?)\/(HEAD|packed-refs|refs\/.*)$/s;

/** Returns the refs that a plan moves, and the values of HEAD. `contents` has the new files. */
export function movedRefs(
  plan: Iterable<{ path: Uint8Array; action: string; after: TreeNode | null }>,
  present: State,
  contents: TreeSource,
): MovedRef[] {
  const planned = new Map<string, Map<string, TreeNode | null>>();
  for (const { path, action, after } of plan) {
    const [, directory, name] = action === "keep" ? [] : (REF_FILE.exec(latin1(path)) ?? []);
    if (directory === undefined) continue;
    const of = planned.get(directory) ?? new Map<string, TreeNode | null>();
    planned.set(directory, of.set(name!, after?.type === "file" ? after : null));
  }
  const views = new GitViews();
  return [...planned].flatMap(([directory, files]) => {
    try {
      return movedIn(views.of(present, directory), files, contents).map((each) => ({
        ...displayPath(Buffer.from(directory, "latin1")),
        ...each,
      }));
    } catch (error) {
      // The restore itself tells of damage.
      if (error instanceof TooLarge || toCairnError(error).code === "damaged") return [];
      throw error;
    }
  });
}

function movedIn(
  view: GitView,
  files: ReadonlyMap<string, TreeNode | null>,
  contents: TreeSource,
): Pick<MovedRef, "ref" | "before" | "after">[] {
  const text = (name: string): string => {
    const node = files.get(name);
    return node === undefined ? view.text(name) : node === null ? "" : textOf(node, contents);
  };
  const before = new Map([...view.refs(), ["HEAD", view.head]]);
  const after = packedRefs(text("packed-refs"));
  const loose = [...view.loose().keys(), ...files.keys()].filter((name) => name.startsWith("refs/"));
  for (const name of [...loose, "HEAD"]) if (text(name) !== "") after.set(name, text(name).trim());
  const names = [...new Set([...before.keys(), ...after.keys()])].toSorted();
  const valueIn = (refs: ReadonlyMap<string, string>, ref: string): string | null => {
    const value = refs.get(ref) ?? "";
    return value === "" ? null : (symbolicTarget(value) ?? value);
  };
  return names
    .map((ref) => ({ ref, before: valueIn(before, ref), after: valueIn(after, ref) }))
    .filter((each) => each.before !== each.after);
}

/** Warns of submodules that a plan brings back without git's own directory, which was removed with them. */
export function warnOfLostGit(
  root: Uint8Array,
  plan: Iterable<{ path: Uint8Array; action: string; after: TreeNode | null }>,
  contents: TreeSource,
  { onWarning }: { onWarning?: ((message: string) => void) | undefined },
): void {
  for (const { path, action, after } of plan) {
    if (action !== "create" || after?.type !== "file" || after.size > MOST_LINK) continue;
    const name = latin1(path);
    const link = name.endsWith("/.git") ? linkIn(after, contents) : undefined;
    if (link === undefined) continue;
    const folder = posix.dirname(name);
    const git = Buffer.from(posix.join(folder, link), "latin1");
    const isOutside = latin1(git).startsWith("../");
    if (
      isOutside ||
      fs.existsSync(joinPath(root, git)) ||
      Iterator.from(plan).some(({ path: other }) => latin1(other) === latin1(git))
    )
      continue;
    onWarning?.(
      `the submodule ${printablePath(Buffer.from(folder, "latin1"))} does not work without ${printablePath(git)}, which is gone: restore that folder, too`,
    );
  }
}

/** Returns the relative path in a file `.git`, if there is one. */
function linkIn(node: TreeNode, contents: TreeSource): string | undefined {
  try {
    return /^gitdir: (\.\..*)$/m.exec(textOf(node, contents))?.[1];
  } catch (error) {
    if (toCairnError(error).code === "damaged") return undefined;
    throw error;
  }
}

/**
 * Warns that git's own state stays if it lies outside the folder: of a linked worktree or a submodule, of a repository above
 * the folder, or in a separate git directory of a nested folder that the plan changes.
 */
export function warnOfGitElsewhere(
  root: Uint8Array,
  plan: Iterable<{ path: Uint8Array; action: string }>,
  { onWarning }: { onWarning?: ((message: string) => void) | undefined },
): void {
  const top = latin1(root);
  const folders = new Set([top]);
  for (const { path, action } of plan)
    if (action !== "keep")
      for (let at = posix.dirname(latin1(path)); at !== "."; at = posix.dirname(at)) folders.add(posix.join(top, at));
  const found = new Set([...folders].flatMap((folder) => separateGit(folder) ?? []));
  let above = posix.join(top, ".git");
  while (above !== "/.git" && !fs.existsSync(Buffer.from(above, "latin1"))) above = posix.join(above, "../..", ".git");
  if (above !== "/.git") found.add(above);
  for (const git of found)
    if (!git.startsWith(`${top}/`)) {
      const shown = shellPath(Buffer.from(git, "latin1"));
      onWarning?.(
        `git elsewhere: git's own state is outside the folder, in ${shown}, and stays as it is: HEAD, branches and the index were not changed. To look at its commits: git --git-dir ${shown} log --oneline; git reset or git revert takes one back`,
      );
    }
}

/**
 * Returns the directory that a file `.git` in a folder names, absolute; null if there is no such file. Paths are in latin1. The
 * folder may be a file now, or closed: a restore does not fail for a warning.
 */
function separateGit(folder: string): string | null {
  const link = Buffer.from(posix.join(folder, ".git"), "latin1");
  try {
    if (!fs.lstatSync(link).isFile()) return null;
    const named = /^gitdir:(.*)$/m.exec(latin1(readRegular(link, { limit: MOST_LINK })))?.[1];
    return named === undefined ? null : posix.resolve(folder, named.trim());
  } catch {
    return null;
  }
}
