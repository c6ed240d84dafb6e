import { spawnSync } from "node:child_process";
import fs from "node:fs";
import { basename, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { latin1 } from "../../formats/bytes.ts";
import { IgnoreRules } from "../../fs/ignore.ts";
import { processesThatSee } from "../../fs/linux/holders.ts";
import { TESTED_POINT } from "../../fs/linux/mounts.ts";
import { AT_FDCWD, putName, syscallError, syscalls, TYPE } from "../../fs/linux/syscalls.ts";
import { parentOf } from "../../fs/linux/exchange-folders.ts";
import { makeFolder } from "../../fs/make-folder.ts";
import { joinRaw, printablePath } from "../../fs/paths/safe-path.ts";
import { readRegular } from "../../fs/regular-file.ts";
import { newArena } from "../../native.ts";
import { ignoreFileNow } from "../keep/paths-to-remove.ts";
import { effectiveRights } from "../restore/other-owners.ts";
import type { Workspace } from "../open/workspace.ts";

/**
 * Runs a command in a mount namespace in which the path of the workspace's folder shows a point. From the top, an overlay has:
 * `written` (writes of the command), the point, whiteouts (overlayfs's marks that hide lower entries), and the folder, of which
 * only ignored entries are seen.
 */

const CAP_SYS_ADMIN = 1n << 21n;
const LAYERS = "lowerdir=point:hidden:folder,upperdir=written,workdir=scratch,userxattr";
/** Runs in the namespace and in the work directory. `at` is a link to the folder. */
const MOUNT = `mount --bind at folder && mount -t overlay -o ${LAYERS} "$0" at && exec "$@"`;
/** Notes the path of the program, nothing if there is none, once the mounted directory is the working one. */
const START = `cd -P at && { command -v "$1" || :; } > "$OLDPWD/started" && exec "$@"`;

/** Returns the program and arguments that run `command`. The work directory must be their working directory. */
export function overFolder(work: string, command: readonly string[]): string[] {
  const mount = ["--", "sh", "-c", MOUNT, sourceOf(work)];
  const start = ["sh", "-c", START, "sh", ...command];
  if ((effectiveRights() & CAP_SYS_ADMIN) !== 0n) return ["unshare", "-m", ...mount, ...start];
  // The command has its own ids again, and no right to unmount.
  const own = [`--map-user=${process.geteuid!()}`, `--map-group=${process.getegid!()}`];
  return ["unshare", "-Urm", ...mount, "unshare", "-U", ...own, "--", ...start];
}

/** Names the mount of a work directory. The number of a mount namespace would not do: the kernel gives it again. */
const sourceOf = (work: string): string => `${TESTED_POINT}${basename(work)}`;

/**
 * Kills the processes that a command left behind, until none sees the mount. Returns the path of the command's program:
 * "" if there is no such program, null if the command was not begun.
 */
export async function endCommand(work: string): Promise<string | null> {
  for (let left = processesThatSee(sourceOf(work)); left.length > 0; left = processesThatSee(sourceOf(work))) {
    spawnSync("/bin/sh", ["-c", 'kill -KILL "$@"', "sh", ...left.map(String)], { stdio: "ignore" });
    await sleep(5);
  }
  const started = join(work, "started");
  return fs.existsSync(started) ? readRegular(started).toString().trimEnd() : null;
}

/**
 * Makes the layers beside the folder `point` in the work directory. Returns a function that returns the path of an entry
 * that appeared in the folder since then and is not ignored, so that the command may have seen it; undefined for none.
 */
export function makeLayers(workspace: Workspace, work: string): () => string | undefined {
  const { root } = workspace;
  const excludes = workspace.byId(workspace.state().head)?.descriptor.rules.exclude ?? [];
  const point = Buffer.from(join(work, "point"));
  const look = (): string[] => hiddenIn({ root, point }, "", IgnoreRules.fromExcludes(excludes))!;
  for (const name of ["hidden", "folder", "written", "scratch"]) fs.mkdirSync(join(work, name));
  fs.symlinkSync(root, join(work, "at"));
  const { mode, uid, gid } = fs.statSync(point);
  fs.chownSync(join(work, "written"), uid, gid);
  fs.chmodSync(join(work, "written"), mode & 0o7777);
  const hidden = new Set(look());
  const names = newArena(4096);
  for (const path of hidden) {
    const place = joinRaw(join(work, "hidden"), Buffer.from(path, "latin1"));
    makeFolder(parentOf(place));
    putName(names, 0, place);
    const made = syscalls().mknod(AT_FDCWD, names, 0, TYPE.CHARDEV << 12, 0, 0);
    if (made < 0) throw syscallError(made, `hide ${printablePath(place)} from the command`);
  }
  return () => look().find((path) => !hidden.has(path));
}

/**
 * Returns the present entries of a directory, as paths in latin1, that a command on a point must not see: all but
 * ignored entries that the point lacks, if the point has their directory. Null if it must see nothing of the directory.
 */
function hiddenIn(pair: { root: Buffer; point: Buffer }, directory: string, above: IgnoreRules): string[] | null {
  const place = joinRaw(pair.root, Buffer.from(directory, "latin1"));
  const rules = IgnoreRules.enterDirectory(above, directory, ignoreFileNow(place));
  let isSeen = directory === "";
  const hidden = fs.readdirSync(place, { withFileTypes: true, encoding: "buffer" }).flatMap((entry) => {
    const name = latin1(entry.name);
    const path = directory === "" ? name : `${directory}/${name}`;
    const its = fs.lstatSync(joinRaw(pair.point, Buffer.from(path, "latin1")), { throwIfNoEntry: false });
    const isIgnored = rules.ignores(name, entry.isDirectory());
    const isInBoth = !isIgnored && entry.isDirectory() && its?.isDirectory() === true;
    const below = isInBoth ? hiddenIn(pair, path, rules) : isIgnored && its === undefined ? [] : null;
    if (below !== null) isSeen = true;
    return below ?? [path];
  });
  return isSeen ? hidden : null;
}
