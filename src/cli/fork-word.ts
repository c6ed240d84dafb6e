import { existsSync } from "node:fs";
import type { Context } from "./context.ts";

/** Returns what a word names: a folder as an absolute path if there is one, else the word itself, a workspace's name. */
export function forkWord(context: Context, word: string): string {
  const folder = context.absolute(word);
  return existsSync(folder) ? folder : word;
}
