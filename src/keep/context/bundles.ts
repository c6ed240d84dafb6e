import { resolve } from "node:path";
import { Bundle } from "../../bundle/bundle.ts";
import { backupStore, exportBundle as exportSubtree } from "../../context/export-bundle.ts";
import {
  type Imported,
  importBundle as importSubtree,
  type ImportOptions,
  restoreBackup,
} from "../../context/import-bundle.ts";
import { ContextStore } from "../../context/store.ts";
import { parseUri, toUri } from "../../context/uri.ts";
import type {
  ExportBundleOptions,
  ExportBundleResult,
  ImportBundleOptions,
  ImportBundleResult,
  RestoreContextOptions,
} from "../../contract/context.ts";
import { throttled } from "../../pacer.ts";
import { fillIndex } from "./stores.ts";

export async function exportBundle(
  place: string,
  uri: string,
  to: string,
  options: ExportBundleOptions,
): Promise<ExportBundleResult> {
  return await packed(place, to, { ...options, uri });
}

export async function backupContext(
  place: string,
  to: string,
  options: ExportBundleOptions,
): Promise<ExportBundleResult> {
  return await packed(place, to, options);
}

async function packed(
  place: string,
  to: string,
  options: ExportBundleOptions & { uri?: string },
): Promise<ExportBundleResult> {
  const { uri, layout, includeVectors, signal, onProgress } = options;
  let done = 0;
  const tell = throttled(onProgress);
  const onBytes = (bytes: number): void => tell({ phase: "storing", done: ++done, bytes });
  await using store = await ContextStore.open(place, options.lockTimeoutMs);
  const target = resolve(to);
  const wanted = { to: target, layout, includeVectors, signal, onBytes };
  const { records, ...facts } =
    uri === undefined ? await backupStore(store, wanted) : await exportSubtree(store, { ...wanted, uri });
  return { path: target, uri: toUri(uri === undefined ? "" : parseUri(uri)), ...facts, index_records: records };
}

export async function importBundle(
  place: string,
  path: string,
  parent: string,
  options: ImportBundleOptions,
): Promise<ImportBundleResult> {
  return await brought(place, path, options, async (store, bundle, wanted) =>
    importSubtree(store, bundle, { ...wanted, parent }),
  );
}

export async function restoreContext(
  place: string,
  path: string,
  options: RestoreContextOptions,
): Promise<ImportBundleResult> {
  const { exact } = options;
  return await brought(place, path, options, async (store, bundle, wanted) =>
    restoreBackup(store, bundle, { ...wanted, exact }),
  );
}

async function brought(
  place: string,
  path: string,
  options: ImportBundleOptions,
  bring: (store: ContextStore, bundle: Bundle, wanted: ImportOptions) => Promise<Imported>,
): Promise<ImportBundleResult> {
  const { onConflict, vectorMode, paths, dryRun = false, signal, onProgress } = options;
  let done = 0;
  const tell = throttled(onProgress);
  const onBytes = (bytes: number): void => tell({ phase: "verifying", done: ++done, bytes });
  await using store = await ContextStore.open(place, options.lockTimeoutMs);
  await using bundle = await Bundle.open(path);
  const { vectors: from, ...imported } = await bring(store, bundle, {
    onConflict,
    vectorMode,
    paths,
    dryRun,
    signal,
    onBytes,
  });
  const isDone = dryRun || imported.skipped;
  const made = isDone ? { indexed: 0, vectors: 0 } : await fillIndex(store, options);
  return { ...imported, dry_run: dryRun, vectors_from: from, ...made };
}
