import { flag, list, number, object, type Of, oneOf, opt, place, rows, text, count } from "./schema.ts";
import { CallOptions } from "./words.ts";
import { arg } from "./verb.ts";

/** Verbs of context stores, and of bundles that are imported into them or exported. */

export const store = () => arg("store", place("a context store, or a folder in one"));
export const at = () => arg("uri", text("viking://SCOPE/…"));
export const contextErrors = ["not_found", "usage", "busy", "unsupported"] as const;

export const EmbeddingProvider = oneOf(
  ["embedded", "openai", "none"],
  "`embedded` (default): the English model of the package cairnstate-model; `openai`: an endpoint with OpenAI's API; `none`: no vectors, search by words only",
);
export type EmbeddingProvider = Of<typeof EmbeddingProvider>;

export const InitContextOptions = object({
  ...CallOptions.entries,
  embedding: opt(EmbeddingProvider, "--embedding <provider>"),
  model: opt(text("model name at the endpoint"), "--model <name>"),
  baseUrl: opt(
    text("the endpoint's URL, up to and including `/v1`; its key is read from CAIRN_EMBEDDING_KEY"),
    "--base-url <url>",
  ),
  dimensions: opt(count("length of the endpoint's vectors; default: ask the endpoint")),
});
export type InitContextOptions = Of<typeof InitContextOptions>;
export const ContextInfo = object({
  path: text("absolute"),
  embedding: EmbeddingProvider,
  model: text(),
  dimensions: number("0 without vectors"),
});
export type ContextInfo = Of<typeof ContextInfo>;

const indexed = {
  indexed: number("records that were written from their file"),
  vectors: number("vectors that were computed"),
};

export const AddToContextOptions = object({
  ...CallOptions.entries,
  overwrite: opt(flag("replace an existing file or folder")),
  abstract: opt(text("short text about the folder (its level 0)")),
});
export type AddToContextOptions = Of<typeof AddToContextOptions>;
export const AddToContextResult = object({
  uri: text(),
  files: number(),
  directories: number(),
  bytes: number(),
  left_out: rows(
    object({
      path: text("relative to the folder"),
      reason: oneOf(
        ["rule", "special"],
        "`rule`: version control, `node_modules`, a file whose name suggests credentials, or a line of a `.cairnignore` file; `special`: a link, pipe, socket or device",
      ),
    }),
    "entries of the folder that were not added, with everything below them; exit 10 if one is `special`",
  ),
  ...indexed,
});
export type AddToContextResult = Of<typeof AddToContextResult>;

export const ListContextOptions = object({
  ...CallOptions.entries,
  recursive: opt(flag("list subfolders too"), "-r, --recursive"),
  all: opt(flag("list hidden files too: abstracts and overviews"), "-a, --all"),
});
export type ListContextOptions = Of<typeof ListContextOptions>;
export const ContextEntry = object({
  uri: text(),
  kind: oneOf(["file", "directory"]),
  size: number(),
  abstract: text("empty if there is none"),
});
export type ContextEntry = Of<typeof ContextEntry>;
export const ListContextResult = object({ entries: rows(ContextEntry) });
export type ListContextResult = Of<typeof ListContextResult>;

export const ReadContextOptions = object({
  ...CallOptions.entries,
  level: opt(count("for a directory: 0 reads its abstract, 1 its overview")),
});
export type ReadContextOptions = Of<typeof ReadContextOptions>;
export const ReadContextResult = object({
  uri: text(),
  bytes: number(),
  content: text("as UTF-8"),
  content_b64: opt(text("the exact bytes in base64, if they are not UTF-8")),
});
export type ReadContextResult = Of<typeof ReadContextResult>;

const under = { under: opt(text("only at or below this URI")) };
export const FindInContextOptions = object({
  ...CallOptions.entries,
  ...under,
  limit: opt(count("at most this many results; default 10"), "-n, --limit <count>"),
  mode: opt(
    oneOf(["both", "semantic", "words"], "search by meaning (`semantic`), by words (`words`), or `both` (default)"),
  ),
});
export type FindInContextOptions = Of<typeof FindInContextOptions>;
export const ContextHit = object({
  uri: text(),
  level: number("0: abstract, 1: overview, 2: file"),
  context_type: text(),
  name: text(),
  abstract: text(),
  score: number("higher is better; comparable within one answer"),
});
export type ContextHit = Of<typeof ContextHit>;
export const FindInContextResult = object({ hits: rows(ContextHit, "best first") });
export type FindInContextResult = Of<typeof FindInContextResult>;

export const RemoveFromContextResult = object({ uri: text(), files: number() });
export type RemoveFromContextResult = Of<typeof RemoveFromContextResult>;

export const ReindexContextOptions = object({
  ...CallOptions.entries,
  ...under,
  all: opt(flag("read every file again, even if unchanged")),
});
export type ReindexContextOptions = Of<typeof ReindexContextOptions>;
export const ReindexContextResult = object({
  added: number("records that were missing"),
  removed: number("records without a file"),
  changed: number("records whose file changed"),
  ...indexed,
});
export type ReindexContextResult = Of<typeof ReindexContextResult>;

const ContextDifference = object({ uri: text(), level: number() });
export const CheckContextOptions = object({ ...CallOptions.entries, ...under });
export type CheckContextOptions = Of<typeof CheckContextOptions>;
export const CheckContextResult = object({
  ok: flag(),
  expected: number("records that the files should have"),
  indexed: number("records that exist"),
  missing_records: rows(ContextDifference, "files without a record"),
  missing_files: rows(ContextDifference, "records without a file"),
  stale: rows(ContextDifference, "files that changed since they were indexed"),
  missing_vectors: rows(ContextDifference),
});
export type CheckContextResult = Of<typeof CheckContextResult>;

const Layout = oneOf(
  ["A", "B", "C"],
  "layout of the bundle: `A`, `B` or `C`; default `C`, or `B` for content of `agent` or `session`",
);
export const ExportBundleOptions = object({
  ...CallOptions.entries,
  layout: opt(Layout, "--layout <name>"),
  includeVectors: opt(flag("include the vectors, for a store with the same embedding model"), {
    flags: "--vectors <how>",
    text: "`include`: pack the vectors too, for a store with the same embedding model",
    values: ["include"],
  }),
});
export type ExportBundleOptions = Of<typeof ExportBundleOptions>;
export const ExportBundleResult = object({
  path: text("absolute"),
  uri: text(),
  content_sha256: text(),
  files: number(),
  bytes: number(),
  index_records: number(),
});
export type ExportBundleResult = Of<typeof ExportBundleResult>;
export const exportErrors = [...contextErrors, "already_exists"] as const;

const bringing = {
  onConflict: opt(
    oneOf(["fail", "overwrite", "skip"], "if the content exists already: `fail` (default), `overwrite` or `skip`"),
  ),
  vectorMode: opt(
    oneOf(
      ["auto", "recompute", "require"],
      "`auto` (default): use the bundle's vectors if they fit the store's model; `recompute`: compute them again; `require`: fail unless the bundle's vectors fit",
    ),
    "--vectors <how>",
  ),
  paths: opt(list(text(), "only these paths of the bundle, and everything below them"), "--path <path>"),
  dryRun: opt(flag("check the whole bundle, and report what would be done"), "--plan"),
};
export const ImportBundleOptions = object({ ...CallOptions.entries, ...bringing });
export type ImportBundleOptions = Of<typeof ImportBundleOptions>;
export const ImportBundleResult = object({
  uri: text("where the content is now"),
  skipped: flag("true: content existed already and was left unchanged"),
  dry_run: flag(),
  files: number(),
  directories: number(),
  bytes: number(),
  vectors_from: oneOf(["bundle", "model", "none"]),
  replaced: rows(text(), "URIs whose former content was replaced"),
  is_merged: flag(
    "true: the bundle was merged into existing content, and files that are not in the bundle stay; false: existing content was removed first",
  ),
  ...indexed,
});
export type ImportBundleResult = Of<typeof ImportBundleResult>;
export const importErrors = [...contextErrors, "already_exists", "damaged", "newer_version"] as const;
export const RestoreContextOptions = object({
  ...CallOptions.entries,
  ...bringing,
  exact: opt(flag("remove content that the backup does not have; default: keep it")),
});
export type RestoreContextOptions = Of<typeof RestoreContextOptions>;
