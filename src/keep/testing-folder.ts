import { mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import type { TestContext } from "node:test";
import { openLibrary } from "../compose.ts";
import { CairnError } from "../errors.ts";
import type { CairnLibrary, Client } from "../contract/index.ts";

/**
 * A test's folder. Tests skip without native calls: restores then set no exact times, so their files differ from the
 * point; files of the last minute are read again; and holes are not seen.
 */
export interface TestFolder {
  /** Contains all files of the test; removed afterwards. */
  root: string;
  /** The workspace. */
  folder: string;
  library: CairnLibrary;
  client: Client;
  /** Writes a file of the workspace. */
  write: (path: string, text: string) => void;
}

/** Makes a folder for all files of a test, with the state directory in it; removed afterwards. */
export function testRoot(context: TestContext): string {
  const root = realpathSync(mkdtempSync(join(tmpdir(), "cairn-folder-")));
  const before = process.env["XDG_STATE_HOME"];
  process.env["XDG_STATE_HOME"] = join(root, "state");
  context.after(() => {
    if (before === undefined) delete process.env["XDG_STATE_HOME"];
    else process.env["XDG_STATE_HOME"] = before;
    rmSync(root, { recursive: true, force: true });
  });
  return root;
}

/** Makes a workspace with the given files, and a state directory of its own. */
export async function testFolder(context: TestContext, files: Record<string, string> = {}): Promise<TestFolder> {
  const root = testRoot(context);
  const folder = join(root, "work");
  mkdirSync(folder);
  const write = (path: string, text: string): void => {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), text);
  };
  for (const [path, text] of Object.entries(files)) write(path, text);
  const library = await openLibrary();
  return { root, folder, library, client: await library.init(folder), write };
}

export function hasCode(code: string): (error: unknown) => boolean {
  return (error) => {
    if (error instanceof CairnError && error.code === code) return true;
    throw error;
  };
}
