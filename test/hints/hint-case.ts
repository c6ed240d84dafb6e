import type { ErrorCode } from "../../src/errors.ts";

/** A situation in which a command fails, and the way out that its hint names. The test walks it; docs/errors.md shows it. */
export interface HintCase {
  code: ErrorCode;
  /** The situation, as the page tells it. */
  reason: string;
  given?: SetUp;
  /** Lines that run before. */
  before?: string;
  /** The command that fails. */
  fails: string;
  /** The command as the hint prints it. It runs as it is printed; `ID` stands for any id there. */
  follow?: string;
  /** Values for words in capitals of `follow`. */
  where?: Readonly<Record<string, string>>;
  /** An option or value that the hint names, for `then`. */
  option?: string;
  /** Lines that do what the hint says in words, or that show the good end. */
  then?: string;
  /** True if the message itself names the way. */
  isInMessage?: boolean;
}

/** What some cases begin with. Each runs in an own home directory. */
export const SETUPS = {
  points: `
    mkdir docs
    cd docs
    echo one > a
    cairn save -m first -t good
    echo two > a
    echo two > b
    cairn save -m second`,
  repository: `
    mkdir docs
    echo secret > pw
    cd docs
    echo one > a
    cairn backup init -r ../repo --password-file ../pw
    cairn backup use -r ../repo --password-file ../pw
    cairn backup create`,
} as const;

export type SetUp = keyof typeof SETUPS;
