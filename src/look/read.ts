import type { PathInput, ReadOptions, WorkspaceCallOptions } from "../contract/index.ts";
import { advice, CairnError, call, toCairnError, word } from "../errors.ts";
import { joinPath } from "../formats/bytes.ts";
import type { TreeNode } from "../formats/restic/tree.ts";
import { beside, isLog, LOGS, parseHeader } from "../formats/sqlite-header.ts";
import { displayPath, hintOfTwin, normalizeTyped, quotedPath, twinOf } from "../fs/paths/safe-path.ts";
import { requireAnswer } from "../fs/silent-mounts.ts";
import { newWorkDirectory } from "../fs/work-directory.ts";
import type { Workspace } from "../workspace/open/workspace.ts";
import { heldNode, openHeldFile } from "../workspace/points/held-file.ts";
import { NodeFinder } from "../workspace/points/tree-diff.ts";
import { withSealed } from "../workspace/save/seal.ts";
import type { Point } from "../workspace/points/point-files.ts";
import { handedOver } from "./handed-over.ts";
import { type Looking, type Meant, meantBy, now, type Opened, withSources } from "./sources/operands.ts";
import { entryIn, NOTHING } from "./sources/source.ts";
import {
  notAFile,
  openPresent,
  piecesOf,
  pointSource,
  type Range,
  rangeOf,
  WHOLE,
} from "./sources/workspace-source.ts";

/** Reads files of one state. Paths are raw, from the state's root. */
interface Reader {
  /** Yields a range of a file as it is recorded. Throws `not_found`, `conflict`. */
  raw(path: Uint8Array, range: Range): AsyncGenerator<Uint8Array>;
  /** True: the state lacks the file. */
  surelyLacks(path: Uint8Array): boolean;
}

/**
 * Reads a file's content in order, or a range of it. Target null means the present folder. A database of a point or a
 * snapshot comes with its log applied.
 */
export async function* read(
  hand: Looking,
  target: string | null,
  path: PathInput,
  options: ReadOptions,
): AsyncGenerator<Uint8Array> {
  const range = askedRange(options);
  const { signal } = options;
  yield* withReader(hand, { target, path, options }, (reader, where, isPresent) =>
    isPresent ? reader.raw(where, range) : shown(reader, { where, range, signal, folder: folderIn(hand.workspace) }),
  );
}

/** Reads a file of a point as `read` does. */
export function readPoint(
  workspace: Workspace,
  point: Point,
  path: Uint8Array,
  options: WorkspaceCallOptions,
): AsyncGenerator<Uint8Array> {
  const target = point.descriptor.save_point_id;
  const { signal } = options;
  const reader = pointReader(workspace, { target, point, options });
  return shown(reader, { where: path, range: WHOLE, signal, folder: folderIn(workspace) });
}

function folderIn(workspace: Workspace): () => string {
  return () => newWorkDirectory(workspace.found.control.temporary);
}

interface Shown {
  where: Uint8Array;
  range: Range;
  /** Makes the folder in which a log is applied to its database. */
  folder: () => string;
  signal: AbortSignal | undefined;
}

/** Yields a range of a file; of a database with its log applied. */
export async function* shown(reader: Reader, { where, range, folder, signal }: Shown): AsyncGenerator<Uint8Array> {
  const image = await imageOf(reader, where, { folder, signal });
  if (image === null) return yield* reader.raw(where, range);
  const { start, end } = range;
  let next = 0;
  for await (const piece of image) {
    const wanted = piece.subarray(Math.max(0, start - next), Math.max(0, end - next));
    next += piece.length;
    if (wanted.length > 0) yield wanted;
  }
}

/** Reads a file's content as it is recorded. */
export async function* readRaw(
  hand: Looking,
  target: string | null,
  path: PathInput,
  options: ReadOptions,
): AsyncGenerator<Uint8Array> {
  const range = askedRange(options);
  yield* withReader(hand, { target, path, options }, (reader, where) => reader.raw(where, range));
}

/** Yields the pieces of `use`, which gets a reader of the state that `target` means, and the whole path of the file. */
async function* withReader(
  hand: Looking,
  { target, path, options }: { target: string | null; path: PathInput; options: ReadOptions },
  use: (reader: Reader, where: Uint8Array, isPresent: boolean) => AsyncGenerator<Uint8Array>,
): AsyncGenerator<Uint8Array> {
  if (options.paths !== undefined)
    throw new CairnError("usage", "paths are only for an archive", { hint: "give archive, too: tar or zip" });
  const { workspace } = hand;
  const meant = target === null ? now() : meantBy(workspace, target);
  const where = pathIn(meant, path);
  const { signal } = options;
  if (meant.kind === "point")
    return yield* use(pointReader(workspace, { target: target!, ...meant, options }), where, false);
  if (meant.kind !== "backup") {
    const root = meant.kind === "now" ? workspace.root : meant.found.folder;
    requireAnswer(root);
    const raw: Reader["raw"] = (at, range) => piecesOf(openPresent(root, at), range, signal);
    return yield* use({ raw, surelyLacks: () => false }, where, true);
  }
  const state = { ...meant, path: NOTHING };
  yield* handedOver<Uint8Array>(async (take) =>
    withSources(hand, [state], options, async ([opened]) => {
      const raw: Reader["raw"] = (at, range) => rawIn(opened!, at, { ...range, signal });
      const at = opened!.pathOf(where);
      for await (const piece of use({ raw, surelyLacks: () => false }, at, false)) await take(piece);
    }),
  );
}

/** Joins the path of an operand and a path below it; `Opened.pathOf` resolves that of a backup. */
export function pathIn({ path: above }: Meant, path: PathInput): Uint8Array {
  const given = normalizeTyped(path);
  return above.length === 0 ? given : given.length === 0 ? above : joinPath(above, given);
}

/** Yields a range of a file of a source. Throws `damaged` if a whole file does not have the size that it had. */
export async function* rawIn(
  { source, name }: Pick<Opened, "source" | "name">,
  path: Uint8Array,
  range: Range & { signal: AbortSignal | undefined },
): AsyncGenerator<Uint8Array> {
  const node = await entryOf({ source, name }, path);
  if (node.type !== "file") throw notAFile(path);
  let size = 0;
  for await (const piece of rangeOf(source, { path, node }, range)) {
    size += piece.length;
    yield piece;
  }
  if (range.start === 0 && range.end === Infinity && size !== node.size)
    throw new CairnError(
      "damaged",
      `${quotedPath(path)} had ${node.size} bytes when it was saved, but ${name} holds ${size}`,
    );
}

/** Returns the node at a path of a snapshot, which is not its root. Throws `not_found`. */
export async function entryOf({ source, name }: Pick<Opened, "source" | "name">, path: Uint8Array): Promise<TreeNode> {
  const node = await entryIn(source, path);
  if (node !== null) return node;
  throw new CairnError("not_found", `${displayPath(path).path} is not in ${name}`, {
    hint: advice`${call("backup find NAME", "find", word("pattern"))} looks for a name in all snapshots`,
  });
}

/** Reads a point. A file of a held tree is read there, so that the point need not be sealed. */
function pointReader(
  workspace: Workspace,
  { target, point, options }: { target: string; point: Point; options: WorkspaceCallOptions },
): Reader {
  const { points } = workspace;
  const { signal } = options;
  // A read looks for a file and for the logs beside it: directories are read once for all of them.
  let finder: NodeFinder | null = null;
  return {
    surelyLacks: (path) => !point.sealed && heldNode(points, point, path) === null,
    async *raw(path, range) {
      const held = point.sealed ? null : openHeldFile(points, point, path);
      if (held !== null) return yield* piecesOf(held, range, signal);
      const { save_point_id: id } = point.descriptor;
      const source = await withSealed(workspace, options, async () => pointSource(workspace, workspace.resolve(id)));
      const nodes = (finder ??= new NodeFinder(source));
      const node = await workspace.engine.reading(async () => mustFind(nodes, path, target), options);
      if (node.type !== "file") throw notAFile(path);
      yield* rangeOf(source, { path, node }, { ...range, signal });
    },
  };
}

/** Null for a file that is no database, or has no log or journal in the state. */
async function imageOf(
  reader: Reader,
  path: Uint8Array,
  { folder, signal }: Pick<Shown, "folder" | "signal">,
): Promise<AsyncGenerator<Uint8Array> | null> {
  const contentOf = (ending: string): AsyncGenerator<Uint8Array> => reader.raw(beside(path, ending), WHOLE);
  const logs: (typeof LOGS)[number][] = [];
  for (const ending of LOGS) {
    if (reader.surelyLacks(beside(path, ending))) continue;
    if ((await firstOf(contentOf(ending), isLog)) === true) logs.push(ending);
  }
  if (logs.length === 0 || (await firstOf(contentOf(""), (bytes) => parseHeader(bytes) !== null)) !== true) return null;
  const { recoveredContent } = await import("../capture/sqlite/shown-database.ts");
  return recoveredContent(contentOf, { logs, folder: folder(), signal });
}

/** Looks at the first piece of a file; null if there is no file. */
async function firstOf<T>(content: AsyncGenerator<Uint8Array>, look: (bytes: Buffer) => T): Promise<T | null> {
  try {
    for await (const piece of content) return look(Buffer.from(piece));
    return null;
  } catch (error) {
    const { code } = toCairnError(error);
    if (code === "not_found" || code === "conflict") return null;
    throw error;
  }
}

function askedRange({ offset = 0, length }: ReadOptions): Range {
  for (const [name, value] of Object.entries({ offset, length: length ?? 0 }))
    if (!Number.isSafeInteger(value) || value < 0)
      throw new CairnError("usage", `${name} must be a whole number of bytes; found ${value}`);
  return { start: offset, end: length === undefined ? Infinity : offset + length };
}

/** Returns the node at a path of a point. Throws `not_found`. */
export function mustFind(nodes: NodeFinder, path: Uint8Array, target: string): TreeNode {
  const node = nodes.at(path);
  if (node !== null) return node;
  const twin = twinOf(path, (each) => nodes.at(each) !== null);
  throw new CairnError("not_found", `${displayPath(path).path} is not in save point ${target}`, {
    hint:
      twin === undefined ? advice`${call("show POINT", "show", word("point"))} lists its content` : hintOfTwin(twin),
  });
}
