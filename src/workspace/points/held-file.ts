import fs from "node:fs";
import { IGNORE_FILE, IgnoreRules, MAX_IGNORE_FILE_BYTES } from "../../fs/ignore.ts";
import { joinRaw } from "../../fs/safe-path.ts";
import { readRegular } from "../../fs/regular-file.ts";
import { heldTreeProblem, isAsMade, treePlace } from "./held-trees.ts";
import { type Point, rulesToReadBy } from "./point-files.ts";
import type { Points } from "./points.ts";

const READ = fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW | fs.constants.O_NONBLOCK;

/**
 * Opens a file of a point that is not sealed, in the tree that it holds; null for what is no file there, for what ignore rules
 * may hide, and for what was changed since the tree was made. Throws `damaged` where the tree is gone or was changed.
 */
export function openHeldFile(points: Points, point: Point, where: Uint8Array): number | null {
  const problem = heldTreeProblem(points, point);
  if (problem !== null) throw problem;
  const tree = Buffer.from(treePlace(points, point));
  try {
    if (!isPart(tree, point, where)) return null;
    const fd = fs.openSync(joinRaw(tree, where), READ);
    if (fs.fstatSync(fd).isFile()) return fd;
    fs.closeSync(fd);
    return null;
  } catch (error) {
    // A seal says what is the matter.
    if (typeof (error as NodeJS.ErrnoException).code === "string") return null;
    throw error;
  }
}

/** Tells if a path of the tree surely belongs to the point, as it was made. */
function isPart(tree: Buffer, point: Point, where: Uint8Array): boolean {
  const { descriptor } = point;
  const names = Buffer.from(where).toString("latin1").split("/");
  const recorded = rulesToReadBy(descriptor);
  let rules = recorded === null ? IgnoreRules.fromExcludes(descriptor.rules.exclude) : IgnoreRules.fromRecord(recorded);
  let directory = "";
  if (!isAsMade(point, tree)) return false;
  for (const [at, name] of names.entries()) {
    const file = rules.needsFiles ? ignoreFileOf(tree, directory) : null;
    if (file !== null && file.length > MAX_IGNORE_FILE_BYTES) return false;
    rules = IgnoreRules.enterDirectory(rules, directory, file);
    directory = directory === "" ? name : `${directory}/${name}`;
    const place = joinRaw(tree, Buffer.from(directory, "latin1"));
    const isDirectory = fs.lstatSync(place).isDirectory();
    if (isDirectory !== at < names.length - 1 || !isAsMade(point, place) || rules.ignores(name, isDirectory))
      return false;
  }
  return true;
}

/** Null where there is none that counts. */
function ignoreFileOf(tree: Buffer, directory: string): Uint8Array | null {
  const place = joinRaw(tree, Buffer.from(directory === "" ? IGNORE_FILE : `${directory}/${IGNORE_FILE}`, "latin1"));
  return fs.lstatSync(place, { throwIfNoEntry: false })?.isFile() === true ? readRegular(place) : null;
}
