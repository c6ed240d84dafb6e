import { join, resolve } from "node:path";
import { MsgvaultRepository } from "../bundle/msgvault/repository.ts";
import {
  ATTACHMENTS,
  DATABASE,
  placedAttachments,
  type PlacesOfRows,
  requireEqual,
  type SnapshotCall,
  usualPlaces,
  verifiedSnapshot,
  writeDatabase,
  writeFiles,
} from "../bundle/msgvault/snapshot.ts";
import { DatabaseProcess } from "../capture/sqlite/database-process.ts";
import { MOST_PATH_BYTES, storedText } from "../capture/sqlite/image.ts";
import type { ImportMsgvaultOptions, ImportMsgvaultResult } from "../contract/msgvault.ts";
import type { BackupList } from "../contract/snapshots.ts";
import type { CallOptions } from "../contract/words.ts";
import { CairnError, damaged } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import type { Manifest } from "../formats/msgvault/manifest.ts";
import { isAtOrBelow, printablePath } from "../fs/paths/safe-path.ts";
import { type FolderOutput, madeFolder } from "../output/folder.ts";
import { throttled } from "../pacer.ts";
import { freeFolder } from "../workspace/new-folder/new-folder.ts";
import { realPathOf } from "../workspace/place/find-workspace.ts";

/** Lists the snapshots of a msgvault repository in the form of `backup list`. */
export function listMsgvault(path: string): BackupList {
  using repository = MsgvaultRepository.open(resolve(path));
  const { repositoryId, formatVersion } = repository.config;
  const list: BackupList = {
    location: repository.path,
    repository_id: repositoryId,
    version: formatVersion,
    snapshots: [],
    damaged: [],
  };
  for (const each of repository.list())
    if ("problem" in each) list.damaged.push({ snapshot_id: each.id, detail: each.problem.message });
    else list.snapshots.push(publicSnapshot(each.manifest));
  return list;
}

function publicSnapshot(manifest: Manifest): BackupList["snapshots"][number] {
  const { database, metadata, auxiliary, attachments, tag } = manifest;
  const own = auxiliary.reduce((sum, { size }) => sum + size, metadata?.size ?? 0);
  return {
    snapshot_id: manifest.id,
    created_at: manifest.createdAt,
    uploaded_at: null,
    hostname: "",
    username: "",
    paths: [database === null ? `stream ${metadata!.format}` : DATABASE],
    tags: tag === "" ? [] : [tag],
    tree: database?.pageMap ?? metadata!.blob,
    parent: manifest.parentId,
    program_version: manifest.program,
    save_point_id: null,
    files: null,
    bytes: own + attachments.bytes + (database === null ? 0 : database.pages * database.pageSize),
    bytes_stored: manifest.bytesAdded,
  };
}

/**
 * Restores a snapshot of a msgvault repository. Steps: all blobs are read and compared; files are written below a
 * temporary name beside the target, SQLite checks the database; ● the rename. A kill before ● leaves the target as it was.
 */
export async function importMsgvault(
  from: string,
  folder: string,
  options: ImportMsgvaultOptions,
): Promise<ImportMsgvaultResult> {
  const started = performance.now();
  const target = freeFolder(folder);
  using repository = MsgvaultRepository.open(realPathOf(from).toString("utf8"));
  if (isAtOrBelow(target, repository.path))
    throw new CairnError("refused", `${printablePath(target)} lies in the repository, which is only read`, {
      hint: "name a folder outside of the repository",
    });
  const manifest = repository.resolve(options.snapshot ?? "latest");
  const written = await madeFolder(target, {
    mode: 0o700,
    write: async (output) => restoreSnapshot(repository, manifest, output, options),
    beforeCommit: () => failpoint("import-msgvault.staged"),
  });
  failpoint("import-msgvault.renamed");
  return {
    path: target,
    repository_id: repository.config.repositoryId,
    snapshot_id: manifest.id,
    created_at: manifest.createdAt,
    tag: manifest.tag,
    program_version: manifest.program,
    ...written,
    duration_ms: Math.round(performance.now() - started),
  };
}

/** Reads and compares all of a snapshot, writes it into an empty folder, and lets SQLite check the database. */
export async function restoreSnapshot(
  repository: MsgvaultRepository,
  manifest: Manifest,
  output: FolderOutput,
  { signal, onProgress, onWarning }: CallOptions,
): Promise<Pick<ImportMsgvaultResult, "files" | "bytes" | "database">> {
  const tell = throttled(onProgress);
  const during = (phase: "verifying" | "restoring"): SnapshotCall => ({
    signal,
    onBlob: (done, total) => tell({ phase, done, total }),
  });
  const snapshot = await verifiedSnapshot(repository, manifest, during("verifying"));
  const { pages } = snapshot;
  const { database, metadata, program } = manifest;
  let statistics: "equal" | "not_compared" = "not_compared";
  let attachments = usualPlaces(snapshot);
  if (pages === null)
    onWarning?.(
      `the snapshot has a stream of the format ${JSON.stringify(metadata!.format)} instead of a database: ${program || "its program"} can read the file metadata`,
    );
  else {
    const place = join(output.root, DATABASE);
    await writeDatabase(repository, pages, place, { signal });
    failpoint("import-msgvault.database-written");
    const proven = await proveDatabase(place, manifest, signal);
    attachments = placedAttachments(snapshot, proven);
    if (proven.isOwn) statistics = "equal";
    else
      onWarning?.(
        `the database is not one of msgvault, so its statistics were not compared, and attachments without a row in its table ${ATTACHMENTS} are placed by their hashes`,
      );
  }
  const files = [...snapshot.files, ...attachments];
  await writeFiles(repository, files, output, during("restoring"));
  const bytes = files.reduce((sum, { size }) => sum + size, 0);
  if (database === null) return { files: files.length, bytes, database };
  const { pages: count, pageSize: page_size } = database;
  return { files: files.length, bytes: bytes + count * page_size, database: { pages: count, page_size, statistics } };
}

/** Rows with content of their own: a path that is a URL is another program's file. */
const CONTENT = ["content", "storage"] as const;
const THUMBNAIL = ["thumbnail", "thumbnail"] as const;
const rowsOf = ([hash, path]: readonly [string, string], more = ""): string =>
  `SELECT ${hash}_hash${more} FROM attachments WHERE ${hash}_hash <> '' AND ${path}_path <> '' AND ${path}_path NOT LIKE 'http://%' AND ${path}_path NOT LIKE 'https://%'`;
const count = (table: string): string => `SELECT count(*) FROM ${table}`;

/** Statements for msgvault's own statistics, by their names in the manifest. */
const STATISTICS: Readonly<Record<string, string>> = {
  messages: count("messages"),
  conversations: count("conversations"),
  sources: count("sources"),
  accounts: count("account_identities"),
  attachment_rows: count("attachments"),
  attachment_blobs: `SELECT count(*) FROM (${rowsOf(CONTENT)} UNION ${rowsOf(THUMBNAIL)})`,
  labels: count("labels"),
  date_range: "SELECT coalesce(min(sent_at), ''), coalesce(max(sent_at), '') FROM messages",
};
const TABLES = ["messages", "conversations", "sources", "account_identities", "attachments", "labels"];
const SHAPE = [
  "SELECT name FROM sqlite_schema WHERE type = 'table'",
  "SELECT lower(name) FROM pragma_table_info('attachments')",
  "PRAGMA encoding",
];

/**
 * Lets SQLite check a whole database. Returns the places of the attachments that its rows name, and whether msgvault
 * made it: its statistics are then those of the manifest. Throws `damaged` with the field.
 */
async function proveDatabase(
  file: string,
  { statistics, attachments }: Manifest,
  signal: AbortSignal | undefined,
): Promise<PlacesOfRows> {
  const path = Buffer.from(file);
  if (path.length > MOST_PATH_BYTES)
    throw new CairnError("unsupported", `SQLite opens no path of more than ${MOST_PATH_BYTES} bytes`, {
      hint: "name a new folder with a shorter path",
    });
  const sqlite = new DatabaseProcess();
  try {
    const { problems, answers } = await sqlite.do("ask", { path, statements: SHAPE, full: true }, { signal });
    if (problems.length > 0)
      throw damaged(`SQLite finds the restored database damaged: ${problems[0]!}`, { field: "db", problems });
    const [tables = [], columns = [], [encoding] = []] = answers.map((rows) => rows.flat());
    const pairs = [CONTENT, THUMBNAIL].filter(
      ([hash, at]) => columns.includes(`${hash}_hash`) && columns.includes(`${at}_path`),
    );
    const isOwn =
      Object.keys(statistics).toSorted().join() === Object.keys(STATISTICS).toSorted().join() &&
      pairs.length === 2 &&
      TABLES.every((each) => tables.includes(each));
    const own = isOwn ? Object.entries(STATISTICS) : [];
    const placesIn = (pair: (typeof pairs)[number]): string =>
      rowsOf(pair, `, ${storedText(`${pair[1]}_path`, encoding)}`);
    const places = ["SELECT '' AS hash, '' AS path WHERE false", ...pairs.map(placesIn)].join(" UNION ");
    const statements = [places, ...own.map(([, statement]) => statement)];
    const [rows = [], ...found] = (await sqlite.do("ask", { path, statements, full: false }, { signal })).answers;
    for (const [i, [name]] of own.entries()) {
      const row = found[i]![0]!;
      requireEqual(`stats: ${name}`, name === "date_range" ? row.map(String).join() : row[0], String(statistics[name]));
    }
    if (isOwn) {
      requireEqual("attachments: rows", statistics["attachment_rows"], String(attachments.rows));
      requireEqual("attachments: blobs", statistics["attachment_blobs"], String(attachments.blobs));
    }
    const raw = (at: unknown): Buffer => (at instanceof Uint8Array ? Buffer.from(at) : Buffer.from(String(at)));
    return { isOwn, rows: rows.map(([hash, at]) => ({ hash: String(hash), path: raw(at) })) };
  } finally {
    await sqlite.close();
  }
}
