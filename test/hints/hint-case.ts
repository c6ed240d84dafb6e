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
  /** An option or value that the hint names, for `back`. */
  option?: string;
  /** Lines that end what stood in the way, for example another command. */
  meanwhile?: string;
  /** Lines that do what the hint says in words, or that show the good end. */
  back?: string;
  /** True if the message itself names the way. */
  isInMessage?: boolean;
  /** True if the command of the hint only tells of the damage, with exit 6. */
  tells?: boolean;
  /** True if the command of the hint goes on until it is ended. */
  background?: boolean;
  /** True if only root can bring the situation about. */
  isRoots?: boolean;
  /** Lines that clean up, whatever happened. */
  ends?: string;
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
  store: `
    mkdir docs
    echo one > docs/a
    cairn context init store --embedding none
    cd store
    cairn context add viking://resources/a ../docs`,
} as const;

export type SetUp = keyof typeof SETUPS;
