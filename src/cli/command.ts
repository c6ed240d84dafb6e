import type { CairnError } from "../errors.ts";
import type { Context } from "./context.ts";
import type { ArgumentDefinition, OptionDefinition, VerbTable } from "./definitions.ts";
import { type Input, usage } from "./input.ts";

export interface Example {
  line: string;
  text: string;
}

/** A command: its arguments and options, and its function. One file per command, loaded only when it is called. */
export interface CommandDefinition {
  name: string;
  arguments?: readonly ArgumentDefinition[];
  options?: readonly OptionDefinition[];
  examples: readonly Example[];
  /** The text is the requested answer, so `-q` prints it too. */
  answers?: true;
  /** The command only looks or only adds, so it is proposed for a misspelt word. Commands with `answers` are proposed, too. */
  harmless?: true;
  /** All words after the first belong to a command that is run, including options. */
  takesCommand?: true;
  /** Commands of a group, by the next word on the line. */
  verbs?: VerbTable<CommandDefinition>;
  /** A line without one of the verbs is an error. */
  needsVerb?: true;
  run(context: Context, input: Input): Promise<Outcome>;
}

/** Result of a command, to be printed: `data` for `--json`, the rest for people. */
export interface Outcome {
  data: unknown;
  /** Called only if people read the text. With or without a last line break. */
  text?: () => string | Promise<string>;
  /** Raw bytes for stdout instead of text. */
  content?: AsyncIterable<Uint8Array>;
  /** With `--json`: reads `content` and returns the data. */
  contentData?: (content: Uint8Array) => unknown;
  /** Long text or content, which goes through `$PAGER` on a terminal. */
  paged?: boolean;
  /** The text has lines of files, whose characters are printed unchanged. */
  verbatim?: boolean;
  /** Default 0, or the error's status. */
  exitStatus?: number;
  /** A failure besides the data, for example damage that was found. */
  error?: CairnError;
  /** Work after all output is printed, for example a server until it is stopped. Its failure is printed on stderr. */
  afterwards?: () => Promise<void>;
}

/** Makes a command that is called with one of its verbs. Throws `usage` without a verb. */
export function group(definition: Omit<CommandDefinition, "arguments" | "needsVerb" | "run">): CommandDefinition {
  const { name } = definition;
  return {
    ...definition,
    needsVerb: true,
    arguments: [{ name: "<verb>", text: "the verb" }],
    async run() {
      throw usage(`cairn ${name} needs a verb`, `\`cairn ${name} --help\` lists them`);
    },
  };
}
