import { existsSync } from "node:fs";
import type { Context } from "./context.ts";

/** Returns a folder as an absolute path if `word` names one, else the word itself, which is a workspace's name. */
export function forkWord(context: Context, word: string): string {
  const folder = context.absolute(word);
  return existsSync(folder) ? folder : word;
}
