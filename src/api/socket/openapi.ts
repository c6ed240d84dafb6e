import { jsonSchemaOf, jsonSchemaOfMembers, type JsonSchema } from "../../contract/json-schema.ts";
import { SCHEMAS } from "../../verbs/names.ts";
import type { AnySchema } from "../../contract/schema.ts";
import { EVENT_TYPES, eventOf, Job, JobBegun, JobList } from "../../contract/service.ts";
import type { Verb } from "../../contract/verb.ts";
import { ERROR_TABLE } from "../../errors.ts";
import { VERSION } from "../../formats/program.ts";
import { callOf, isChanging, isJob, isOfWorkspace, servedCalls, whoMay } from "../rights/capabilities.ts";

/** The calls of the socket as OpenAPI 3.1, generated from the schemas that check them. */

/** Names of the contract's objects, each described once. */
const NAMES = new Map<object, string>(
  Object.entries(SCHEMAS).flatMap(([name, schema]) => (schema.type === "object" ? [[schema, name]] : [])),
);

/** Returns a reference to a named object of the contract; null for any other schema. */
function referenceTo(schema: object): string | null {
  const name = NAMES.get(schema);
  return name === undefined ? null : `#/components/schemas/${name}`;
}
const described = (schema: AnySchema): JsonSchema => {
  const $ref = referenceTo(schema);
  return $ref === null ? jsonSchemaOf(schema, referenceTo) : { $ref };
};

const ref = (name: string): JsonSchema => ({ $ref: `#/components/schemas/${name}` });
const parameter = (name: string): JsonSchema => ({ $ref: `#/components/parameters/${name}` });
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
    advice: { type: "array" },
  },
};

/** The form of every answer around its data, which `answerOf` and `Failure` narrow. */
const ANSWER: JsonSchema = {
  type: "object",
  required: ["schema_version", "ok", "data", "error", "warnings"],
  properties: {
    schema_version: { const: 1 },
    ok: { type: "boolean" },
    data: {},
    error: {},
    warnings: { type: "array", items: { type: "string" } },
  },
};
const narrowed = (properties: JsonSchema): JsonSchema => ({ allOf: [ref("Answer"), { properties }] });
const FAILURE = narrowed({ ok: { const: false }, data: { type: "null" }, error: ref("Error") });
const answerOf = (schema: AnySchema): JsonSchema =>
  narrowed({ ok: { const: true }, data: described(schema), error: { type: "null" } });
const LINES: JsonSchema = {
  schema: {
    type: "object",
    description: "one JSON object per line: `item`, `progress` or `warning`, and the answer last",
  },
};
const BEGUN: JsonSchema = {
  description: "the call continues as a job",
  headers: { Location: { schema: { type: "string" }, description: "the job: `/v1/jobs/{id}`" } },
  content: json(answerOf(JobBegun)),
};

function requestOf(name: string, { takes, options }: Verb): JsonSchema {
  const isNeeded = (schema: AnySchema): boolean => schema.type !== "optional";
  const members =
    options === null
      ? {}
      : Object.fromEntries(Object.entries(options.entries).filter(([each]) => each !== "workspaceName"));
  const given = jsonSchemaOfMembers(members, referenceTo);
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
        takes.filter((each) => each.name !== "workspaceName").map((each) => [each.name, described(each.schema)]),
      ),
      ...(options === null ? {} : { options: given }),
    },
  };
}

function operationOf(name: string, verb: Verb): JsonSchema {
  const { about, output, how, errors } = verb;
  const isStream = how === "stream";
  const lines = { "application/x-ndjson": LINES };
  const mayChange = isChanging(name, undefined) || verb.changesWith !== undefined;
  return {
    operationId: name,
    summary: about,
    description: whoMay(name),
    ...(isJob(name) ? { parameters: [parameter("Prefer"), ...(mayChange ? [parameter("IdempotencyKey")] : [])] } : {}),
    requestBody: { required: true, content: json(requestOf(name, verb)) },
    responses: {
      "200": {
        description: isStream
          ? "the answer in pieces: ask with `Accept: application/x-ndjson`"
          : "the answer; in lines with progress if the request accepts lines",
        content: isStream ? lines : { ...json(answerOf(output)), ...lines },
      },
      ...(isStream ? {} : { "202": { $ref: "#/components/responses/Begun" } }),
      default: {
        description: errors.length === 0 ? "an error" : `an error, e.g. ${errors.join(", ")}`,
        content: json(ref("Failure")),
      },
    },
  };
}

const PREFER: JsonSchema = {
  name: "Prefer",
  in: "header",
  description: "`respond-async`: the call continues as a job, and the answer is 202",
  schema: { type: "string" },
};
const IDEMPOTENCY_KEY: JsonSchema = {
  name: "Idempotency-Key",
  in: "header",
  description:
    "a call that is repeated with the same key, verb and body is not done twice: for a day it returns the same answer",
  schema: { type: "string", minLength: 1, maxLength: 128, pattern: "^[ -~]*$" },
};
const query = (name: string, description: string, schema: JsonSchema): JsonSchema => ({
  name,
  in: "query",
  description,
  schema,
});
const TEXTS: JsonSchema = { type: "array", items: { type: "string" } };
const ID: JsonSchema = { name: "id", in: "path", required: true, schema: { type: "string" } };

function read(operationId: string, summary: string, parameters: JsonSchema[], content: JsonSchema): JsonSchema {
  return {
    operationId,
    summary,
    parameters,
    responses: {
      "200": { description: "the answer", content },
      default: { description: "an error", content: json(ref("Failure")) },
    },
  };
}

const WELL: JsonSchema = {
  type: "object",
  required: ["ok", "reasons"],
  properties: { ok: { type: "boolean" }, reasons: TEXTS },
};
/** An operation for monitors: 503 if the daemon has a problem, with the reasons. */
function watched(operationId: string, summary: string): JsonSchema {
  const { responses, ...operation } = read(operationId, summary, [], json(WELL)) as { responses: JsonSchema };
  return { ...operation, responses: { ...responses, "503": { description: "unhealthy", content: json(WELL) } } };
}

const ofJob = json(answerOf(Job));
const RESOURCES: JsonSchema = {
  "/v1/health": {
    get: watched("health", "Tells if the caller's workspaces are healthy and all their ages are within the limits."),
  },
  "/v1/ready": { get: watched("ready", "Tells if the daemon accepts calls.") },
  "/v1/events": {
    get: read(
      "events",
      "Tells what happens in workspaces, as server-sent events: `id`, `event` (the type) and `data`, which is JSON.",
      [
        query("workspace", "only events of this workspace, by its absolute path; may be repeated", TEXTS),
        query("types", "only events of these types, separated by commas", { type: "string" }),
        query("after", "only events after the event of this number; 0: all that are kept", { type: "integer" }),
        { ...query("Last-Event-ID", "as `after`, which it overrides", { type: "integer" }), in: "header" },
      ],
      { "text/event-stream": { schema: { oneOf: EVENT_TYPES.map((type) => described(eventOf(type))) } } },
    ),
  },
  "/v1/jobs": {
    get: read(
      "jobs",
      "Lists the caller's jobs, the newest first.",
      [
        query("after", "`next` of the previous page", { type: "string" }),
        query("limit", "the greatest number of jobs to list; default 100", {
          type: "integer",
          minimum: 1,
          maximum: 1000,
        }),
      ],
      json(answerOf(JobList)),
    ),
  },
  "/v1/jobs/{id}": {
    get: read("job", "Returns a job, with its answer or error once the job has ended.", [ID], ofJob),
    delete: read("cancelJob", "Cancels a job that has not ended.", [ID], ofJob),
  },
};

/** Descriptions of the named objects that `part` refers to, and of the objects to which those refer. */
function schemasFor(part: object): JsonSchema {
  const found: JsonSchema = {};
  const add = (value: object): void => {
    for (const [, name] of JSON.stringify(value).matchAll(/"#\/components\/schemas\/(\w+)"/g)) {
      if (Object.hasOwn(found, name!) || !Object.hasOwn(SCHEMAS, name!)) continue;
      const schema = jsonSchemaOf(SCHEMAS[name!]!, referenceTo);
      found[name!] = schema;
      add(schema);
    }
  };
  add(part);
  return Object.fromEntries(Object.entries(found).toSorted(([a], [b]) => (a < b ? -1 : 1)));
}

/** Returns the document for `GET /v1/openapi.json` and the package's `openapi.json`. */
export function openApi(): JsonSchema {
  const paths = {
    ...Object.fromEntries(servedCalls().map((name) => [`/v1/${name}`, { post: operationOf(name, callOf(name)!) }])),
    ...RESOURCES,
  };
  return {
    openapi: "3.1.0",
    info: {
      title: "Cairn",
      version: VERSION,
      description:
        "Calls of the daemon. Each is `POST /v1/<verb>` with a JSON object. On the Unix socket the kernel or a token identifies the caller; over TCP a token is required.",
      license: { name: "Apache-2.0", identifier: "Apache-2.0" },
    },
    servers: [
      { url: "http://localhost", description: "over the Unix socket" },
      { url: "https://localhost:7777", description: "over TCP, if `[http]` of the configuration names an address" },
    ],
    security: [{ token: [] }, {}],
    paths,
    components: {
      securitySchemes: { token: { type: "http", scheme: "bearer", description: "`cairn service token create`" } },
      schemas: { ...schemasFor([paths, BEGUN]), Answer: ANSWER, Error: ERROR, Failure: FAILURE },
      responses: { Begun: BEGUN },
      parameters: { Prefer: PREFER, IdempotencyKey: IDEMPOTENCY_KEY },
    },
  };
}
