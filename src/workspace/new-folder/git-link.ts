import { execFileSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { basename, isAbsolute, join, resolve } from "node:path";
import { CairnError } from "../../errors.ts";
import { readRegular } from "../../fs/regular-file.ts";
import { printablePath, shellPath } from "../../fs/paths/safe-path.ts";

/**
 * A linked worktree or a submodule has a file `.git` that names git's own state outside the folder. A copy with the
 * same file would commit to the original's branch.
 */

const LINK = /^gitdir: (.+?)\n*$/;
const MOST_BYTES = 4096;

/** Returns the directory of git's state that the file `.git` of a folder names, relative to `from`; null if there is none. */
export function gitStateOf(folder: string, from = folder): string | null {
  let text: Buffer;
  try {
    text = readRegular(join(folder, ".git"), { limit: MOST_BYTES });
  } catch {
    return null;
  }
  const named = LINK.exec(text.toString("utf8"))?.[1];
  if (named === undefined) return null;
  return isAbsolute(named) ? named : resolve(from, named);
}

/**
 * Gives a copied worktree its own worktree entry with a detached HEAD and the original's index; a copied submodule gets
 * its own repository. `copy`: the copy's place until it is at `target`. A kill leaves an entry that `git worktree
 * prune` removes. Throws `refused` if git's state cannot be read.
 */
export function separateGitState(copy: string, { from, target }: { from: string; target: string }): void {
  const state = gitStateOf(copy, from);
  if (state === null) return;
  try {
    const head = git(["--git-dir", state, "rev-parse", "--verify", "HEAD"]).trim();
    if (existsSync(join(state, "commondir"))) separateWorktree(copy, { state, head, target });
    else separateSubmodule(copy, state);
  } catch (error) {
    throw new CairnError(
      "refused",
      `${printablePath(from)} is a linked git worktree or a submodule, and the fork would share its branch: ${(error as Error).message.split("\n")[0]}`,
      {
        hint: `make a worktree instead: git -C ${shellPath(from)} worktree add --detach ${shellPath(target)}`,
        cause: error,
      },
    );
  }
}

function separateWorktree(
  copy: string,
  { state, head, target }: { state: string; head: string; target: string },
): void {
  const common = resolve(state, readRegular(join(state, "commondir"), { limit: MOST_BYTES }).toString("utf8").trim());
  const own = newEntry(join(common, "worktrees"), basename(target));
  writeFileSync(join(own, "commondir"), "../..\n");
  writeFileSync(join(own, "gitdir"), `${join(target, ".git")}\n`);
  writeFileSync(join(own, "HEAD"), `${head}\n`);
  if (existsSync(join(state, "index"))) cpSync(join(state, "index"), join(own, "index"));
  writeFileSync(join(copy, ".git"), `gitdir: ${own}\n`);
}

function newEntry(worktrees: string, name: string): string {
  for (let number = 0; ; number++) {
    const own = join(worktrees, number === 0 ? name : `${name}${number}`);
    if (existsSync(own)) continue;
    mkdirSync(own);
    return own;
  }
}

function separateSubmodule(copy: string, state: string): void {
  const own = join(copy, ".git");
  rmSync(own);
  cpSync(state, own, { recursive: true, preserveTimestamps: true, verbatimSymlinks: true });
  if (git(["config", "--file", join(own, "config"), "--default", "", "--get", "core.worktree"]).trim() !== "")
    git(["config", "--file", join(own, "config"), "--unset", "core.worktree"]);
}

function git(args: readonly string[]): string {
  return execFileSync("git", args, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
}
