import { backupContext, exportBundle, importBundle, restoreContext } from "../context/bundles.ts";
import {
  addToContext,
  checkContext,
  findInContext,
  initContext,
  listContext,
  readContext,
  reindexContext,
  removeFromContext,
} from "../context/stores.ts";
import type { LibraryRows } from "./row.ts";

/** Verbs of context stores. */
export const CONTEXT_ROWS = {
  initContext: (_hand, folder, options) => initContext(folder, options),
  addToContext: (_hand, store, uri, from, options) => addToContext(store, uri, from, options),
  listContext: (_hand, store, uri, options) => listContext(store, uri, options),
  readContext: (_hand, store, uri, options) => readContext(store, uri, options),
  findInContext: (_hand, store, query, options) => findInContext(store, query, options),
  removeFromContext: (_hand, store, uri, options) => removeFromContext(store, uri, options),
  reindexContext: (_hand, store, options) => reindexContext(store, options),
  checkContext: (_hand, store, options) => checkContext(store, options),
  exportBundle: (_hand, store, uri, to, options) => exportBundle(store, uri, to, options),
  importBundle: (_hand, store, path, parent, options) => importBundle(store, path, parent, options),
  backupContext: (_hand, store, to, options) => backupContext(store, to, options),
  restoreContext: (_hand, store, path, options) => restoreContext(store, path, options),
} satisfies Partial<LibraryRows>;
