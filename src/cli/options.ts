import type { GuardName } from "../contract/index.ts";
import { type AnySchema, type Entries, type Notes, type Of, phraseOf } from "../contract/schema.ts";
import type { Context } from "./context.ts";
import type { OptionDefinition } from "./definitions.ts";
import { checkSpan, type Input, kebab, usage } from "./input.ts";

/**
 * Form of a member of a verb's options on the command line: its flags where they are not those of its name, another
 * text, the value of a flag that stands for one, or the function that reads its text. Null: it is no option.
 */
type Said<Value> = string | Otherwise | (Otherwise & { parse: Parse<Value> }) | null;
/** Makes the member's value of the option's text, or an item of a list of each text. */
type Parse<Value> = (text: string, context: Context) => Value extends readonly (infer Item)[] ? Item : Value;

interface Otherwise {
  flags?: string;
  text?: string;
  value?: unknown;
  values?: readonly string[];
}
type Members<E extends Entries> = { -readonly [Name in keyof E]?: NonNullable<Of<E[Name]>> };
type Schema = AnySchema & Notes & { wrapped?: Schema; item?: Schema; options?: readonly string[] };

/** Members of every call that are global options, or none. */
const OF_EVERY_CALL = ["signal", "onProgress", "onWarning", "lockTimeoutMs", "workspaceName"];
const PLACEHOLDERS: Readonly<Record<string, string>> = {
  place: "path",
  size: "size",
  count: "count",
  "count or all": "count",
  span: "span",
};

interface Member extends OptionDefinition {
  name: string;
  schema: Schema;
  /** what a flag stands for */
  value: unknown;
  parse: Parse<unknown> | undefined;
}

/** Options of a command that are members of its verb's options. */
export class VerbOptions<E extends Entries> {
  readonly definitions: readonly OptionDefinition[];
  readonly #members: readonly Member[];

  constructor(entries: E, said: { readonly [Name in keyof E]?: Said<NonNullable<Of<E[Name]>>> } = {}) {
    this.#members = Object.entries(entries).flatMap(([name, given]) => {
      if (said[name] === null || OF_EVERY_CALL.includes(name)) return [];
      const {
        flags,
        text,
        value = true,
        parse,
        ...more
      }: Otherwise & { parse?: Parse<unknown> } = typeof said[name] === "string"
        ? { flags: said[name] }
        : (said[name] ?? {});
      let schema = given as Schema;
      while (schema.wrapped !== undefined) schema = schema.wrapped;
      const values = more.values ?? schema.options ?? schema.item?.options;
      return [
        {
          name,
          schema,
          value,
          parse,
          flags: flags ?? defaultFlags(name, schema),
          text: `${text ?? phraseOf(given)}${schema.item === undefined ? "" : "; may be repeated"}`,
          repeat: schema.item !== undefined,
          ...(values === undefined || value !== true ? {} : { values }),
        },
      ];
    });
    this.definitions = this.#members;
  }

  /** The members that the line gives. Throws `usage` for a value that the verb does not know. */
  read(context: Context, input: Input): Members<E> {
    const found = this.#members.flatMap((member) => {
      const value = read(context, input, member);
      return value === undefined ? [] : [[member.name, value]];
    });
    return Object.fromEntries(found) as Members<E>;
  }
}

function defaultFlags(name: string, schema: Schema): string {
  if (schema.type === "boolean") return `--${kebab(name)}`;
  return `--${kebab(name)} <${schema.options === undefined ? (PLACEHOLDERS[schema.as ?? ""] ?? "text") : "how"}>`;
}

function read(context: Context, input: Input, { flags, schema, value, parse }: Member): unknown {
  const option = /--(?:no-)?([\w-]+)/.exec(flags)![1]!;
  const key = option.replaceAll(/-(\w)/g, (_, letter: string) => letter.toUpperCase());
  if (flags.startsWith("--no-")) return input.denied(key) ? value : undefined;
  if (!flags.includes("<")) return input.flag(key) ? value : undefined;
  const check = (each: string, { options }: Schema): string => {
    if (options === undefined || options.includes(each)) return each;
    throw usage(`--${option} must be one of ${options.join(", ")}; found ${JSON.stringify(each)}`);
  };
  if (schema.item !== undefined) {
    const list = input.list(key).map((each) => parse?.(each, context) ?? check(each, schema.item!));
    return list.length === 0 ? undefined : list;
  }
  const text = input.text(key);
  if (text === undefined) return undefined;
  if (parse !== undefined) return parse(text, context);
  switch (schema.as) {
    case "size":
      return input.size(key);
    case "count or all":
      return text === "unlimited" ? text : input.count(key);
    case "count":
      return input.count(key);
    case "span":
      return checkSpan(text, `--${option}`);
    case "place":
      return context.place(text);
    default:
      return schema.type === "number" ? input.count(key) : check(text, schema);
  }
}

const GUARDED: Readonly<Record<GuardName, string>> = {
  home: "a home directory",
  nested: "a folder inside or above another workspace",
  git: "a .git directory",
  space: "a disk that may be too small",
  holders: "processes with open files that cannot be listed",
  unmounted: "a folder whose own disk is not mounted",
};

/** `--allow` of a command that has these guards. */
export function guards(...values: readonly GuardName[]): Otherwise {
  const each = values.map((value) => `${value} (${GUARDED[value]})`);
  return { flags: "--allow <guard>", text: `override a guard: ${each.join(", ")}`, values };
}

/** Tags as somebody types them: several with commas, as restic reads them. A tag has none in it. */
export function splitTags(given: readonly string[]): string[] {
  return given.flatMap((each) => each.split(","));
}

/** Options of a call with their tags split. */
export function withTags<T extends { tags?: readonly string[] | undefined }>(given: T): T {
  return given.tags === undefined ? given : { ...given, tags: splitTags(given.tags) };
}
