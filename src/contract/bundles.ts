import { flag, list, number, object, type Of, oneOf, opt, place, rows, text } from "./schema.ts";
import { arg, verb } from "./verb.ts";
import { CallOptions } from "./words.ts";

/** Verbs of bundles as files: no store is needed. */

const bundle = () => arg("path", place("a bundle"));
const errors = ["damaged", "newer_version", "not_found", "unsupported"] as const;

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
export const inspectBundle = verb({
  about:
    "Lists the content of a bundle from its manifest, and compares the manifest with the zip's directory. File contents are not read.",
  takes: [bundle()],
  options: CallOptions,
  output: BundleInfo,
  errors,
});

const facts = {
  layout: oneOf(["A", "B", "C"]),
  content_sha256: text(),
  files: number(),
  bytes: number(),
  index_records: number(),
};

export const VerifyBundleFileResult = object({ ...facts, duration_ms: number() });
export type VerifyBundleFileResult = Of<typeof VerifyBundleFileResult>;
export const verifyBundle = verb({
  about: "Reads every file in a bundle and compares it with the manifest.",
  takes: [bundle()],
  options: CallOptions,
  output: VerifyBundleFileResult,
  errors,
});

export const DiffBundleFilesResult = object({ added: rows(text()), removed: rows(text()), changed: rows(text()) });
export type DiffBundleFilesResult = Of<typeof DiffBundleFilesResult>;
export const diffBundles = verb({
  about: "Compares two bundles by their manifests.",
  takes: [arg("a", place("a bundle")), arg("b", place("a bundle"))],
  options: CallOptions,
  output: DiffBundleFilesResult,
  errors,
});

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
export const extractBundle = verb({
  about: "Checks a bundle and extracts it into an absent or empty folder: completely or not at all.",
  takes: [bundle(), arg("to", place("the folder"))],
  options: ExtractBundleOptions,
  output: ExtractBundleResult,
  errors: [...errors, "already_exists"],
});

export const ConvertBundleOptions = object({
  ...CallOptions.entries,
  layout: opt(oneOf(["A", "B", "C"], "layout of the new bundle; default `C`")),
  withoutVectors: opt(flag("leave out the vectors; needed for layout A, which cannot hold any")),
  leaveOut: opt(list(text(), "leave out these paths of the bundle, and everything below them")),
  sessionsTo: opt(text("move sessions to this user: `viking://session/ID` becomes `viking://user/USER/sessions/ID`")),
});
export type ConvertBundleOptions = Of<typeof ConvertBundleOptions>;
export const ConvertBundleResult = object({ path: text("absolute"), ...facts });
export type ConvertBundleResult = Of<typeof ConvertBundleResult>;
export const convertBundle = verb({
  about: "Checks a bundle and writes its content as a new bundle in another layout.",
  takes: [bundle(), arg("to", place("the new file, which must not exist"))],
  options: ConvertBundleOptions,
  output: ConvertBundleResult,
  errors: [...errors, "already_exists"],
});

/** The `data` of the commands. */
export const BUNDLE_DATA = {
  "bundle inspect": BundleInfo,
  "bundle verify": VerifyBundleFileResult,
  "bundle diff": DiffBundleFilesResult,
  "bundle extract": ExtractBundleResult,
  "bundle convert": ConvertBundleResult,
};
