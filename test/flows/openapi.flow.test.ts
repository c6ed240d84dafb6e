import assert from "node:assert/strict";
import fs from "node:fs";
import http from "node:http";
import path from "node:path";
import { test } from "node:test";
import { Ajv2020 } from "ajv/dist/2020.js";
import { openApi } from "../../src/api/socket/openapi.ts";
import { connect } from "../../src/client.ts";
import { cairnOk, SCRATCH } from "../fixtures/command.ts";
import { TestDaemon } from "../fixtures/daemon.ts";
import { eventually } from "../fixtures/eventually.ts";

/** The daemon's own description of its calls, held against what it takes and answers. */

interface Document {
  openapi: string;
  paths: Record<string, { post: Operation & { requestBody: { content: Content } }; get: Operation }>;
  components: { responses: { Begun: { content: Content } } };
}
interface Operation {
  responses: Record<"200" | "default", { content: Content }>;
}
type Content = Record<"application/json" | "text/event-stream", { schema: object }>;

/** A validator that knows the document's components; schemas are handed to it by `schemaOf`. */
function ajvOf({ components }: Document): Ajv2020 {
  const ajv = new Ajv2020({ strict: false, allErrors: true });
  const text = JSON.stringify(components).replaceAll("#/components", "cairn:/document#/components");
  return ajv.addSchema({ $id: "cairn:/document", components: JSON.parse(text) as object });
}

const schemaOf = (content: Content): object =>
  JSON.parse(
    JSON.stringify((content["application/json"] ?? content["text/event-stream"]).schema).replaceAll(
      "#/components",
      "cairn:/document#/components",
    ),
  ) as object;

async function ask(
  socketPath: string,
  method: string,
  url: string,
  body?: object,
  headers: Record<string, string> = {},
): Promise<{ status: number; value: Record<string, unknown> }> {
  return await new Promise((resolve, reject) => {
    const request = http.request({ socketPath, method, path: url, headers }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (piece: string) => (text += piece));
      response.on("end", () =>
        resolve({ status: response.statusCode!, value: JSON.parse(text) as Record<string, unknown> }),
      );
    });
    request.on("error", reject).end(body === undefined ? undefined : JSON.stringify(body));
  });
}

test("each call accepts and answers what the daemon's OpenAPI document describes", async (t) => {
  const daemon = await new TestDaemon(t).start();
  const workspace = path.join(SCRATCH, "described");
  fs.mkdirSync(workspace);
  fs.writeFileSync(path.join(workspace, "a.txt"), "one\n");
  cairnOk(["save", workspace], daemon.asked);
  fs.writeFileSync(path.join(workspace, "a.txt"), "two\n");
  const { status, value } = await ask(daemon.socket, "GET", "/v1/openapi.json");
  assert.equal(status, 200);
  const document = value as unknown as Document;
  assert.equal(document.openapi, "3.1.0");
  assert.deepEqual(document, JSON.parse(JSON.stringify(openApi())), "the package's openapi.json is made of it");
  const ajv = ajvOf(document);
  const calls: Record<string, object> = {
    save: { options: { message: "second", tags: ["a"] } },
    history: {},
    status: {},
    latestSavePoint: {},
    hasSavePoints: {},
    resolve: { target: "head" },
    diff: { a: "head~1", b: "head" },
    show: { target: "head" },
    why: { path: "a.txt" },
    verify: { target: "head" },
    pin: { target: "head" },
    unpin: { target: "head" },
    tag: { target: "head", edit: { add: ["b"] } },
    planRestore: { options: { target: "head~1" } },
    restore: { options: { target: "head~1" } },
    undo: {},
    policy: {},
    store: {},
    doctor: {},
    previewCleanup: { options: { retention: { keepLast: 5 } } },
    verifyAll: {},
    workspacePath: {},
    backupRepository: {},
    hooks: {},
    setHooks: { edit: { beforeSave: "true", seconds: 5 } },
    listViews: {},
    fork: { target: "head", path: `${workspace}-fork` },
  };
  /** Those that are about no workspace. */
  const own: Record<string, object> = {
    daemon: {},
    running: {},
    pastEvents: { path: workspace },
    list: {},
    at: { path: workspace },
    register: { path: workspace },
    reconcile: {},
    reload: {},
    tokenCreate: { options: { workspaces: [workspace], expires: "2d" } },
    tokenList: {},
    find: { path: workspace },
    detectEngine: { path: workspace },
    listWorkspaces: {},
    listDatabases: { path: workspace },
    forget: { path: path.join(SCRATCH, "never-there") },
    release: { workspace: `${workspace}-fork` },
  };
  for (const [name, members] of [...Object.entries(calls), ...Object.entries(own)]) {
    const operation = document.paths[`/v1/${name}`]?.post;
    assert.ok(operation !== undefined, name);
    const request = name in own ? members : { workspace, ...members };
    const takes = ajv.compile(schemaOf(operation.requestBody.content));
    assert.ok(takes(request), `${name}: ${ajv.errorsText(takes.errors)}`);
    assert.ok(!takes({ ...request, unknown: 1 }), name);
    const answered = await ask(daemon.socket, "POST", `/v1/${name}`, request);
    const gives = ajv.compile(schemaOf(operation.responses["200"].content));
    assert.equal(answered.status, 200, `${name}: ${JSON.stringify(answered.value)}`);
    assert.ok(gives(answered.value), `${name}: ${ajv.errorsText(gives.errors)}`);
    const failed = await ask(daemon.socket, "POST", `/v1/${name}`, { ...request, workspace: "nowhere", unknown: 1 });
    const fails = ajv.compile(schemaOf(operation.responses.default.content));
    assert.ok(fails(failed.value), `${name}: ${ajv.errorsText(fails.errors)}`);
  }
});

test("events and jobs match the daemon's OpenAPI document", async (t) => {
  const daemon = await new TestDaemon(t).start();
  const workspace = path.join(SCRATCH, "described-jobs");
  fs.mkdirSync(workspace);
  cairnOk(["save", workspace], daemon.asked);
  const document = (await ask(daemon.socket, "GET", "/v1/openapi.json")).value as unknown as Document;
  const { paths, components } = document;
  const ajv = ajvOf(document);
  const fits = (content: object, value: unknown): void => {
    const check = ajv.compile(schemaOf(content as Content));
    assert.ok(check(value), `${ajv.errorsText(check.errors)} in ${JSON.stringify(value)}`);
  };
  const begun = await ask(daemon.socket, "POST", "/v1/save", { workspace }, { prefer: "respond-async" });
  assert.equal(begun.status, 202);
  fits(components.responses.Begun.content, begun.value);
  const { job_id: id } = begun.value["data"] as { job_id: string };
  const ofJob = paths["/v1/jobs/{id}"]!.get.responses["200"].content;
  await eventually("the job ends", async () => {
    const { value } = await ask(daemon.socket, "GET", `/v1/jobs/${id}`);
    fits(ofJob, value);
    return (value["data"] as { state: string }).state === "done";
  });
  const ofJobs = paths["/v1/jobs"]!.get.responses["200"].content;
  fits(ofJobs, (await ask(daemon.socket, "GET", "/v1/jobs")).value);
  const ofEvent = paths["/v1/events"]!.get.responses["200"].content;
  const seen = new Set<string>();
  for await (const event of connect({ socket: daemon.socket }).events({ after: 0 })) {
    fits(ofEvent, event);
    seen.add(event.type);
    if (event.type === "job" && event.data.state === "done") break;
  }
  // A daemon that watches the folder may have told of a change in it, too.
  seen.delete("changed");
  assert.deepEqual([...seen].toSorted(), ["job", "registered", "reset", "save"]);
});

test("the daemon's metrics have the Prometheus format and describe its workspaces", async (t) => {
  const daemon = await new TestDaemon(t).start();
  const workspace = path.join(SCRATCH, 'odd "name');
  fs.mkdirSync(workspace);
  const before = Date.now() / 1000 - 1;
  cairnOk(["save", workspace], daemon.asked);
  const text = await new Promise<string>((resolve, reject) => {
    const request = http.get({ socketPath: daemon.socket, path: "/metrics" }, (response) => {
      assert.match(response.headers["content-type"] ?? "", /^text\/plain; version=0\.0\.4/);
      let all = "";
      response
        .setEncoding("utf8")
        .on("data", (piece: string) => (all += piece))
        .on("end", () => resolve(all));
    });
    request.on("error", reject);
  });
  for (const line of text.trimEnd().split("\n"))
    assert.match(
      line,
      /^(?:# (?:HELP|TYPE) cairn_[a-z_]+ .+|cairn_[a-z_]+(?:\{[a-z]+="(?:[^"\\\n]|\\.)*"(?:,[a-z]+="(?:[^"\\\n]|\\.)*")*\})? -?[0-9.e+]+)$/,
      line,
    );
  const label = workspace.replace('"', '\\"');
  assert.ok(text.includes(`cairn_workspace_points{path="${label}"} 1\n`), text);
  assert.ok(text.includes(`cairn_workspace_healthy{path="${label}"} 1\n`));
  const [, made] = /^cairn_workspace_last_point_time_seconds\{.*\} (.*)$/m.exec(text)!;
  assert.ok(Number(made) >= before && Number(made) <= Date.now() / 1000 + 1);
  assert.equal((await ask(daemon.socket, "GET", "/v1/nothing")).status, 400);
});
