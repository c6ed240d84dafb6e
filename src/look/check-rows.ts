import { createWriteStream } from "node:fs";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import type { RowsCheck, WorkspaceCallOptions } from "../contract/words.ts";
import { toCairnError } from "../errors.ts";
import { rawPath } from "../formats/records/record.ts";
import { displayPath } from "../fs/paths/safe-path.ts";
import { newWorkDirectory } from "../fs/work-directory.ts";
import type { Workspace } from "../workspace/open/workspace.ts";
import { checkRows } from "../workspace/points/named-files.ts";
import type { Point } from "../workspace/points/point-files.ts";
import { NodeFinder } from "../workspace/points/tree-diff.ts";
import { sealedPoint } from "../workspace/save/seal.ts";
import { readPoint } from "./read.ts";

/**
 * Like {@link checkRowsOf} for a point that was just made. An error or an abort does not undo the point, so each database
 * is then listed as wrong, with the reason.
 */
export async function checkRowsOfSaved(
  workspace: Workspace,
  point: Point,
  options: WorkspaceCallOptions,
): Promise<RowsCheck[]> {
  return checkRowsOf(workspace, point, options).catch((error: unknown) => {
    const detail = `the files were not compared: ${toCairnError(error).message}`;
    options.onWarning?.(`save point ${point.descriptor.save_point_id.slice(0, 8)} is made, but ${detail}`);
    return (point.descriptor.rows ?? []).map(({ database, folder }) => {
      const path = displayPath(rawPath(database));
      return { ...path, folder: folder.path, named: 0, wrong: 1, files: [{ ...path, detail }] };
    });
  });
}

/** Runs the queries with which a point was saved, and compares the files that their rows name. Seals the point. */
export async function checkRowsOf(
  workspace: Workspace,
  { descriptor }: Point,
  options: WorkspaceCallOptions,
): Promise<RowsCheck[]> {
  const { rows = [], save_point_id: id } = descriptor;
  if (rows.length === 0) return [];
  const point = await sealedPoint(workspace, id, options);
  return workspace.engine.reading(async () => {
    const finder = new NodeFinder(await workspace.source(point));
    const hashes = (await workspace.manifest(point))?.fileHashes ?? [];
    const database = async (path: Uint8Array, scratch: string): Promise<Uint8Array | null> => {
      if (finder.at(path)?.type !== "file") return null;
      const copy = join(scratch, "database");
      await pipeline(readPoint(workspace, point, path, options), createWriteStream(copy, { flags: "wx" }));
      return Buffer.from(copy);
    };
    const state = { find: (path: Uint8Array) => finder.at(path), hashes, database };
    return checkRows(rows, state, { ...options, scratch: newWorkDirectory(workspace.found.control.temporary) });
  }, options);
}
