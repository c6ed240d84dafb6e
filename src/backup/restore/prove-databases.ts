import { RecordFinder } from "../../archive/scan/find-record.ts";
import type { ScanResult } from "../../archive/scan/scan.ts";
import { DatabaseProcess } from "../../capture/sqlite/database-process.ts";
import { MOST_PATH_BYTES } from "../../capture/sqlite/image.ts";
import type { DatabaseProof } from "../../contract/databases.ts";
import type { CallOptions, RowsCheck } from "../../contract/words.ts";
import { comparePaths, joinPath } from "../../formats/bytes.ts";
import type { RowsRule } from "../../formats/records/checks.ts";
import type { ConsistencyLabel } from "../../formats/records/descriptor.ts";
import { rawPath } from "../../formats/records/record.ts";
import { displayPath, listedNames, printablePath } from "../../fs/paths/safe-path.ts";
import { checkRows } from "../../workspace/points/named-files.ts";

interface Proving {
  labels: readonly ConsistencyLabel[];
  signal?: AbortSignal | undefined;
  onWarning?: ((message: string) => void) | undefined;
}

/**
 * Lets SQLite check each database of a folder that was read back. Changes nothing: a database with content in its log
 * or journal is only listed.
 */
export async function proveDatabases(
  folder: Buffer,
  found: ScanResult,
  { labels, signal, onWarning }: Proving,
): Promise<DatabaseProof[]> {
  const { databases } = found.summarise();
  if (databases.length === 0) return [];
  const sqlite = new DatabaseProcess();
  const proofs: DatabaseProof[] = [];
  try {
    for (const { path, isLive } of databases) {
      const place = joinPath(folder, path);
      if (place.length > MOST_PATH_BYTES) {
        onWarning?.(
          `${printablePath(path)} was not checked: SQLite opens no path of more than ${MOST_PATH_BYTES} bytes`,
        );
        continue;
      }
      const proof = await sqlite.prove({ path: place, own: false }, signal);
      const looked = isLive ? { ...proof, ...NOT_CHECKED } : proof;
      proofs.push({ ...displayPath(path), ...looked, label: labelOf(labels, path) });
    }
  } finally {
    await sqlite.close();
  }
  const wrong = proofs.filter(({ problems }) => problems.length > 0);
  if (wrong.length > 0)
    onWarning?.(
      `SQLite finds ${listedNames(wrong.map(({ path }) => printablePath(path)))} damaged, and so they were saved: ${wrong[0]!.problems[0]!}`,
    );
  return proofs;
}

/** Compares the files that rows name in a folder that was read back. */
export async function proveRows(
  folder: Buffer,
  found: ScanResult,
  { rules, ...call }: Pick<CallOptions, "signal" | "onWarning"> & { rules: readonly RowsRule[]; scratch: string },
): Promise<RowsCheck[]> {
  const finder = new RecordFinder(found);
  const isThere = (path: Uint8Array): boolean => finder.nodeOf(path)?.type === "file";
  const database = async (path: Uint8Array): Promise<Uint8Array | null> =>
    isThere(path) ? joinPath(folder, path) : null;
  const state = { find: (path: Uint8Array) => finder.nodeOf(path), hashes: found.summarise().hashes, database };
  return checkRows(rules, state, call);
}

const NOT_CHECKED = { page_size: null, pages: null, check: null, problems: [], statistics: null };

function labelOf(labels: readonly ConsistencyLabel[], path: Uint8Array): string | null {
  return labels.find((each) => comparePaths(rawPath(each), path) === 0)?.label ?? null;
}
