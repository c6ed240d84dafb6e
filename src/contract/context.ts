import { flag, list, number, object, type Of, oneOf, opt, place, rows, text, count } from "./schema.ts";
import { CallOptions } from "./words.ts";
import { arg } from "./verb.ts";

/** Verbs of context stores, and of bundles that go in and out of them. */

export const store = () => arg("store", place("a context store, or a folder in one"));
export const at = () => arg("uri", text("viking://SCOPE/…"));
export const contextErrors = ["not_found", "usage", "busy", "unsupported"] as const;

export const EmbeddingProvider = oneOf(
  ["embedded", "openai", "none"],
  "`embedded`: the model of the package cairnstate-model; `openai`: an endpoint that speaks as OpenAI's does; `none`: search by words alone",
);
export type EmbeddingProvider = Of<typeof EmbeddingProvider>;

export const InitContextOptions = object({
  ...CallOptions.entries,
  embedding: opt(EmbeddingProvider),
  model: opt(text("of an endpoint")),
  baseUrl: opt(text("of an endpoint, up to and with `/v1`; its key is read from CAIRN_EMBEDDING_KEY")),
  dimensions: opt(count("length of an endpoint's vectors; asked of it unless told")),
});
export type InitContextOptions = Of<typeof InitContextOptions>;
export const ContextInfo = object({
  path: text("absolute"),
  embedding: EmbeddingProvider,
  model: text(),
  dimensions: number("0 without vectors"),
});
export type ContextInfo = Of<typeof ContextInfo>;

const indexed = { indexed: number("records whose file was read"), vectors: number("vectors that were made") };

export const AddToContextOptions = object({
  ...CallOptions.entries,
  overwrite: opt(flag("put it in the place of what is there")),
  abstract: opt(text("short text of a folder, its level 0")),
});
export type AddToContextOptions = Of<typeof AddToContextOptions>;
export const AddToContextResult = object({
  uri: text(),
  files: number(),
  directories: number(),
  bytes: number(),
  left_out: rows(
    object({
      path: text("below the folder"),
      reason: oneOf(
        ["rule", "special"],
        "`rule`: version control, `node_modules`, a file with credentials by its name, or a line of a `.cairnignore` file; `special`: a link, pipe, socket or device",
      ),
    }),
    "entries of the folder that were not added, with all below them; a special one: exit 10",
  ),
  ...indexed,
});
export type AddToContextResult = Of<typeof AddToContextResult>;

export const ListContextOptions = object({
  ...CallOptions.entries,
  recursive: opt(flag("what lies further below too")),
  all: opt(flag("hidden files too: abstracts and overviews")),
});
export type ListContextOptions = Of<typeof ListContextOptions>;
export const ContextEntry = object({
  uri: text(),
  kind: oneOf(["file", "directory"]),
  size: number(),
  abstract: text("empty where there is none"),
});
export type ContextEntry = Of<typeof ContextEntry>;
export const ListContextResult = object({ entries: rows(ContextEntry) });
export type ListContextResult = Of<typeof ListContextResult>;

export const ReadContextOptions = object({
  ...CallOptions.entries,
  level: opt(count("of a directory: 0 its abstract, 1 its overview")),
});
export type ReadContextOptions = Of<typeof ReadContextOptions>;
export const ReadContextResult = object({
  uri: text(),
  bytes: number(),
  content: text("as UTF-8"),
  content_b64: opt(text("the exact bytes in base64, where they are not UTF-8")),
});
export type ReadContextResult = Of<typeof ReadContextResult>;

export const FindInContextOptions = object({
  ...CallOptions.entries,
  under: opt(text("only at or below this place")),
  limit: opt(count("most that are given; 10 unless told")),
  mode: opt(oneOf(["both", "semantic", "words"], "how it looks")),
});
export type FindInContextOptions = Of<typeof FindInContextOptions>;
export const ContextHit = object({
  uri: text(),
  level: number("0 an abstract, 1 an overview, 2 a file"),
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

const under = { under: opt(text("only at or below this place")) };
export const ReindexContextOptions = object({
  ...CallOptions.entries,
  ...under,
  all: opt(flag("read every file again, changed or not")),
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
  expected: number("records that the files ask for"),
  indexed: number("records that there are"),
  missing_records: rows(ContextDifference, "files without a record"),
  missing_files: rows(ContextDifference, "records without a file"),
  stale: rows(ContextDifference, "files that changed since they were indexed"),
  missing_vectors: rows(ContextDifference),
});
export type CheckContextResult = Of<typeof CheckContextResult>;

const Layout = oneOf(["A", "B", "C"], "how the bundle is laid out; `C`, and `B` for what lies in `agent` or `session`");
export const ExportBundleOptions = object({
  ...CallOptions.entries,
  layout: opt(Layout),
  includeVectors: opt(flag("pack the vectors too")),
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
    oneOf(["fail", "overwrite", "skip"], "what is done where something is there already; `fail` unless told"),
  ),
  vectorMode: opt(
    oneOf(
      ["auto", "recompute", "require"],
      "`auto`: the bundle's vectors where they fit; `recompute`: made anew; `require`: the bundle's or none",
    ),
  ),
  paths: opt(list(text(), "only these paths of the bundle, and what lies below them")),
  dryRun: opt(flag("check all of it, and say what would be done")),
};
export const ImportBundleOptions = object({ ...CallOptions.entries, ...bringing });
export type ImportBundleOptions = Of<typeof ImportBundleOptions>;
export const ImportBundleResult = object({
  uri: text("where it lies now"),
  skipped: flag("something was there, and it was left"),
  dry_run: flag(),
  files: number(),
  directories: number(),
  bytes: number(),
  vectors_from: oneOf(["bundle", "model", "none"]),
  replaced: rows(text(), "places that were there"),
  is_merged: flag("they were written into, and what the bundle does not have stays; else they went whole"),
  ...indexed,
});
export type ImportBundleResult = Of<typeof ImportBundleResult>;
export const importErrors = [...contextErrors, "already_exists", "damaged", "newer_version"] as const;
export const RestoreContextOptions = object({
  ...CallOptions.entries,
  ...bringing,
  exact: opt(flag("what only the store has goes; else it stays")),
});
export type RestoreContextOptions = Of<typeof RestoreContextOptions>;
