import { resolve } from "node:path";
import { EMBEDDED, ContextStore } from "../../context/store.ts";
import { addFiles, listFiles, readFiles, removeFiles } from "../../context/files.ts";
import { checkConsistency, reindex } from "../../context/consistency.ts";
import { findModel, MODEL_WARNING, modelMissing, openEmbedder } from "../../context/open-embedder.ts";
import { find } from "../../context/search.ts";
import { parseUri, toUri } from "../../context/uri.ts";
import type {
  AddToContextOptions,
  AddToContextResult,
  CheckContextOptions,
  CheckContextResult,
  ContextInfo,
  FindInContextOptions,
  FindInContextResult,
  InitContextOptions,
  ListContextOptions,
  ListContextResult,
  ReadContextOptions,
  ReadContextResult,
  ReindexContextOptions,
  ReindexContextResult,
  RemoveFromContextResult,
} from "../../contract/context.ts";
import type { CallOptions } from "../../contract/words.ts";
import { advice, CairnError, option } from "../../errors.ts";
import type { EmbeddingConfig } from "../../context/embedding.ts";

export async function initContext(folder: string, options: InitContextOptions): Promise<ContextInfo> {
  await using store = await ContextStore.init(folder, await configOf(options));
  warnOfModel(store, options);
  const { provider, model, dimensions } = store.embedding;
  return { path: store.folder, embedding: provider, model, dimensions };
}

async function configOf({
  embedding,
  model,
  baseUrl,
  dimensions,
  signal,
}: InitContextOptions): Promise<EmbeddingConfig> {
  const isTold = model !== undefined || baseUrl !== undefined || dimensions !== undefined;
  if (embedding !== "openai" && isTold)
    throw new CairnError("usage", "a model, address or vector length can only be given for an endpoint", {
      hint: advice`choose an endpoint: ${option({ embedding: "openai" })}`,
    });
  if (embedding === "none") return { provider: "none", model: "", dimensions: 0 };
  if (embedding === "embedded" && findModel() === null) throw modelMissing("a store of the embedded model");
  // Without a chosen model a store is searched by words until the model's package is installed.
  if (embedding !== "openai") return EMBEDDED;
  if (model === undefined)
    throw new CairnError("usage", "an endpoint needs the name of a model", {
      hint: advice`for example ${option({ model: "text-embedding-3-small" })}`,
    });
  const config: EmbeddingConfig = {
    provider: "openai",
    model,
    dimensions: dimensions ?? 0,
    ...(baseUrl === undefined ? {} : { base_url: baseUrl }),
  };
  if (dimensions !== undefined) return config;
  await using embedder = (await openEmbedder(config))!;
  const [vector] = await embedder.embed(["how long is a vector"], signal);
  return { ...config, dimensions: vector!.length };
}

function warnOfModel({ lacksModel }: ContextStore, { onWarning }: CallOptions): void {
  if (lacksModel) onWarning?.(MODEL_WARNING);
}

/** Adds changed files to the index. Warns if the store lacks its model. */
export async function fillIndex(
  store: ContextStore,
  options: CallOptions,
): Promise<{ indexed: number; vectors: number }> {
  const { signal, onProgress } = options;
  warnOfModel(store, options);
  const told = (done: number): void => onProgress?.({ phase: "indexing", done });
  return await store.fill({ signal, onProgress: told });
}

export async function addToContext(
  place: string,
  uri: string,
  from: string,
  options: AddToContextOptions,
): Promise<AddToContextResult> {
  const { overwrite, abstract, signal } = options;
  await using store = await ContextStore.open(place, options.lockTimeoutMs);
  const added = await addFiles(store, uri, { from: resolve(from), overwrite, abstract, signal });
  return { ...added, ...(await fillIndex(store, options)) };
}

export async function listContext(
  place: string,
  uri: string,
  { recursive, all, signal, lockTimeoutMs }: ListContextOptions,
): Promise<ListContextResult> {
  await using store = await ContextStore.open(place, lockTimeoutMs);
  await store.fillLeft({ signal });
  return { entries: listFiles(store, uri, { recursive, all }) };
}

export async function readContext(
  place: string,
  uri: string,
  { level, lockTimeoutMs }: ReadContextOptions,
): Promise<ReadContextResult> {
  await using store = await ContextStore.open(place, lockTimeoutMs);
  const bytes = readFiles(store, uri, { level });
  const content = bytes.toString("utf8");
  const isText = Buffer.from(content, "utf8").equals(bytes);
  return {
    uri: toUri(parseUri(uri)),
    bytes: bytes.length,
    content,
    ...(isText ? {} : { content_b64: bytes.toString("base64") }),
  };
}

export async function findInContext(
  place: string,
  query: string,
  options: FindInContextOptions,
): Promise<FindInContextResult> {
  const { under, limit, mode, signal } = options;
  await using store = await ContextStore.open(place, options.lockTimeoutMs);
  await store.fillLeft({ signal });
  if (mode !== "words") warnOfModel(store, options);
  return { hits: await find(store, query, { under, limit, mode, signal }) };
}

export async function removeFromContext(
  place: string,
  uri: string,
  { signal, lockTimeoutMs }: CallOptions,
): Promise<RemoveFromContextResult> {
  await using store = await ContextStore.open(place, lockTimeoutMs);
  return await removeFiles(store, uri, { signal });
}

export async function reindexContext(place: string, options: ReindexContextOptions): Promise<ReindexContextResult> {
  const { under = "viking://", all = false, signal } = options;
  const path = parseUri(under);
  await using store = await ContextStore.open(place, options.lockTimeoutMs);
  const changed = await store.writing(async () => reindex(store, path, { all }), { signal });
  return { ...changed, ...(await fillIndex(store, options)) };
}

export async function checkContext(place: string, options: CheckContextOptions): Promise<CheckContextResult> {
  const { under = "viking://", signal } = options;
  const path = parseUri(under);
  await using store = await ContextStore.open(place, options.lockTimeoutMs);
  await store.fillLeft({ signal });
  warnOfModel(store, options);
  return checkConsistency(store, path);
}
