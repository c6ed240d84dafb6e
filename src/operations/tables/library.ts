import { OpenRepository } from "../../backup/open/open-repository.ts";
import { verifyReceipt } from "../../backup/restore/receipt.ts";
import { captureDatabase, listDatabases, restoreDatabase } from "../../capture/sqlite/databases.ts";
import { findWorkspace } from "../../workspace/place/find-workspace.ts";
import { forget } from "../../workspace/care/release.ts";
import { relocate } from "../../workspace/care/relocate.ts";
import { storePolynomial } from "../../workspace/store/embedded-store.ts";
import { storePaths } from "../../workspace/store/store-files.ts";
import { convertBundle, diffBundles, extractBundle, inspectBundle, verifyBundle } from "../inspect/bundles.ts";
import { CONTEXT_ROWS } from "./context.ts";
import { detectEngine, requireEngine } from "../engine.ts";
import { importDirectory } from "../directories/import.ts";
import { inspect } from "../inspect.ts";
import { MACHINE_ROWS } from "./machines.ts";
import { OpenedRepository } from "../opened-repository.ts";
import type { LibraryRows } from "./row.ts";
import { listWorkspaces } from "../workspaces.ts";
import { learnPolynomial, ownPolynomial } from "../../workspace/place/registry.ts";

/** Verbs that need no open workspace, but for those that open one. */
export const LIBRARY_ROWS = {
  async initRepository({ openStorage }, options) {
    const found = options.like === undefined ? null : findWorkspace(options.like);
    const polynomial = found === null ? ownPolynomial() : await storePolynomial(storePaths(found.control.root));
    learnPolynomial(polynomial);
    return new OpenedRepository(await OpenRepository.create(openStorage, options, polynomial));
  },
  async openRepository({ openStorage }, options) {
    const access = await OpenRepository.open(openStorage, options);
    learnPolynomial(access.repository.chunkerPolynomial);
    return new OpenedRepository(access);
  },
  verifyReceipt: (_hand, path, options) => verifyReceipt(path, options),
  detectEngine: (_hand, path, options) => detectEngine(path, options),
  validateEngine: (_hand, path, type, options) => requireEngine(path, type, options),
  find: (_hand, path) => findWorkspace(path)?.folder.toString("utf8") ?? null,
  listWorkspaces: ({ parts }, options) => listWorkspaces(parts, options),
  relocate: ({ parts }, from, to, options) => relocate(parts, { from, to, options }),
  inspect: (_hand, file, options) => inspect(file, options),
  forget: (_hand, path, options) => forget(path, options),
  inspectBundle: (_hand, path) => inspectBundle(path),
  verifyBundle: (_hand, path, options) => verifyBundle(path, options),
  diffBundles: (_hand, a, b) => diffBundles(a, b),
  extractBundle: (_hand, path, to, options) => extractBundle(path, to, options),
  convertBundle: (_hand, path, to, options) => convertBundle(path, to, options),
  ...CONTEXT_ROWS,
  ...MACHINE_ROWS,
  importDirectory,
  listDatabases: (_hand, path, options) => listDatabases(path, options),
  captureDatabase: (_hand, path, options) => captureDatabase(path, options),
  restoreDatabase: (_hand, image, options) => restoreDatabase(image, options),
} satisfies Partial<LibraryRows>;
