import fs from "node:fs";
import type { TreeNode } from "../../formats/restic/tree.ts";
import { beside } from "../../formats/sqlite-header.ts";
import { IGNORE_FILE, IgnoreRules, MAX_IGNORE_FILE_BYTES } from "../../fs/ignore.ts";
import { joinRaw } from "../../fs/paths/safe-path.ts";
import { readRegular } from "../../fs/regular-file.ts";
import { nodeAt } from "./changed-since.ts";
import { heldAt, heldTreeProblem, isAsMade, treePlace } from "./held-trees.ts";
import { type Point, rulesToReadBy } from "./point-files.ts";
import type { Points } from "./points.ts";

const READ = fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW | fs.constants.O_NONBLOCK;

/**
 * Opens a file in the tree of a point that is not sealed. Null if the path is no file, if ignore rules may hide it, or
 * if it changed since the tree was made. Throws `damaged` if the tree is missing or changed.
 */
export function openHeldFile(points: Points, point: Point, where: Uint8Array): number | null {
  const problem = heldTreeProblem(points, point);
  if (problem !== null) throw problem;
  const tree = Buffer.from(treePlace(points, point));
  try {
    if (isPart(points, point, { tree, where }) !== true) return null;
    // A seal may have this database as SQLite recovers it from the journal.
    if (fs.existsSync(beside(joinRaw(tree, where), "-journal"))) return null;
    const fd = fs.openSync(joinRaw(tree, where), READ);
    if (fs.fstatSync(fd).isFile()) return fd;
    fs.closeSync(fd);
    return null;
  } catch (error) {
    // Sealing the point reports this error.
    if (typeof (error as NodeJS.ErrnoException).code === "string") return null;
    throw error;
  }
}

/**
 * Returns an entry in the tree of a point that is not sealed, with content that equals no other entry's; null if there
 * is none. Undefined if only a seal tells: ignore rules, hard links, later changes. Throws `damaged` if the tree is
 * missing or changed.
 */
export function heldNode(points: Points, point: Point, where: Uint8Array): TreeNode | null | undefined {
  const problem = heldTreeProblem(points, point);
  if (problem !== null) throw problem;
  if (heldAt(points, point).heldAt === undefined) return undefined;
  const tree = Buffer.from(treePlace(points, point));
  try {
    const isThere = isPart(points, point, { tree, where });
    return isThere === true ? nodeAt(joinRaw(tree, where)) : isThere;
  } catch (error) {
    if (typeof (error as NodeJS.ErrnoException).code === "string") return undefined;
    throw error;
  }
}

/** Returns true if the path surely belongs to the point, unchanged; null if nothing lies there; undefined if unsure. */
function isPart(
  points: Points,
  point: Point,
  { tree, where }: { tree: Buffer; where: Uint8Array },
): true | null | undefined {
  const { descriptor } = point;
  const names = Buffer.from(where).toString("latin1").split("/");
  const recorded = rulesToReadBy(descriptor);
  let rules = recorded === null ? IgnoreRules.fromExcludes(descriptor.rules.exclude) : IgnoreRules.fromRecord(recorded);
  let directory = "";
  if (!isAsMade(points, point, tree)) return undefined;
  for (const [at, name] of names.entries()) {
    const file = rules.needsFiles ? ignoreFileOf(tree, directory) : null;
    if (file !== null && file.length > MAX_IGNORE_FILE_BYTES) return undefined;
    rules = IgnoreRules.enterDirectory(rules, directory, file);
    directory = directory === "" ? name : `${directory}/${name}`;
    const place = joinRaw(tree, Buffer.from(directory, "latin1"));
    const facts = fs.lstatSync(place, { throwIfNoEntry: false });
    if (facts === undefined) return null;
    if (!isAsMade(points, point, place) || rules.ignores(name, facts.isDirectory())) return undefined;
    if (!facts.isDirectory() && at < names.length - 1) return null;
  }
  return true;
}

/** Null if the directory has no ignore file. */
function ignoreFileOf(tree: Buffer, directory: string): Uint8Array | null {
  const place = joinRaw(tree, Buffer.from(directory === "" ? IGNORE_FILE : `${directory}/${IGNORE_FILE}`, "latin1"));
  return fs.lstatSync(place, { throwIfNoEntry: false })?.isFile() === true ? readRegular(place) : null;
}
