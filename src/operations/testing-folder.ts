import { mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import type { TestContext } from "node:test";
import { openLibrary } from "../compose.ts";
import { CairnError } from "../errors.ts";
import type { CairnLibrary, Client } from "../contract/index.ts";

/**
 * Why a test is skipped where there are no native calls: restores set no exact times then, so that what they wrote differs
 * from its point; what was written in the last minute is read again; and holes are not seen.
 */

export interface TestFolder {
  /** Everything lies in it; removed after the test. */
  root: string;
  /** The workspace, adopted. */
  folder: string;
  library: CairnLibrary;
  client: Client;
  /** Writes a file of the workspace. */
  write: (path: string, text: string) => void;
}

/** A folder of its own with a state directory of its own, adopted, with the files given. */
export async function testFolder(context: TestContext, files: Record<string, string> = {}): Promise<TestFolder> {
  const root = realpathSync(mkdtempSync(join(tmpdir(), "cairn-operations-")));
  const before = process.env["XDG_STATE_HOME"];
  process.env["XDG_STATE_HOME"] = join(root, "state");
  context.after(() => {
    if (before === undefined) delete process.env["XDG_STATE_HOME"];
    else process.env["XDG_STATE_HOME"] = before;
    rmSync(root, { recursive: true, force: true });
  });
  const folder = join(root, "work");
  mkdirSync(folder);
  const write = (path: string, text: string): void => {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), text);
  };
  for (const [path, text] of Object.entries(files)) write(path, text);
  const library = await openLibrary();
  return { root, folder, library, client: await library.adopt(folder), write };
}

export function hasCode(code: string): (error: unknown) => boolean {
  return (error) => {
    if (error instanceof CairnError && error.code === code) return true;
    throw error;
  };
}
