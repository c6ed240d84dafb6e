import { resolve } from "node:path";
import { Bundle } from "../../bundle/bundle.ts";
import { convertBundle as convert } from "../../bundle/convert.ts";
import { diffBundles as difference, extractBundle as extract } from "../../bundle/extract.ts";
import type {
  BundleInfo,
  ConvertBundleOptions,
  ConvertBundleResult,
  DiffBundleFilesResult,
  ExtractBundleOptions,
  ExtractBundleResult,
  VerifyBundleFileResult,
} from "../../contract/bundles.ts";
import type { CallOptions } from "../../contract/words.ts";
import { throttled } from "../../pacer.ts";
import { byCodePoint } from "../../formats/ovpack/manifest.ts";

export async function inspectBundle(path: string): Promise<BundleInfo> {
  await using bundle = await Bundle.open(path);
  const { layout, root, scopes, files, directories, content_sha256, records, dense } = bundle.manifest;
  const entries = [...directories.map((each) => ({ ...each, size: 0 })), ...files].map(({ path: at, kind, size }) => ({
    path: at,
    kind,
    size,
  }));
  return {
    layout,
    name: root.name,
    uri: root.uri,
    scope: root.scope,
    scopes,
    content_sha256,
    files: files.length,
    directories: directories.length,
    bytes: files.reduce((sum, { size }) => sum + size, 0),
    index_records: records?.count ?? 0,
    has_vectors: dense !== null,
    entries: entries.toSorted((a, b) => byCodePoint(a.path, b.path)),
  };
}

export async function verifyBundle(path: string, { signal, onProgress }: CallOptions): Promise<VerifyBundleFileResult> {
  const started = performance.now();
  await using bundle = await Bundle.open(path);
  const { layout, content_sha256, files: listed } = bundle.manifest;
  let done = 0;
  const tell = throttled(onProgress);
  const onBytes = (bytes: number): void => tell({ phase: "verifying", done: ++done, total: listed.length, bytes });
  const { files, bytes, records } = await bundle.verify({ signal, onBytes });
  return {
    layout,
    content_sha256,
    files,
    bytes,
    index_records: records,
    duration_ms: Math.round(performance.now() - started),
  };
}

export async function diffBundles(a: string, b: string): Promise<DiffBundleFilesResult> {
  await using one = await Bundle.open(a);
  await using other = await Bundle.open(b);
  return difference(one, other);
}

export async function extractBundle(
  path: string,
  to: string,
  options: ExtractBundleOptions,
): Promise<ExtractBundleResult> {
  await using bundle = await Bundle.open(path);
  const { signal, paths } = options;
  return { path: resolve(to), ...(await extract(bundle, { to, paths, signal })) };
}

export async function convertBundle(
  path: string,
  to: string,
  { layout = "C", withoutVectors, leaveOut, sessionsTo, signal }: ConvertBundleOptions,
): Promise<ConvertBundleResult> {
  await using bundle = await Bundle.open(path);
  const target = resolve(to);
  const { records, ...facts } = await convert(bundle, {
    to: target,
    layout,
    withoutVectors,
    leaveOut,
    sessionsTo,
    signal,
  });
  return { path: target, layout, ...facts, index_records: records };
}
