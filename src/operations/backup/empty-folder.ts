import { isEmptyFolder } from "../../engines/tree/as-made.ts";

/** Whether nothing lies in a folder, as far as this user can see. */
export function looksEmpty(folder: Buffer): boolean {
  try {
    return isEmptyFolder(folder);
  } catch {
    return true;
  }
}
