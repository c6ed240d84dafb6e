import { flag, list, number, object, type Of, oneOf, opt, place, rows, text } from "./schema.ts";
import { CallOptions } from "./words.ts";
import { arg } from "./verb.ts";

/** Verbs of bundles as files: no store is needed. */

export const bundle = () => arg("path", place("a bundle"));
export const bundleErrors = ["damaged", "newer_version", "not_found", "unsupported"] as const;

export const BundleInfo = object({
  layout: oneOf(["A", "B", "C"], "how the zip is laid out, by where its manifest lies"),
  name: text("of the root"),
  uri: text(),
  scope: text(),
  scopes: rows(text(), "of a backup"),
  content_sha256: text("64 hex digits"),
  files: number(),
  directories: number("the root too"),
  bytes: number("sum of the files' sizes"),
  index_records: number("0 for layout A"),
  has_vectors: flag(),
  entries: rows(object({ path: text(), kind: oneOf(["file", "directory"]), size: number() }), "by path"),
});
export type BundleInfo = Of<typeof BundleInfo>;

const facts = {
  layout: oneOf(["A", "B", "C"]),
  content_sha256: text(),
  files: number(),
  bytes: number(),
  index_records: number(),
};

export const VerifyBundleFileResult = object({ ...facts, duration_ms: number() });
export type VerifyBundleFileResult = Of<typeof VerifyBundleFileResult>;

export const DiffBundleFilesResult = object({ added: rows(text()), removed: rows(text()), changed: rows(text()) });
export type DiffBundleFilesResult = Of<typeof DiffBundleFilesResult>;

export const ExtractBundleOptions = object({
  ...CallOptions.entries,
  paths: opt(list(text(), "only these paths of the bundle, and what lies below them")),
});
export type ExtractBundleOptions = Of<typeof ExtractBundleOptions>;
export const ExtractBundleResult = object({
  path: text("absolute"),
  files: number(),
  directories: number(),
  bytes: number(),
});
export type ExtractBundleResult = Of<typeof ExtractBundleResult>;

export const ConvertBundleOptions = object({
  ...CallOptions.entries,
  layout: opt(oneOf(["A", "B", "C"], "how it is laid out; `C` unless told")),
  withoutVectors: opt(flag("leave vectors out, which layout A cannot have")),
  leaveOut: opt(list(text(), "paths of the bundle that the new one is not to have, with all below them")),
  sessionsTo: opt(text("a user: `viking://session/ID` becomes `viking://user/USER/sessions/ID`")),
});
export type ConvertBundleOptions = Of<typeof ConvertBundleOptions>;
export const ConvertBundleResult = object({ path: text("absolute"), ...facts });
export type ConvertBundleResult = Of<typeof ConvertBundleResult>;
