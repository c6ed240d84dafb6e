import { jsonSchemaOf, jsonSchemaOfMembers, type JsonSchema } from "../../contract/json-schema.ts";
import type { AnySchema } from "../../contract/schema.ts";
import { EVENT_TYPES, eventOf, Job, JobBegun, JobList } from "../../contract/service.ts";
import type { Verb } from "../../contract/verb.ts";
import { ERROR_TABLE } from "../../errors.ts";
import { VERSION } from "../../formats/program.ts";
import { callOf, isChanging, isJob, isOfWorkspace, servedCalls, whoMay } from "./capabilities.ts";

/** The calls of the socket as OpenAPI 3.1, made of the schemas that check them. */

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
  const begun = {
    description: "the call goes on as a job",
    headers: { Location: { schema: { type: "string" }, description: "the job: `/v1/jobs/{id}`" } },
    content: json(envelope(jsonSchemaOf(JobBegun), { type: "null" }, true)),
  };
  return {
    operationId: name,
    summary: about,
    description: whoMay(name),
    ...(isJob(name)
      ? { parameters: [parameter("Prefer"), ...(isChanging(name) ? [parameter("IdempotencyKey")] : [])] }
      : {}),
    requestBody: { required: true, content: json(requestOf(name, verb)) },
    responses: {
      "200": {
        description: isStream
          ? "the answer in pieces: ask with `Accept: application/x-ndjson`"
          : "the answer; in lines with progress where they are accepted",
        content: isStream ? lines : { ...json(envelope(data, { type: "null" }, true)), ...lines },
      },
      ...(isStream ? {} : { "202": begun }),
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
  description: "`respond-async`: the call goes on as a job, and the answer is 202",
  schema: { type: "string" },
};
const IDEMPOTENCY_KEY: JsonSchema = {
  name: "Idempotency-Key",
  in: "header",
  description:
    "asked for again with the same key, verb and body, the call is not done twice: it has the same answer for a day",
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
/** For whoever watches the daemon: 503 where something is wrong, with the reasons. */
function watched(operationId: string, summary: string): JsonSchema {
  const { responses, ...operation } = read(operationId, summary, [], json(WELL)) as { responses: JsonSchema };
  return { ...operation, responses: { ...responses, "503": { description: "not well", content: json(WELL) } } };
}

const ofJob = json(envelope(jsonSchemaOf(Job), { type: "null" }, true));
const RESOURCES: JsonSchema = {
  "/v1/health": {
    get: watched("health", "Tells if the workspaces of the caller are well, and no limit on their ages is passed."),
  },
  "/v1/ready": { get: watched("ready", "Tells if calls are taken.") },
  "/v1/events": {
    get: read(
      "events",
      "Tells what happens in workspaces, as server-sent events: `id`, `event` (the type) and `data`, which is JSON.",
      [
        query("workspace", "only of this workspace, by its absolute path; may be repeated", TEXTS),
        query("types", "only these, comma between", { type: "string" }),
        query("after", "only those after the event of this number; 0: all that are kept", { type: "integer" }),
        { ...query("Last-Event-ID", "as `after`, and before it", { type: "integer" }), in: "header" },
      ],
      { "text/event-stream": { schema: { oneOf: EVENT_TYPES.map((type) => jsonSchemaOf(eventOf(type))) } } },
    ),
  },
  "/v1/jobs": {
    get: read(
      "jobs",
      "Lists the caller's jobs, the newest first.",
      [
        query("after", "`next` of the page before", { type: "string" }),
        query("limit", "at most so many; default 100", { type: "integer", minimum: 1, maximum: 1000 }),
      ],
      json(envelope(jsonSchemaOf(JobList), { type: "null" }, true)),
    ),
  },
  "/v1/jobs/{id}": {
    get: read("job", "Gives a job, with its answer or error once it has ended.", [ID], ofJob),
    delete: read("cancelJob", "Ends a job that has not ended.", [ID], ofJob),
  },
};

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
    paths: {
      ...Object.fromEntries(servedCalls().map((name) => [`/v1/${name}`, { post: operationOf(name, callOf(name)!) }])),
      ...RESOURCES,
    },
    components: {
      securitySchemes: { token: { type: "http", scheme: "bearer", description: "`cairn service token create`" } },
      schemas: { Error: ERROR, Failure: envelope({ type: "null" }, ref("Error"), false) },
      parameters: { Prefer: PREFER, IdempotencyKey: IDEMPOTENCY_KEY },
    },
  };
}
