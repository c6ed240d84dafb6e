import { flag, list, number, object, type Of, oneOf, opt, place, rows, text } from "./schema.ts";
import { CallOptions } from "./words.ts";
import { arg } from "./verb.ts";

/** Verbs of bundles as files, without a store. */

export const bundle = () => arg("path", place("a bundle"));
export const bundleErrors = ["damaged", "newer_version", "not_found", "unsupported"] as const;

export const BundleInfo = object({
  layout: oneOf(["A", "B", "C"], "layout of the zip, told by the place of its manifest"),
  name: text("name of the root"),
  uri: text(),
  scope: text(),
  scopes: rows(text(), "the scopes of a backup"),
  content_sha256: text("64 hex digits"),
  files: number(),
  directories: number("including the root"),
  bytes: number("total size of the files"),
  index_records: number("0 for layout A"),
  has_vectors: flag(),
  entries: rows(object({ path: text(), kind: oneOf(["file", "directory"]), size: number() }), "sorted by path"),
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
  paths: opt(list(text(), "only these paths of the bundle, and everything below them")),
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
  layout: opt(oneOf(["A", "B", "C"], "layout of the new bundle: `A`, `B` or `C` (default)"), "--layout <name>"),
  withoutVectors: opt(flag("leave out the vectors; needed for layout A, which cannot hold any"), {
    flags: "--vectors <how>",
    text: "`drop`: leave out the vectors; needed for layout A, which cannot hold any",
    values: ["drop"],
  }),
  leaveOut: opt(list(text(), "leave out these paths of the bundle, and everything below them"), "--exclude <path>"),
  sessionsTo: opt(
    text("move sessions to this user: `viking://session/ID` becomes `viking://user/USER/sessions/ID`"),
    "--sessions-to <user>",
  ),
});
export type ConvertBundleOptions = Of<typeof ConvertBundleOptions>;
export const ConvertBundleResult = object({ path: text("absolute"), ...facts });
export type ConvertBundleResult = Of<typeof ConvertBundleResult>;
