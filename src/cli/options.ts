import { type AnySchema, type Entries, type Line, type Notes, type Of, phraseOf } from "../contract/schema.ts";
import { splitTags as tagsOf } from "../formats/restic/snapshot.ts";
import type { Context } from "./context.ts";
import type { OptionDefinition } from "./definitions.ts";
import { checkSpan, type Input, kebab, parseCount, parsePart, parseShare, parseSize, usage } from "./input.ts";

type Members<E extends Entries> = { -readonly [Name in keyof E]?: NonNullable<Of<E[Name]>> };
type Schema = AnySchema & Notes & { wrapped?: Schema; item?: Schema; options?: readonly string[] };

/** Members of every call that are global options, or no options. */
const OF_EVERY_CALL = ["signal", "onProgress", "onWarning", "lockTimeoutMs", "workspaceName"];
const PLACEHOLDERS: Readonly<Record<string, string>> = {
  place: "path",
  size: "size",
  count: "count",
  "count or all": "count",
  span: "span",
};

/** The option with which snapshots of another program become points. */
export const FROM_MSGVAULT = {
  flags: "--from-msgvault <repository>",
  text: "make a save point of each snapshot of a msgvault repository, with its time and tag, instead of saving the folder",
};

interface Member extends OptionDefinition {
  name: string;
  schema: Schema;
  line: Line;
}

/** Options of a command that are members of its verb's options. */
export class VerbOptions<E extends Entries> {
  readonly definitions: readonly OptionDefinition[];
  readonly #members: readonly Member[];

  constructor(entries: E) {
    this.#members = Object.entries(entries).flatMap(([name, given]) => {
      if (OF_EVERY_CALL.includes(name)) return [];
      let schema = given as Schema;
      const { line: lines = [{}] } = schema;
      while (schema.wrapped !== undefined) schema = schema.wrapped;
      return lines.map((line) => {
        const flags = line.flags ?? defaultFlags(name, schema);
        const repeat = schema.item !== undefined && line.split !== true && flags.includes("<");
        const values = line.values ?? (line.split === true ? undefined : (schema.options ?? schema.item?.options));
        return {
          name,
          schema,
          line,
          flags,
          text: `${line.text ?? phraseOf(given)}${repeat ? "; may be repeated" : ""}`,
          repeat,
          ...(values === undefined || line.value !== undefined ? {} : { values }),
        };
      });
    });
    this.definitions = this.#members;
  }

  /** Returns the option of a member, for example `--no-hooks` of `hooks`. */
  optionOf(name: string): string {
    return /--[\w-]+/.exec(this.#members.find((member) => member.name === name)!.flags)![0];
  }

  /** The members as one option, for example `--set verify=7d`. */
  get settings(): OptionDefinition {
    const texts = this.#members.map(({ flags, text }) => `${longName(flags)} (${text})`);
    return { flags: "--set <name=value>", text: `${texts.join(", ")}; may be repeated`, repeat: true };
  }

  /** Returns the members that `--set` gives. Throws `usage` for another name, and for a value that the verb does not know. */
  readSettings(context: Context, input: Input): Members<E> {
    const found = new Map<string, unknown>();
    for (const given of input.list("set")) {
      const [name = ""] = given.split("=", 1);
      const member = this.#members.find(({ flags }) => longName(flags) === name);
      if (member === undefined || name === given) {
        const names = this.#members.map(({ flags }) => `${longName(flags)}=VALUE`);
        throw usage(`--set takes ${names.join(", ")}; found ${JSON.stringify(given)}`);
      }
      if (found.has(member.name)) throw usage(`--set ${name} was given twice`);
      const value = given.slice(name.length + 1);
      found.set(member.name, valueOf(context, value, { schema: member.schema, option: `set ${name}` }));
    }
    return Object.fromEntries(found) as Members<E>;
  }

  /** Returns the members that the line gives. Throws `usage` for a value that the verb does not know. */
  read(context: Context, input: Input): Members<E> {
    const found = new Map<string, { flags: string; value: unknown }>();
    for (const { name, flags, ...member } of this.#members) {
      const value = read(context, input, { name, flags, ...member });
      if (value === undefined) continue;
      const other = found.get(name);
      if (other !== undefined) throw usage(`${other.flags} and ${flags} exclude each other`);
      found.set(name, { flags, value });
    }
    return Object.fromEntries([...found].map(([name, { value }]) => [name, value])) as Members<E>;
  }
}

function defaultFlags(name: string, schema: Schema): string {
  if (schema.type === "boolean") return `--${kebab(name)}`;
  return `--${kebab(name)} <${schema.options === undefined ? (PLACEHOLDERS[schema.as ?? ""] ?? "text") : "how"}>`;
}

function read(context: Context, input: Input, { flags, schema, line }: Member): unknown {
  const option = longName(flags);
  const key = keyOf(option);
  const { value = true } = line;
  if (flags.startsWith("--no-")) return input.denied(key) ? value : undefined;
  if (!flags.includes("<")) return input.flag(key) ? value : undefined;
  const text = input.text(key);
  const { item } = schema;
  // The word stands for a flag.
  if (schema.type === "boolean" && text !== undefined) return input.choice(key, line.values!) !== undefined;
  if (item === undefined) return text === undefined ? undefined : valueOf(context, text, { schema, option });
  const given = line.split === true ? text?.split(",").filter((word) => word !== "") : input.list(key);
  if (given === undefined || (given.length === 0 && line.split !== true)) return undefined;
  return given.map((each) => valueOf(context, each, { schema: item, option }));
}

/** Returns options as the line gives them, for another line. */
export function givenWords(definitions: readonly OptionDefinition[], input: Input): string[] {
  return definitions.flatMap(({ flags }) => {
    const option = longName(flags);
    const key = keyOf(option);
    if (!flags.includes("<")) return input.flag(key) ? [`--${option}`] : [];
    return [input.text(key) ?? input.list(key)].flat().flatMap((text) => [`--${option}`, text]);
  });
}

function keyOf(option: string): string {
  return option.replaceAll(/-(\w)/g, (_, letter: string) => letter.toUpperCase());
}

/** The name of an option without dashes and without `no-`. */
export function longName(flags: string): string {
  return /--(?:no-)?([\w-]+)/.exec(flags)![1]!;
}

/** Parses the text of an option, or of an item of a list, by its schema. */
function valueOf(context: Context, text: string, { schema, option }: { schema: Schema; option: string }): unknown {
  const { as, type, options, item } = schema;
  const what = `--${option}`;
  if (item !== undefined) return tagsOf(text);
  if (as === "size" || as === "rate") return parseSize(text, what);
  if (as === "span") return checkSpan(text, what);
  if (as === "share") return parseShare(text, what);
  if (as === "part") return parsePart(text, what);
  if (as === "place") return context.place(text);
  if (as === "count or all" && text === "unlimited") return text;
  if (as === "count or all" || type === "number") return parseCount(text, what);
  if (options === undefined || options.includes(text)) return text;
  throw usage(`${what} must be one of ${options.join(", ")}; found ${JSON.stringify(text)}`);
}

/** Splits tags at commas, as restic does. A tag has no comma. */
export function splitTags(given: readonly string[]): string[] {
  return given.flatMap((each) => each.split(","));
}

/** Returns the options of a call with their tags split. */
export function withTags<T extends { tags?: readonly string[] | undefined }>(given: T): T {
  return given.tags === undefined ? given : { ...given, tags: splitTags(given.tags) };
}
