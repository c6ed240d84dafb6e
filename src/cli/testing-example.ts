import type { AnySchema, Entries, Of } from "../contract/schema.ts";

/** Example values of schemas, for answers of the fake library. Test only. */

/** Values by the TypeScript type of a schema. */
export type Samples = Readonly<Record<string, unknown>>;

/** Texts by the end of a member's name. */
const TEXTS: Samples = {
  _at: "2026-11-20T09:10:11.123Z",
  path: "/tmp/cairn-fake/x",
  directory: "/tmp/cairn-fake/control",
  engine: "copy",
  kind: "directory",
};

/** Members that are true if all is well. */
const GOOD = ["ok", "complete", "healthy", "trusted"];

interface Node {
  type: string;
  prints?: string;
  entries: Entries;
  options: readonly unknown[];
}

/** Returns a value that `schema` accepts: lists are empty, members that may be absent or null are absent or null. */
export function exampleOf<S extends AnySchema>(schema: S, samples: Samples = {}): Of<S> {
  return valueOf(schema, samples, "") as Of<S>;
}

function valueOf(schema: AnySchema, samples: Samples, name: string): unknown {
  const { type, prints = "", entries, options } = schema as unknown as Node;
  if (Object.hasOwn(samples, prints)) return samples[prints];
  switch (type) {
    case "object":
    case "strict_object": {
      const members = Object.entries(entries).filter(([, each]) => each.type !== "optional");
      return Object.fromEntries(members.map(([key, each]) => [key, valueOf(each, samples, key)]));
    }
    case "array":
      return [];
    case "nullable":
      return null;
    case "optional":
    case "void":
      return undefined;
    case "number":
      return 0;
    case "boolean":
      return GOOD.includes(name);
    case "picklist":
      return options.includes(textOf(name)) ? textOf(name) : options[0];
    case "record":
    case "unknown":
      return {};
    default:
      return prints === "null" ? null : prints.startsWith("{") ? { kind: "person" } : textOf(name);
  }
}

function textOf(name: string): unknown {
  return Object.entries(TEXTS).find(([end]) => name.endsWith(end))?.[1] ?? "text";
}
