import { makeFolder } from "../../fs/make-folder.ts";
import { DatabaseProcess } from "../../capture/sqlite/database-process.ts";
import type { CallOptions, RowsCheck } from "../../contract/words.ts";
import { throwIfAborted, toCairnError } from "../../errors.ts";
import { hex, joinPath, latin1 } from "../../formats/bytes.ts";
import type { RowsRule } from "../../formats/records/checks.ts";
import { rawPath } from "../../formats/records/record.ts";
import type { TreeNode } from "../../formats/restic/tree.ts";
import { displayPath, normalizeTyped, printablePath } from "../../fs/paths/safe-path.ts";
import { removeAll } from "../../fs/remove-all.ts";

/** A state of a folder whose databases name files of it. */
export interface StateWithRows {
  /** Returns the path of a database that no process uses, perhaps a copy in `scratch`; null: there is none. */
  database: (path: Uint8Array, scratch: string) => Promise<Uint8Array | null>;
  /** Returns an entry's node; null: there is none. */
  find: (path: Uint8Array) => Pick<TreeNode, "type" | "size" | "content"> | null;
  /** SHA-256 of the files of several blobs. */
  hashes: readonly { path: Uint8Array; sha256: Uint8Array }[];
}

const MOST_LISTED = 100;
const MOST_SHOWN = 10;
const TIME_LIMIT_MS = 10 * 60_000;
const NOTHING = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/**
 * Runs the query of each rule and looks up every file that a row names in the state. Lists the files that are missing or
 * have another size or SHA-256, and warns of them. A query that fails is listed like a wrong file. `scratch`: a free path,
 * removed at the end.
 */
export async function checkRows(
  rules: readonly RowsRule[],
  { database, find, hashes }: StateWithRows,
  { scratch, signal, onWarning }: Pick<CallOptions, "signal" | "onWarning"> & { scratch: string },
): Promise<RowsCheck[]> {
  if (rules.length === 0) return [];
  const sqlite = new DatabaseProcess();
  const known = new Map(hashes.map(({ path, sha256 }) => [latin1(path), sha256]));
  const limit = AbortSignal.timeout(TIME_LIMIT_MS);
  const checks: RowsCheck[] = [];
  try {
    for (const { database: of, folder, query } of rules) {
      removeAll(scratch);
      makeFolder(scratch);
      const check: RowsCheck = { ...displayPath(rawPath(of)), folder: folder.path, named: 0, wrong: 0, files: [] };
      checks.push(check);
      const note = (path: Uint8Array, detail: string): void => {
        check.wrong++;
        if (check.files.length < MOST_LISTED) check.files.push({ ...displayPath(path), detail });
      };
      const place = await database(rawPath(of), scratch);
      if (place === null) {
        note(rawPath(of), "the database is missing");
        continue;
      }
      const within = signal === undefined ? limit : AbortSignal.any([signal, limit]);
      const asked = { path: place, query, scratch };
      const named = await sqlite.do("namedFiles", asked, { signal: within }).catch((error: unknown) => {
        throwIfAborted(signal);
        const { message } = toCairnError(error);
        note(rawPath(of), limit.aborted ? `the query did not end within ${TIME_LIMIT_MS / 60_000} minutes` : message);
        return [];
      });
      check.named = named.length;
      for (const { path, size, sha256 } of named) {
        const at = inside(rawPath(folder), path);
        const node = at === null ? null : find(at);
        if (at === null) note(path, "the row names no path in the folder");
        else if (node === null) note(at, "missing");
        else if (node.type !== "file") note(at, "it is no file");
        else if (size !== null && size !== node.size) note(at, `it has ${node.size} bytes; its row says ${size}`);
        else if (sha256 !== null && sha256 !== hashOf(node, known.get(latin1(at))))
          note(at, "its content differs from the SHA-256 of its row");
      }
    }
    for (const { path, wrong, files } of checks.filter((each) => each.wrong > 0)) {
      const shown = files.slice(0, MOST_SHOWN);
      const more = wrong > shown.length ? ` (and ${wrong - shown.length} more)` : "";
      const list = shown.map((file) => `${printablePath(file.path)}: ${printablePath(file.detail)}`).join("; ");
      onWarning?.(`files that rows of ${printablePath(path)} name are missing or different: ${list}${more}`);
    }
    return checks;
  } finally {
    await sqlite.close();
    removeAll(scratch);
  }
}

/** The path of a file that a row names, from the saved folder; null: it is outside. */
function inside(folder: Uint8Array, path: Uint8Array): Uint8Array | null {
  try {
    return joinPath(folder, normalizeTyped(path));
  } catch {
    return null;
  }
}

function hashOf({ size, content }: Pick<TreeNode, "size" | "content">, whole: Uint8Array | undefined): string | null {
  if (size === 0) return NOTHING;
  if (content?.length === 32) return hex(content);
  return whole === undefined ? null : hex(whole);
}
