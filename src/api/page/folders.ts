import { readdir } from "node:fs/promises";
import { resolve } from "node:path";
import type { FolderList } from "../../contract/index.ts";
import { toCairnError } from "../../errors.ts";

/** The most folders that a list has. */
const MOST = 500;

/** Lists the folders in a folder, for a person who chooses one. A name that is not UTF-8 is left out: nobody can type it. */
export async function foldersIn(path: string): Promise<FolderList> {
  const folder = resolve(path);
  try {
    const entries = await readdir(folder, { withFileTypes: true });
    const names = entries.flatMap((each) => (each.isDirectory() && isShown(each.name) ? [each.name] : []));
    return { path: folder, folders: names.toSorted().slice(0, MOST) };
  } catch (error) {
    throw toCairnError(error, `list the folders in ${folder}`);
  }
}

const isShown = (name: string): boolean => !name.startsWith(".") && !name.includes("\ufffd");
