import type { Completes as Told } from "../definitions.ts";

export type Completes = Told | "nothing";

export interface OptionWords {
  /** For example `-m`, `--message`. */
  words: string[];
  takesValue: boolean;
  /** All possible values; empty if any value is possible. */
  values: readonly string[];
  text: string;
}

export interface CommandWords {
  name: string;
  text: string;
  options: OptionWords[];
  /** Commands of a group, named by its first argument. */
  verbs: CommandWords[];
  /** Words for each argument; the last entry repeats. */
  arguments: Completes[];
}

/** Options whose value is a folder, or a file. */
export const FOLDER_OPTIONS: readonly string[] = ["-C", "--directory", "--to", "--scratch", "--control-dir", "--repo"];
export const FILE_OPTIONS: readonly string[] = [
  "--path",
  "--from",
  "--password-file",
  "--age-identity",
  "--receipt",
  "--exclude-file",
  "--new-password-file",
  "--to-password-file",
];
