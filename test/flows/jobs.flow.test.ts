import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import fs from "node:fs";
import http from "node:http";
import path from "node:path";
import { test, type TestContext } from "node:test";
import { connect } from "../../src/client.ts";
import type {
  HistoryResult,
  Job,
  JobList,
  OperationList,
  RestoreProof,
  SavePoint,
  ServiceEvent,
} from "../../src/contract/index.ts";
import type { ErrorRecord } from "../../src/contract/error-record.ts";
import { cairnOk, SCRATCH } from "../fixtures/command.ts";
import { TestDaemon } from "../fixtures/daemon.ts";
import { eventually } from "../fixtures/eventually.ts";
import { loopFileSystem, ORDINARY_USER } from "../fixtures/loop-file-system.ts";
import { installForOrdinaryUser, whyNoOrdinaryUser } from "../fixtures/ordinary-user.ts";

/** Calls that go on without their caller, and calls that are done once however often they are asked for. */

interface Answered {
  status: number;
  location: string | undefined;
  data: Record<string, unknown>;
  error: ErrorRecord | null;
  warnings: string[];
}

function ask(
  daemon: TestDaemon,
  method: string,
  url: string,
  { body, headers = {} }: { body?: object; headers?: Record<string, string> } = {},
): Promise<Answered> {
  return new Promise((resolve, reject) => {
    const request = http.request(
      { socketPath: daemon.socket, method, path: url, headers, agent: false },
      (response) => {
        let text = "";
        response.setEncoding("utf8").on("data", (piece: string) => (text += piece));
        response.on("end", () =>
          resolve({
            status: response.statusCode!,
            location: response.headers.location,
            ...(JSON.parse(text) as Omit<Answered, "status" | "location">),
          }),
        );
      },
    );
    request.on("error", reject).end(body === undefined ? undefined : JSON.stringify(body));
  });
}

const ASYNC = { prefer: "respond-async" };

async function workspace(
  t: TestContext,
  env: Record<string, string> = {},
): Promise<{ daemon: TestDaemon; folder: string }> {
  const daemon = new TestDaemon(t);
  daemon.configure('[backend]\ntype = "plain"\n');
  await daemon.start(env);
  const folder = path.join(daemon.folder, "ws");
  fs.mkdirSync(folder);
  fs.writeFileSync(path.join(folder, "a"), "one");
  await daemon.call("register", { path: folder });
  return { daemon, folder };
}

async function points(daemon: TestDaemon, folder: string): Promise<SavePoint[]> {
  const history = await daemon.call("history", { workspace: folder, options: { all: true } });
  return (history as HistoryResult).save_points;
}

async function ended(daemon: TestDaemon, location: string): Promise<Job> {
  let job!: Job;
  await eventually("the job ends", async () => {
    job = (await ask(daemon, "GET", location)).data as unknown as Job;
    return job.ended_at !== null;
  });
  return job;
}

test("a call with the header prefer: respond-async becomes a job that keeps the call's answer or error", async (t) => {
  const { daemon, folder } = await workspace(t);
  const begun = await ask(daemon, "POST", "/v1/save", { body: { workspace: folder }, headers: ASYNC });
  assert.equal(begun.status, 202);
  assert.equal(begun.location, `/v1/jobs/${begun.data["job_id"] as string}`);
  assert.deepEqual(Object.keys(begun.data), ["job_id", "state"]);
  const job = await ended(daemon, begun.location!);
  assert.equal(job.state, "done");
  assert.equal((job.answer as SavePoint).save_point_id, (await points(daemon, folder))[0]!.save_point_id);
  const failed = await ask(daemon, "POST", "/v1/restore", {
    body: { workspace: folder, options: { target: "head~7" } },
    headers: { prefer: "wait=1, Respond-Async" },
  });
  const { state, error, answer } = await ended(daemon, failed.location!);
  assert.deepEqual([state, error?.code, answer], ["failed", "not_found", null]);
  const looked = await ask(daemon, "POST", "/v1/verifyAll", { body: { workspace: folder }, headers: ASYNC });
  assert.equal((await ended(daemon, looked.location!)).verb, "verifyAll");
  const { jobs, next } = (await ask(daemon, "GET", "/v1/jobs?limit=2")).data as unknown as JobList;
  assert.deepEqual(
    jobs.map(({ verb }) => verb),
    ["verifyAll", "restore"],
  );
  const rest = (await ask(daemon, "GET", `/v1/jobs?after=${next!}`)).data as unknown as JobList;
  assert.deepEqual([rest.jobs.map(({ verb }) => verb), rest.next], [["save"], null]);
  await daemon.stop();
  await daemon.start();
  assert.deepEqual((await ask(daemon, "GET", begun.location!)).data, { ...job });
  assert.equal((await ask(daemon, "GET", "/v1/jobs/0123")).status, 404);
  assert.equal((await ask(daemon, "GET", "/v1/jobs?limit=x")).status, 400);
  assert.equal((await ask(daemon, "PUT", "/v1/jobs")).status, 400);
});

test("a queued or running job can be cancelled, and each new state of a job is sent as an event", async (t) => {
  const { daemon, folder } = await workspace(t);
  const library = connect({ socket: daemon.socket });
  const heard: ServiceEvent[] = [];
  const stopped = new AbortController();
  const hearing = (async () => {
    for await (const each of library.events({ types: ["job"], after: 0, signal: stopped.signal })) heard.push(each);
  })().catch(() => undefined);
  for (let i = 0; i < 5_000; i++) fs.writeFileSync(path.join(folder, `f${i}`), `content ${i}`);
  const save = { body: { workspace: folder }, headers: ASYNC };
  const first = await ask(daemon, "POST", "/v1/save", save);
  const second = await ask(daemon, "POST", "/v1/save", save);
  const waiting = await library.cancelJob(second.data["job_id"] as string);
  assert.equal(waiting.state, "cancelled");
  const { state } = await library.cancelJob(first.data["job_id"] as string);
  assert.equal(state, "cancelled");
  assert.deepEqual(await points(daemon, folder), []);
  assert.equal((await library.job(first.data["job_id"] as string)).error?.code, "interrupted");
  assert.equal((await library.jobs({ limit: 1 })).jobs.length, 1);
  await assert.rejects(library.job("0123"), { code: "not_found" });
  const statesOf = (id: unknown): string[] =>
    heard.flatMap(({ type, data, id: number }) =>
      type === "job" && data.job_id === id && number !== null ? [data.state] : [],
    );
  await eventually("both are told", () => statesOf(first.data["job_id"]).length === 3);
  assert.deepEqual(statesOf(first.data["job_id"]), ["queued", "running", "cancelled"]);
  assert.deepEqual(statesOf(second.data["job_id"]), ["queued", "cancelled"]);
  stopped.abort();
  await hearing;
});

test("the daemon limits the jobs of one user, and each accepted save makes one point", async (t) => {
  const daemon = new TestDaemon(t);
  daemon.configure('[backend]\ntype = "plain"\n[socket]\ncalls = 4\n');
  await daemon.start();
  const folder = path.join(daemon.folder, "ws");
  fs.mkdirSync(folder);
  await daemon.call("register", { path: folder });
  const answers = await Promise.all(
    Array.from({ length: 60 }, async () =>
      ask(daemon, "POST", "/v1/save", { body: { workspace: folder }, headers: ASYNC }),
    ),
  );
  const taken = answers.filter(({ status }) => status === 202);
  assert.ok(answers.every(({ status, error }) => status === 202 || error?.code === "busy"));
  assert.ok(taken.length >= 4);
  const jobs = await Promise.all(taken.map(async ({ location }) => ended(daemon, location!)));
  const done = jobs.filter(({ state }) => state === "done");
  assert.equal((await points(daemon, folder)).length, done.length);
});

test("an idempotency key makes one point for repeated calls, and is refused for another call", async (t) => {
  const { daemon, folder } = await workspace(t);
  const once = async (key: string, options: object = {}): Promise<Answered> =>
    ask(daemon, "POST", "/v1/save", { body: { workspace: folder, options }, headers: { "idempotency-key": key } });
  const answers = await Promise.all(Array.from({ length: 10 }, async () => once("k")));
  assert.equal(new Set(answers.map(({ data }) => JSON.stringify(data))).size, 1);
  assert.equal((await points(daemon, folder)).length, 1);
  const other = await once("k", { message: "other" });
  assert.deepEqual([other.status, other.error?.code], [409, "conflict"]);
  await daemon.stop();
  await daemon.start();
  assert.deepEqual((await once("k")).data, answers[0]!.data);
  assert.equal((await once("x".repeat(129))).status, 400);
  assert.equal((await once("tab\there")).status, 400);
  assert.equal((await points(daemon, folder)).length, 1);
  // By the package's client, whose calls stay what they are.
  const library = connect({ socket: daemon.socket });
  await using client = await library.open(folder);
  const [one, two] = await Promise.all([1, 2].map(async () => library.keyed(client, "turn 1").save({ message: "m" })));
  assert.deepEqual(one, two);
  await assert.rejects(library.keyed(client, "turn 1").undo(), { code: "conflict" });
  assert.equal((await library.keyed(client, "turn 1").history()).save_points.length, 2, "a look needs no key");
  // One that goes away does not end what it began.
  const left = new AbortController();
  left.abort();
  await assert.rejects(client.save({ signal: left.signal }), { code: "interrupted" });
  const request = http.request({
    socketPath: daemon.socket,
    method: "POST",
    path: "/v1/save",
    headers: { "idempotency-key": "left", accept: "application/x-ndjson" },
  });
  request.on("error", () => undefined);
  request.end(JSON.stringify({ workspace: folder, options: {} }));
  request.on("response", () => request.destroy());
  await eventually("it is done all the same", async () => (await points(daemon, folder)).length === 3);
  assert.ok((await once("left")).status === 200);
  assert.equal((await points(daemon, folder)).length, 3);
});

test("a killed save that is repeated with its idempotency key makes one point", async (t) => {
  for (const [failpoint, made] of [
    ["job.recorded", 0],
    ["call.done", 1],
    ["job.done", 1],
    ["job.ended", 1],
  ] as const) {
    const { daemon, folder } = await workspace(t, { CAIRN_FAILPOINT: failpoint });
    const save = async (): Promise<Answered> =>
      ask(daemon, "POST", "/v1/save", {
        body: { workspace: folder, options: { message: "m", cause: { kind: "tool_call", tool: "bash" } } },
        headers: { "idempotency-key": "k" },
      });
    await assert.rejects(save(), failpoint);
    await daemon.ended();
    await daemon.start();
    assert.equal((await points(daemon, folder)).length, made, failpoint);
    const answered = await save();
    assert.equal(answered.status, 200, JSON.stringify(answered.error));
    const [point, ...others] = await points(daemon, folder);
    assert.deepEqual(others, [], failpoint);
    assert.equal(answered.data["save_point_id"], point!.save_point_id, failpoint);
    assert.equal(point!.cause["tool"], "bash");
    const isLost = failpoint === "call.done" || failpoint === "job.done";
    assert.equal(answered.warnings.length, isLost ? 1 : 0, failpoint);
    assert.deepEqual((await save()).data, answered.data, failpoint);
    await daemon.kill();
  }
});

test("a killed undo repeated with its key is done once; a repeated restore that was undone since is refused", async (t) => {
  for (const failpoint of ["restore.intent", "restore.committed", "call.done"]) {
    const { daemon, folder } = await workspace(t);
    const file = path.join(folder, "a");
    await daemon.call("save", { workspace: folder });
    fs.writeFileSync(file, "two");
    await daemon.call("restore", { workspace: folder, options: { target: "head" } });
    assert.equal(fs.readFileSync(file, "utf8"), "one");
    await daemon.stop();
    await daemon.start({ CAIRN_FAILPOINT: failpoint });
    const undo = async (): Promise<Answered> =>
      ask(daemon, "POST", "/v1/undo", { body: { workspace: folder }, headers: { "idempotency-key": "k" } });
    await assert.rejects(undo(), failpoint);
    await daemon.ended();
    await daemon.start();
    const answered = await undo();
    assert.equal(answered.status, 200, `${failpoint}: ${JSON.stringify(answered.error)}`);
    assert.equal(fs.readFileSync(file, "utf8"), "two", failpoint);
    assert.deepEqual((await undo()).data, answered.data);
    await daemon.call("redo", { workspace: folder });
    assert.equal(fs.readFileSync(file, "utf8"), "one", `${failpoint}: a redo reverts that undo`);
    await daemon.kill();
  }
  const { daemon, folder } = await workspace(t);
  const file = path.join(folder, "a");
  await daemon.call("save", { workspace: folder });
  await daemon.stop();
  await daemon.start({ CAIRN_FAILPOINT: "call.done" });
  fs.writeFileSync(file, "two");
  const restore = async (): Promise<Answered> =>
    ask(daemon, "POST", "/v1/restore", {
      body: { workspace: folder, options: { target: "head" } },
      headers: { "idempotency-key": "k" },
    });
  await assert.rejects(restore());
  await daemon.ended();
  await daemon.start();
  await daemon.call("undo", { workspace: folder });
  assert.equal((await restore()).error?.code, "conflict");
  assert.equal(fs.readFileSync(file, "utf8"), "two");
});

test("a killed restore from a backup repeated with its key is done once, and keeps what was written since", async (t) => {
  for (const [failpoint, isDone] of [
    ["restore-backup.received", false],
    ["restore.committed", true],
    ["restore-backup.restored", true],
    ["call.done", true],
  ] as const) {
    const { daemon, folder } = await workspace(t);
    const file = path.join(folder, "a");
    const repository = [
      "-r",
      path.join(daemon.folder, "repository"),
      "--password-file",
      path.join(daemon.folder, "pw"),
    ];
    fs.writeFileSync(repository[3]!, "secret");
    cairnOk(["backup", "init", ...repository]);
    await daemon.call("save", { workspace: folder });
    cairnOk(["-C", folder, "backup", "create", ...repository], daemon.asked);
    cairnOk(["-C", folder, "backup", "use", ...repository], daemon.asked);
    fs.writeFileSync(file, "two");
    await daemon.stop();
    await daemon.start({ CAIRN_FAILPOINT: failpoint });
    const restore = async (): Promise<Answered> =>
      ask(daemon, "POST", "/v1/restoreFromBackup", {
        body: { workspace: folder, snapshot: "latest" },
        headers: { "idempotency-key": "k" },
      });
    await assert.rejects(restore(), failpoint);
    await daemon.ended();
    await daemon.start();
    // A first call of the new daemon finishes the killed restore.
    await daemon.call("operations", { workspace: folder });
    if (isDone) fs.writeFileSync(file, "three");
    const answered = await restore();
    assert.equal(answered.status, 200, `${failpoint}: ${JSON.stringify(answered.error)}`);
    assert.equal(fs.readFileSync(file, "utf8"), isDone ? "three" : "one", failpoint);
    assert.equal(answered.warnings.length, isDone ? 1 : 0, failpoint);
    const { location, snapshot_id, target, dry_run, undo_id } = answered.data;
    const proof = answered.data["proof"] as RestoreProof | null;
    // A kill before the folder was read again leaves no receipt.
    assert.equal(
      proof === null,
      failpoint === "restore.committed" || failpoint === "restore-backup.restored",
      failpoint,
    );
    if (proof !== null) assert.equal(fs.existsSync(proof.receipt!), true, failpoint);
    assert.deepEqual([location, target, dry_run], [repository[1], folder, false]);
    assert.match(String(snapshot_id), /^[0-9a-f]{64}$/);
    assert.deepEqual((await restore()).data, answered.data, failpoint);
    const { operations } = (await daemon.call("operations", { workspace: folder })) as OperationList;
    assert.deepEqual(
      operations.map((each) => each.undo_id),
      [undo_id],
      failpoint,
    );
    await daemon.kill();
  }
});

test("a killed undo by exchange repeated with its key is done once, or refused if its outcome is unknown", async (t) => {
  for (const [failpoint, status] of [
    ["exchange.known", 200],
    ["exchange.exchanged", 409],
    ["exchange.saved", 200],
    ["exchange.recorded", 200],
  ] as const) {
    const volume = loopFileSystem(t, "btrfs");
    if (volume === null) return;
    const daemon = new TestDaemon(t);
    daemon.configure(`[backend]\ndata_root = "${volume.root}"\n`);
    await daemon.start();
    const folder = path.join(volume.root, "ws");
    execFileSync("btrfs", ["-q", "subvolume", "create", folder]);
    const file = path.join(folder, "a");
    fs.writeFileSync(file, "one");
    await daemon.call("register", { path: folder });
    await daemon.call("save", { workspace: folder });
    fs.writeFileSync(file, "two");
    await daemon.call("restore", { workspace: folder, options: { target: "head", method: "exchange" } });
    await daemon.stop();
    await daemon.start({ CAIRN_FAILPOINT: failpoint });
    const undo = async (): Promise<Answered> =>
      ask(daemon, "POST", "/v1/undo", {
        body: { workspace: folder, options: { method: "exchange" } },
        headers: { "idempotency-key": "k" },
      });
    await assert.rejects(undo(), failpoint);
    await daemon.ended();
    await daemon.start();
    const answered = await undo();
    assert.equal(answered.status, status, `${failpoint}: ${JSON.stringify(answered.error)}`);
    assert.equal(fs.readFileSync(file, "utf8"), "two", failpoint);
    await daemon.kill();
  }
});

test("a stopping daemon lets a running job end, and a daemon starts with a damaged job database", async (t) => {
  const { daemon, folder } = await workspace(t);
  for (let i = 0; i < 3_000; i++) fs.writeFileSync(path.join(folder, `f${i}`), `content ${i}`);
  const begun = await ask(daemon, "POST", "/v1/save", { body: { workspace: folder }, headers: ASYNC });
  assert.equal(await daemon.stop(), 0);
  await daemon.start();
  assert.equal((await ended(daemon, begun.location!)).state, "done", "it had its grace");
  await daemon.kill();
  fs.writeFileSync(path.join(daemon.state, "records.db"), "spoiled".repeat(1_000));
  await daemon.start();
  assert.match(daemon.log, /records\.db cannot be read/);
  assert.equal((await ask(daemon, "GET", begun.location!)).status, 404);
  assert.equal((await points(daemon, folder)).length, 1);
  await daemon.call("save", { workspace: folder });
});

test("only root sees another user's jobs", { skip: whyNoOrdinaryUser() ?? false }, async (t) => {
  const { daemon, folder } = await workspace(t);
  const user = installForOrdinaryUser();
  t.after(() => user.remove());
  fs.chmodSync(SCRATCH, 0o755);
  fs.chmodSync(daemon.folder, 0o755);
  fs.chmodSync(daemon.socket, 0o666);
  const own = path.join(daemon.folder, "own");
  fs.mkdirSync(own);
  fs.chownSync(own, ORDINARY_USER, ORDINARY_USER);
  await daemon.call("register", { path: own });
  const ours = await ask(daemon, "POST", "/v1/save", { body: { workspace: folder }, headers: ASYNC });
  await ended(daemon, ours.location!);
  const { prefix, node } = user.optionsIn("/");
  const [program, ...rest] = [...prefix!, node!];
  const script = `const [socketPath, method, path, body] = process.argv.slice(1);
require("http").request({ socketPath, method, path, headers: { prefer: "respond-async" } }, (r) => { let s = ""; r.on("data", (d) => (s += d)); r.on("end", () => console.log(s)); }).end(body);`;
  const as = (method: string, url: string, body = ""): Answered =>
    JSON.parse(
      spawnSync(program!, [...rest, "-e", script, daemon.socket, method, url, body], { encoding: "utf8" }).stdout,
    ) as Answered;
  assert.equal(as("GET", ours.location!).error?.code, "not_found");
  assert.equal(as("DELETE", ours.location!).error?.code, "not_found");
  assert.deepEqual(as("GET", "/v1/jobs").data["jobs"], []);
  const { job_id: id } = as("POST", "/v1/save", JSON.stringify({ workspace: own })).data as { job_id: string };
  assert.equal((await ended(daemon, `/v1/jobs/${id}`)).state, "done");
  assert.equal(as("GET", `/v1/jobs/${id}`).data["state"], "done");
  const refused = as("POST", "/v1/save", JSON.stringify({ workspace: folder })).data as { job_id: string };
  assert.equal((await ended(daemon, `/v1/jobs/${refused.job_id}`)).error?.code, "permission");
});
