import type { CairnError } from "../errors.ts";
import type { Context } from "./context.ts";
import type { ArgumentDefinition, OptionDefinition, VerbTable } from "./definitions.ts";
import { type Input, usage } from "./input.ts";

export interface Example {
  line: string;
  text: string;
}

/** A command: what it takes, and how it runs. One file per command, loaded only when it is called. */
export interface CommandDefinition {
  name: string;
  arguments?: readonly ArgumentDefinition[];
  options?: readonly OptionDefinition[];
  examples: readonly Example[];
  /** The text is the answer that the caller asked for, so `-q` prints it too. */
  answers?: true;
  /** It only looks or only adds, so it is proposed for a misspelt word, as is a command that answers. */
  harmless?: true;
  /** All words after the first belong to a command that is run, its options too. */
  takesCommand?: true;
  /** Commands of a group: what comes next on the line. */
  verbs?: VerbTable<CommandDefinition>;
  run(context: Context, input: Input): Promise<Outcome>;
}

/** Result of a command, to be printed: `data` for `--json`, the rest for people. */
export interface Outcome {
  data: unknown;
  /** Asked for only when people read it. With or without a last line break. */
  text?: () => string | Promise<string>;
  /** Raw bytes for stdout instead of text. */
  content?: AsyncIterable<Uint8Array>;
  /** With `--json`: reads `content` and gives the data. */
  contentData?: (content: Uint8Array) => unknown;
  /** Long text for reading, or content that is such: goes through `$PAGER` on a terminal. */
  paged?: boolean;
  /** The text has lines of files in it, whose characters are theirs. */
  verbatim?: boolean;
  /** Default 0, or the error's. */
  exitStatus?: number;
  /** A failure beside the data, e.g. damage that was found. */
  error?: CairnError;
  /** Work that goes on after all that was printed, e.g. a server until it is stopped. Its failure is told on stderr. */
  afterwards?: () => Promise<void>;
}

/** A command that is called with one of its verbs; without any it throws `usage`. */
export function group(definition: Omit<CommandDefinition, "arguments" | "run">): CommandDefinition {
  const { name } = definition;
  return {
    ...definition,
    arguments: [{ name: "<verb>", text: "the verb" }],
    async run() {
      throw usage(`cairn ${name} needs a verb`, `\`cairn ${name} --help\` lists them`);
    },
  };
}
