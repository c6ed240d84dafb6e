import type { Completes as Told } from "../definitions.ts";

export type Completes = Told | "nothing";

export interface OptionWords {
  /** `-m`, `--message`. */
  words: string[];
  takesValue: boolean;
  /** All that the value can be; empty where it can be anything. */
  values: readonly string[];
  text: string;
}

export interface CommandWords {
  name: string;
  text: string;
  options: OptionWords[];
  /** Commands of a group, which its first argument names. */
  verbs: CommandWords[];
  /** Words for each place; the last one repeats. */
  arguments: Completes[];
}

/** Options whose value is a folder, or a file. */
export const FOLDER_OPTIONS: readonly string[] = [
  "-C",
  "--directory",
  "--to",
  "--scratch",
  "--control-dir",
  "--repo",
  "--to-repo",
];
export const FILE_OPTIONS: readonly string[] = [
  "--path",
  "--password-file",
  "--age-identity",
  "--age-output",
  "--receipt",
  "--exclude-file",
  "--new-password-file",
  "--to-password-file",
];
