/** Verbs of bundles, which are files by themselves. */
export { inspectBundle } from "./inspect-bundle.ts";
export { verifyBundle } from "./verify-bundle.ts";
export { diffBundles } from "./diff-bundles.ts";
export { extractBundle } from "./extract-bundle.ts";
export { convertBundle } from "./convert-bundle.ts";
