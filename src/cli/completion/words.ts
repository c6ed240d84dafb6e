export type Completes = "points" | "files" | "folders" | "shells" | "verbs" | "nothing";

export interface OptionWords {
  /** `-m`, `--message`. */
  words: string[];
  takesValue: boolean;
  text: string;
}

export interface CommandWords {
  name: string;
  text: string;
  options: OptionWords[];
  /** Where the first argument is one of several verbs: those; their options are among the command's. */
  verbs: string[];
  /** What comes at each place; the last one repeats. */
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
  "--new-password-file",
  "--to-password-file",
];
