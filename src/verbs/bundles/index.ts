/** Verbs of bundles, which are files by themselves. */
export { convertBundle } from "./convert-bundle.ts";
export { diffBundles } from "./diff-bundles.ts";
export { extractBundle } from "./extract-bundle.ts";
export { importMsgvault, listMsgvault } from "./import-msgvault.ts";
export { inspectBundle } from "./inspect-bundle.ts";
export { verifyBundle } from "./verify-bundle.ts";
