import { toJsonSchema } from "@valibot/to-json-schema";
import type { AnySchema, Entries, Notes } from "./schema.ts";
import { object } from "./schema.ts";

/** JSON Schema of the contract's values, for descriptions of the service. */

export type JsonSchema = Record<string, unknown>;

/** JSON Schemas of values that only code can check, by their printed type; every other printed type is an object. */
const PRINTED: Readonly<Record<string, JsonSchema>> = {
  string: { type: "string" },
  "string | Uint8Array": { type: "string" },
  Uint8Array: { type: "string", contentEncoding: "base64" },
  SavePointId: { type: "string" },
  WorkspaceId: { type: "string" },
  ControlId: { type: "string" },
  'number | "unlimited"': { anyOf: [{ type: "integer" }, { const: "unlimited" }] },
};

/** Returns the reference to a schema that is described elsewhere; null for a schema that is written out. */
export type Reference = (schema: object) => string | null;

/** JSON Schema of a value, with the phrase of each part as its description. Parts that have a reference are not written out. */
export function jsonSchemaOf(schema: AnySchema, referenceOf: Reference = () => null): JsonSchema {
  const { $schema: _dialect, ...rest } = toJsonSchema(schema as Parameters<typeof toJsonSchema>[0], {
    errorMode: "ignore",
    overrideSchema({ valibotSchema, jsonSchema }) {
      const { about, as, prints, original } = valibotSchema as Notes;
      const $ref = valibotSchema === schema ? null : referenceOf(original ?? valibotSchema);
      if ($ref !== null)
        return { $ref, ...(original === undefined ? {} : { description: about }) } as typeof jsonSchema;
      const isPrinted = (valibotSchema as { type?: string }).type === "custom";
      const form = isPrinted ? (PRINTED[prints ?? ""] ?? { type: "object" }) : jsonSchema;
      return {
        ...form,
        ...(as === "count" || as === "size" ? { type: "integer" } : {}),
        ...(about === undefined || about === "" ? {} : { description: about }),
      } as typeof jsonSchema;
    },
  });
  return rest as JsonSchema;
}

/** JSON Schema of an object with these members, without callbacks, signals and open repositories, which exist only inside a process. */
export function jsonSchemaOfMembers(entries: Entries, referenceOf?: Reference): JsonSchema {
  const isCarried = (schema: AnySchema): boolean => {
    const { as, wrapped } = schema as Notes & { wrapped?: AnySchema };
    return wrapped === undefined ? !["callback", "signal", "open"].includes(as ?? "") : isCarried(wrapped);
  };
  return {
    ...jsonSchemaOf(
      object(Object.fromEntries(Object.entries(entries).filter(([, each]) => isCarried(each)))),
      referenceOf,
    ),
    additionalProperties: false,
  };
}
