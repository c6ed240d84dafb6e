import { workerData } from "node:worker_threads";
import { Bundle } from "../../bundle/bundle.ts";
import { checkConsistency, type Difference } from "../../context/consistency.ts";
import { backupStore, exportBundle, type ExportOptions } from "../../context/export-bundle.ts";
import { importBundle, type ImportOptions, restoreBackup } from "../../context/import-bundle.ts";
import { ContextStore } from "../../context/store.ts";
import { entryAt } from "../../context/tree.ts";
import { joined, noSuch, parseUri, toUri } from "../../context/uri.ts";
import { CairnError } from "../../errors.ts";
import { answerCalls } from "../../threads/calls.ts";

// Indexing, unpacking and packing run synchronously for seconds. In this thread they delay no request.

export interface StorePlace {
  folder: string;
  lockMs: number;
}

let opened: Promise<ContextStore> | undefined;

async function store(): Promise<ContextStore> {
  const { folder, lockMs } = workerData as StorePlace;
  opened ??= ContextStore.open(folder, lockMs);
  return await opened;
}

const FUNCTIONS = {
  /** Packs the subtree of `uri`; without `uri` the whole store. */
  async pack({ uri, ...options }: ExportOptions & { uri?: string }, signal: AbortSignal): Promise<void> {
    const wanted = { ...options, signal };
    if (uri === undefined) await backupStore(await store(), wanted);
    else await exportBundle(await store(), { ...wanted, uri });
  },

  /** Imports the bundle at `path` below `parent`; without `parent` restores it as a backup. */
  async bring(
    { path, parent, ...options }: ImportOptions & { path: string; parent?: string },
    signal: AbortSignal,
  ): Promise<{ uri: string }> {
    const wanted = { ...options, signal };
    await using bundle = await Bundle.open(path);
    const { uri } =
      parent === undefined
        ? await restoreBackup(await store(), bundle, wanted)
        : await importBundle(await store(), bundle, { ...wanted, parent });
    return { uri };
  },

  async fill(_: null, signal: AbortSignal): Promise<{ indexed: number }> {
    return await (await store()).fill({ signal });
  },

  async consistency(uri: string): Promise<object> {
    return consistencyOf(await store(), uri);
  },

  async close(): Promise<void> {
    await (await opened)?.[Symbol.asyncDispose]();
  },
};
export type ContextFunctions = typeof FUNCTIONS;

const MOST_LISTED = 20;

function consistencyOf(store: ContextStore, uri: string): object {
  const root = parseUri(uri);
  const entry = root === "" ? null : entryAt(store.folder, root);
  if (root !== "" && entry === null) throw noSuch(root);
  if (entry?.isDirectory === false)
    throw new CairnError("usage", `${toUri(root)} is a file`, { details: { resource: toUri(root) } });
  const { ok: isWhole, expected, ...lists } = checkConsistency(store, root);
  const missing = [...lists.missing_records, ...lists.missing_vectors];
  return {
    ok: isWhole,
    expected_count: expected,
    missing_record_count: missing.length,
    missing_records: missing.slice(0, MOST_LISTED).map((each) => named(each, root)),
    missing_records_truncated: missing.length > MOST_LISTED,
    missing_file_count: lists.missing_files.length,
    missing_files: lists.missing_files.slice(0, MOST_LISTED).map((each) => named(each, root)),
    stale_count: lists.stale.length,
    stale: lists.stale.slice(0, MOST_LISTED).map((each) => named(each, root)),
  };
}

function named({ uri, level }: Difference, root: string): Record<string, unknown> {
  const whole = parseUri(uri);
  const path = whole === root ? "" : root === "" ? whole : whole.slice(root.length + 1);
  return { uri: toUri(joined(root, path)), path, level, key: `${path === "" ? "." : path}#level=${level}` };
}

answerCalls(FUNCTIONS);
