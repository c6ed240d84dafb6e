import { jsonSchemaOf, jsonSchemaOfMembers, type JsonSchema } from "../../contract/json-schema.ts";
import type { AnySchema } from "../../contract/schema.ts";
import type { Verb } from "../../contract/verb.ts";
import { ERROR_TABLE } from "../../errors.ts";
import { VERSION } from "../../formats/program.ts";
import { callOf, isOfWorkspace, servedCalls, whoMay } from "./capabilities.ts";

/** The calls of the socket as OpenAPI 3.1, made of the schemas that check them. */

const ref = (name: string): JsonSchema => ({ $ref: `#/components/schemas/${name}` });
const json = (schema: JsonSchema): JsonSchema => ({ "application/json": { schema } });

const ERROR: JsonSchema = {
  type: "object",
  required: ["code", "message", "hint", "retryable"],
  properties: {
    code: { enum: Object.keys(ERROR_TABLE) },
    message: { type: "string" },
    hint: { type: ["string", "null"] },
    retryable: { type: "boolean" },
    details: { type: "object" },
  },
};

/** Form that every answer has around its data. */
function envelope(data: JsonSchema, error: JsonSchema, isOk: boolean): JsonSchema {
  return {
    type: "object",
    required: ["schema_version", "ok", "data", "error", "warnings"],
    properties: {
      schema_version: { const: 1 },
      ok: { const: isOk },
      data,
      error,
      warnings: { type: "array", items: { type: "string" } },
    },
  };
}

function requestOf(name: string, { takes, options }: Verb): JsonSchema {
  const isNeeded = (schema: AnySchema): boolean => schema.type !== "optional";
  const members =
    options === null
      ? {}
      : Object.fromEntries(Object.entries(options.entries).filter(([each]) => each !== "workspaceName"));
  const given = jsonSchemaOfMembers(members);
  const needsOptions = ((given["required"] as string[] | undefined) ?? []).length > 0;
  const ofWorkspace = isOfWorkspace(name);
  return {
    type: "object",
    additionalProperties: false,
    required: [
      ...(ofWorkspace ? ["workspace"] : []),
      ...takes.filter(({ schema }) => isNeeded(schema)).map((each) => each.name),
      ...(needsOptions ? ["options"] : []),
    ],
    properties: {
      ...(ofWorkspace ? { workspace: { type: "string", description: "the folder's absolute path" } } : {}),
      ...Object.fromEntries(
        takes.filter((each) => each.name !== "workspaceName").map((each) => [each.name, jsonSchemaOf(each.schema)]),
      ),
      ...(options === null ? {} : { options: given }),
    },
  };
}

function operationOf(name: string, verb: Verb): JsonSchema {
  const { about, output, how, errors } = verb;
  const data = jsonSchemaOf(output);
  const isStream = how === "stream";
  const lines = {
    "application/x-ndjson": {
      schema: { type: "object", description: "a line each: `item`, `progress`, `warning`, and the envelope last" },
    },
  };
  return {
    operationId: name,
    summary: about,
    description: whoMay(name),
    requestBody: { required: true, content: json(requestOf(name, verb)) },
    responses: {
      "200": {
        description: isStream
          ? "the answer in pieces: ask with `Accept: application/x-ndjson`"
          : "the answer; in lines with progress where they are accepted",
        content: isStream ? lines : { ...json(envelope(data, { type: "null" }, true)), ...lines },
      },
      default: {
        description: errors.length === 0 ? "an error" : `an error, e.g. ${errors.join(", ")}`,
        content: json(ref("Failure")),
      },
    },
  };
}

/** The document, for `GET /v1/openapi.json` and docs/openapi.json. */
export function openApi(): JsonSchema {
  return {
    openapi: "3.1.0",
    info: {
      title: "Cairn",
      version: VERSION,
      description:
        "Calls of the daemon. Each is `POST /v1/<verb>` with a JSON object. On the Unix socket the kernel says who calls; on TCP a token does, and may on the socket.",
      license: { name: "Apache-2.0", identifier: "Apache-2.0" },
    },
    servers: [
      { url: "http://localhost", description: "over the Unix socket" },
      { url: "https://localhost:7777", description: "over TCP, where `[http]` of the configuration names an address" },
    ],
    security: [{ token: [] }, {}],
    paths: Object.fromEntries(servedCalls().map((name) => [`/v1/${name}`, { post: operationOf(name, callOf(name)!) }])),
    components: {
      securitySchemes: { token: { type: "http", scheme: "bearer", description: "`cairn service token create`" } },
      schemas: { Error: ERROR, Failure: envelope({ type: "null" }, ref("Error"), false) },
    },
  };
}
