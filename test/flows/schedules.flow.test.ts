import assert from "node:assert/strict";
import { Connection } from "../../src/api/client/connection.ts";
import type { HistoryResult } from "../../src/contract/looking.ts";
import type { DaemonStatus, DueResult, Schedule } from "../../src/verbs/schemas.ts";
import { buildCommand, cairn, SCRATCH } from "../fixtures/command.ts";
import { TestDaemon } from "../fixtures/daemon.ts";
import { eventually } from "../fixtures/eventually.ts";
import { backup, newRepository, type TestRepository } from "../fixtures/repository.ts";
import { ageRuns, runsIn } from "../fixtures/schedule.ts";
import { newFolder } from "../fixtures/work.ts";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer, type IncomingMessage, request } from "node:http";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";
import { test, type TestContext } from "node:test";
import fs from "node:fs";
import path from "node:path";

/** What the daemon does by the clock, with real repositories. */

interface Place {
  daemon: TestDaemon;
  folder: string;
  repository: TestRepository;
  row: string;
}

/** A daemon with one workspace and a repository; not yet configured to back it up. */
async function place(t: TestContext): Promise<Place> {
  const repository = await newRepository("scheduled-repository");
  const daemon = new TestDaemon(t);
  const folder = newFolder("scheduled");
  fs.writeFileSync(path.join(folder, "letter"), "dear Ben");
  const row = `[[backup]]\nrepository = "${repository.location}"\npassword_file = "${repository.passwordFile}"\n`;
  daemon.configure("");
  await daemon.start();
  await daemon.call("register", { path: folder });
  return { daemon, folder, repository, row };
}

async function configure({ daemon }: Place, config: string): Promise<void> {
  daemon.configure(config);
  await daemon.call("reload");
}

type Row = DaemonStatus["schedules"][number];

async function rowOf({ daemon }: Place, kind: Row["kind"]): Promise<Row> {
  return (await daemon.status()).schedules.find((each) => each.kind === kind)!;
}

async function get(daemon: TestDaemon, name: string): Promise<{ status: number; body: string }> {
  const call = request({ socketPath: daemon.socket, path: name }).end();
  const [response] = (await once(call, "response")) as [IncomingMessage];
  return { status: response.statusCode!, body: await text(response) };
}

function snapshots({ repository }: Place): unknown[] {
  return backup(repository, "list").data["snapshots"] as unknown[];
}

test("the daemon saves a changed folder on a schedule, and a save without changes makes no point", async (t) => {
  const here = await place(t);
  const { daemon, folder } = here;
  await configure(here, '[saves]\nat_most_every = "1s"\n[limits]\nsave_age = "10s"\n');
  const points = async (): Promise<HistoryResult["save_points"]> =>
    ((await daemon.call("history", { workspace: folder })) as HistoryResult).save_points;
  await eventually("the first save", async () => (await points()).length === 1);
  const [first] = await points();
  assert.equal(first!.cause.kind, "schedule");
  const seen = async (): Promise<string> => (await daemon.status()).workspaces[0]!.last_save_at!;
  await eventually(
    "a save that finds nothing",
    async () => Date.parse(await seen()) > Date.parse(first!.created_at) + 1500,
  );
  assert.equal((await points()).length, 1);
  fs.writeFileSync(path.join(folder, "letter"), "dear Ann");
  await eventually("the second save", async () => (await points()).length === 2);
  assert.match(daemon.log, /saved automatically/);
  assert.equal((await get(daemon, "/v1/health")).status, 200);
  assert.equal((await get(daemon, "/v1/ready")).status, 200);
});

test("the daemon makes and records backups on a schedule, and makes one missed backup after a stop", async (t) => {
  const here = await place(t);
  const { daemon, folder, row } = here;
  await configure(here, `${row}every = "1h"\n[limits]\nbackup_age = "2h"\n`);
  await eventually("the first backup", async () => (await rowOf(here, "backup")).good_at !== null);
  assert.equal(snapshots(here).length, 1);
  const { next_at, ran_at } = await rowOf(here, "backup");
  assert.equal(Date.parse(next_at!) - Date.parse(ran_at!), 3_600_000);
  assert.equal((await daemon.status()).workspaces[0]!.last_backup_at, ran_at);
  await daemon.stop();
  // As if it had been away for a day.
  ageRuns(24, daemon.recordsEnv);
  fs.writeFileSync(path.join(folder, "letter"), "dear Ann");
  await daemon.start();
  const late = cairn(["service", "status"], daemon.asked);
  assert.equal(late.status, 4);
  assert.equal(late.error!.code, "overdue");
  assert.match(late.error!.message, /the last good backup into .* was at/);
  const health = await get(daemon, "/v1/health");
  assert.equal(health.status, 503);
  assert.match(health.body, /last good backup/);
  await eventually("the backup that was missed", async () => (await daemon.status()).overdue.length === 0);
  assert.equal(snapshots(here).length, 2);
  assert.equal(cairn(["service", "status"], daemon.asked).status, 0);
});

test("due over HTTP does what is due once, also if two calls and the daemon's schedule meet", async (t) => {
  const here = await place(t);
  const { daemon, folder, row } = here;
  await configure(here, `${row}every = "1h"\n`);
  await eventually("the first backup", async () => (await rowOf(here, "backup")).good_at !== null);
  fs.writeFileSync(path.join(folder, "letter"), "dear Ann");
  ageRuns(2, daemon.recordsEnv);
  const due = async (): Promise<DueResult> => (await daemon.call("due", { workspace: folder })) as DueResult;
  const done = await Promise.all([due(), due()]);
  await eventually("the second backup", () => snapshots(here).length === 2);
  assert.ok(done.flatMap(({ ran }) => ran).filter(({ kind }) => kind === "backup").length <= 1);
  assert.deepEqual((await due()).ran, []);
  assert.equal(snapshots(here).length, 2);
  const { runs, problems } = (await daemon.call("schedule", { workspace: folder })) as Schedule;
  assert.deepEqual([runs.map(({ kind }) => kind), problems], [["backup", "save"], []]);
  await assert.rejects(daemon.call("setSchedule", { workspace: folder, edit: { backup: "2h" } }), /configuration/);
});

test("a backup whose daemon was killed before it recorded the backup is made again, without a second snapshot", async (t) => {
  const here = await place(t);
  const { daemon, row } = here;
  await daemon.stop();
  daemon.configure(`${row}every = "1h"\n`);
  await daemon.start({ CAIRN_FAILPOINT: "daemon.schedule-ran" });
  await daemon.ended();
  assert.equal(snapshots(here).length, 1);
  await daemon.start();
  assert.equal((await rowOf(here, "backup")).good_at, null, "nothing is claimed that was not recorded");
  await eventually("the backup again", async () => (await rowOf(here, "backup")).good_at !== null);
  assert.equal(snapshots(here).length, 1);
});

test("the daemon calls the alarm command once for each change of state, also over a restart", async (t) => {
  const here = await place(t);
  const { daemon, folder, repository, row } = here;
  const told = path.join(daemon.folder, "told");
  const lines = (): { text: string; what: string; state: string; error: { code: string } | null }[] =>
    fs.existsSync(told)
      ? fs
          .readFileSync(told, "utf8")
          .split("\n")
          // The shell makes the file before the line is written.
          .filter((line) => line !== "")
          .map((line) => JSON.parse(line) as ReturnType<typeof lines>[number])
      : [];
  const states = (): string[] => lines().map(({ what, state }) => `${what} ${state}`);
  const config = (limits: string): string => `${row}every = "1s"\n${limits}[alarm]\non_failure = "cat >> ${told}"\n`;
  fs.renameSync(repository.location, `${repository.location}-away`);
  await configure(here, config(""));
  // A daemon that is stopped before it knows that the command has ended calls it again.
  await eventually("the alarm", () => daemon.log.includes("the alarm was called: backup of "));
  assert.deepEqual(states(), ["backup failed"]);
  assert.equal(lines()[0]!.error!.code, "not_found");
  assert.ok(lines()[0]!.text.startsWith(`backup of ${folder} into ${repository.location} failed: `));
  await daemon.stop();
  await daemon.start();
  const { ran_at: before } = await rowOf(here, "backup");
  await eventually("another run", async () => (await rowOf(here, "backup")).ran_at! > before!);
  assert.deepEqual(states(), ["backup failed"]);
  fs.renameSync(`${repository.location}-away`, repository.location);
  await configure(here, config(""));
  await eventually("the end of the alarm", () => lines().length > 1);
  assert.deepEqual(states(), ["backup failed", "backup well"]);
  // Nothing saves the folder by itself, and a limit passes.
  daemon.configure(config('[limits]\nsave_age = "1s"\n').replace(/^\[\[backup[^]*?(?=\[limits)/, ""));
  await daemon.call("reload");
  await eventually("the limit", () => lines().length > 2);
  await daemon.call("save", { workspace: folder });
  await eventually("the call for the save", () => lines().length > 3);
  assert.deepEqual(states().slice(2, 4), ["save late", "save well"]);
  await configure(here, `[saves]\nat_most_every = "1s"\n[alarm]\non_failure = "cat >> ${told}"\n`);
  fs.renameSync(folder, `${folder}-away`);
  await eventually("a save that fails", () => states().at(-1) === "save failed");
  assert.notEqual(lines().at(-1)!.error, null);
  fs.renameSync(`${folder}-away`, folder);
  await eventually("a save that is good again", () => states().at(-1) === "save well");
  assert.match(daemon.log, /the alarm was called: save of /);
});

test("the daemon verifies every pack within read_all_within, in parts", async (t) => {
  const here = await place(t);
  const { folder, row } = here;
  for (let i = 0; i < 4; i++) fs.writeFileSync(path.join(folder, `f${i}`), `${i}`.repeat(1000));
  const begun = new Date().toISOString();
  await configure(here, `${row}every = "1h"\nverify_every = "1s"\nread_all_within = "60s"\n`);
  await eventually("some parts", async () => (await rowOf(here, "verify")).good_at !== null);
  const parts = (): string[] => runsIn(here.daemon.recordsEnv).find(({ kind }) => kind === "verify")!.parts_read_at!;
  assert.equal(parts().length, 48);
  assert.ok((await rowOf(here, "verify")).all_read_since! < new Date(Date.parse(begun) + 10_000).toISOString());
  // A shorter time makes fewer parts, of which none counts as newer than it is.
  await configure(here, `${row}every = "1h"\nverify_every = "1s"\nread_all_within = "5s"\n`);
  await eventually("all parts", async () => {
    const { all_read_since: since, error } = await rowOf(here, "verify");
    assert.equal(error, null);
    return since! > begun && parts().length === 4;
  });
  const { last_proof_at } = (await here.daemon.status()).workspaces[0]!;
  assert.ok(last_proof_at! > begun);
});

test("a scheduled restore check of a damaged repository makes the proof overdue until the repository is repaired", async (t) => {
  const here = await place(t);
  const { daemon, repository, row } = here;
  const config = `${row}every = "1h"\nrestore_check_every = "1s"\n[limits]\nproof_age = "8s"\n`;
  await configure(here, config);
  await eventually("a check", async () => (await rowOf(here, "restore-check")).good_at !== null);
  assert.equal(cairn(["service", "status"], daemon.asked).status, 0);
  const receipts = fs.globSync(path.join(SCRATCH, "**/receipts/*")).length;
  assert.ok(receipts > 0, "a receipt is signed");
  const packs = fs.globSync(path.join(repository.location, "data/*/*"));
  const whole = packs.map((file) => fs.readFileSync(file));
  for (const file of packs) {
    fs.chmodSync(file, 0o600);
    fs.writeFileSync(file, Buffer.alloc(fs.statSync(file).size, 1));
  }
  await eventually("the damage", async () => (await rowOf(here, "restore-check")).error !== null);
  await eventually("the limit", async () => (await daemon.status()).overdue.length > 0);
  const status = cairn(["service", "status"], daemon.asked);
  assert.equal(status.error?.code, "overdue");
  assert.deepEqual((status.data["workspaces"] as { overdue: string[] }[])[0]!.overdue, ["proof"]);
  const metrics = await get(daemon, "/metrics");
  assert.match(metrics.body, /cairn_workspace_overdue\{path="[^"]+",kind="proof"\} 1/);
  assert.match(metrics.body, /cairn_schedule_failed\{kind="restore-check",.*\} 1/);
  assert.match(metrics.body, /cairn_age_limit_seconds\{kind="proof"\} 8/);
  packs.forEach((file, i) => fs.writeFileSync(file, whole[i]!));
  await eventually("a check that passes", async () => (await daemon.status()).overdue.length === 0);
  assert.match(metrics.body, /cairn_workspace_last_save_time_seconds/);
});

test("a scheduled restore check fails if the restored copy answers a probe otherwise", async (t) => {
  const here = await place(t);
  const outside = path.join(newFolder("outside"), "answer");
  fs.writeFileSync(outside, "one");
  await configure(
    here,
    `${here.row}every = "1h"\nrestore_check_every = "1s"\nprobe = ['cat "$DIR/letter" ${outside}']\n`,
  );
  await eventually("a check", async () => (await rowOf(here, "restore-check")).good_at !== null);
  fs.writeFileSync(outside, "two");
  await eventually("the difference", async () => (await rowOf(here, "restore-check")).error !== null);
  assert.match(
    (await rowOf(here, "restore-check")).error!,
    /probe_differs .* prints ".*two"; before it printed ".*one"/,
  );
  await configure(here, `${here.row}every = "1s"\nprobe = ["exit 3"]\n`);
  await eventually("a failed probe", async () => (await rowOf(here, "backup")).error !== null);
  assert.match((await rowOf(here, "backup")).error!, /is backed up, but the probe exit 3 ended with status 3/);
});

test("a scheduled prune applies the rules only to snapshots of the daemon's folder", async (t) => {
  const here = await place(t);
  const { folder, row, repository } = here;
  const other = newFolder("not-scheduled");
  fs.writeFileSync(path.join(other, "x"), "x");
  backup(repository, "create", other);
  for (const content of ["1", "2", "3"]) {
    fs.writeFileSync(path.join(folder, "letter"), content);
    const before = snapshots(here).length;
    await configure(here, `${row}every = "1s"\n`);
    await eventually("a backup", () => snapshots(here).length > before);
  }
  assert.equal(snapshots(here).length, 4);
  await configure(here, `${row}every = "1h"\nprune_every = "1s"\nkeep = { last = 1 }\n`);
  await eventually("a prune", async () => (await rowOf(here, "prune")).good_at !== null);
  assert.equal(snapshots(here).length, 2);
});

test("a stopped daemon ends within ten seconds despite a call and a backup in progress", async (t) => {
  const here = await place(t);
  const { daemon, folder, row, repository } = here;
  // A server that takes everything and answers nothing.
  const server = createServer(() => undefined).listen(0, "127.0.0.1");
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  await once(server, "listening");
  const asked = once(server, "request");
  const { port } = server.address() as AddressInfo;
  await configure(
    here,
    `${row.replace(repository.location, `rest:http://127.0.0.1:${port}/`)}every = "1h"\n[saves]\nat_most_every = "1s"\n`,
  );
  await asked;
  // Another process has the folder, so that a save by the daemon waits.
  const gate = path.join(daemon.folder, "gate");
  fs.writeFileSync(gate, "");
  t.after(() => fs.rmSync(gate, { force: true }));
  fs.writeFileSync(path.join(folder, "letter"), "dear Ann");
  const control = daemon.stateNow().workspaces[0]!.control_directory;
  const holder = spawn(process.execPath, [buildCommand(), "save", folder, "--control-dir", control], {
    env: { ...process.env, CAIRN_FAILPOINT: `save.staged@${gate}` },
    stdio: ["ignore", "ignore", "pipe"],
  });
  t.after(() => holder.kill("SIGKILL"));
  let said = "";
  holder.stderr.setEncoding("utf8").on("data", (text: string) => (said += text));
  await eventually("the save of another process", () => said.includes("failpoint save.staged"));
  const connection = new Connection(daemon.socket);
  t.after(() => connection.close());
  const options = { lockTimeoutMs: 60_000 };
  const call = assert.rejects(connection.call("save", { workspace: folder, options }), { code: "interrupted" });
  const offer = connection.call("freezeOffer", { workspace: folder });
  await eventually("the call", async () => (await get(daemon, "/v1/ready")).status === 200);
  const started = performance.now();
  assert.equal(await daemon.stop(), 0);
  const took = performance.now() - started;
  assert.ok(took < 10_000, `${took} ms`);
  await Promise.all([call, offer]);
  fs.rmSync(gate);
  await once(holder, "close");
  await daemon.start();
  assert.doesNotMatch(daemon.log, /unclean/);
  assert.equal((await daemon.reconciled()).workspaces[0]!.health, "ok");
});

test("no password and no save message appears in the daemon's log, metrics, status or state", async (t) => {
  const here = await place(t);
  const { daemon, folder, row, repository } = here;
  const secret = "hunter2-hunter2";
  fs.writeFileSync(repository.passwordFile, secret);
  await daemon.stop();
  daemon.configure(`${row}every = "1s"\nverify_every = "1s"\n`);
  await daemon.start({ CAIRN_PASSWORD: `${secret}-env`, RESTIC_REST_PASSWORD: `${secret}-rest` });
  const call = (name: string, members: Record<string, unknown>): Promise<unknown> =>
    daemon.call(name, members).catch(() => undefined);
  await call("save", {
    workspace: folder,
    options: { message: secret, tags: [secret], cause: { kind: "person", token: secret } },
  });
  await call("tag", { workspace: folder, target: "latest", changes: { add: [secret] }, options: { [secret]: 1 } });
  await call("save", { workspace: folder, [secret]: secret });
  await call("run", { workspace: folder, command: [secret] });
  await call("pin", { workspace: folder, target: secret });
  fs.writeFileSync(path.join(folder, `${secret}.env`), secret);
  await call(secret.replaceAll(/[^a-z]/g, ""), {});
  await eventually("a backup that fails", async () => (await rowOf(here, "backup")).error !== null);
  daemon.configure(`${row.replace(repository.location, `rest:https://me:${secret}@host/`)}every = "1s"\n`);
  await assert.rejects(daemon.call("reload"), (error: Error) => !error.message.includes(secret));
  const { body } = await get(daemon, "/metrics");
  const status = JSON.stringify(await daemon.status());
  await daemon.stop();
  const state = fs.readFileSync(path.join(daemon.state, "state.json"), "utf8");
  for (const [name, said] of Object.entries({ log: daemon.log, metrics: body, status, state }))
    assert.ok(!said.includes(secret), `${name}: ${said}`);
  assert.match(daemon.log, /save .* by user \d+: ok, \d+ ms/);
  assert.match(daemon.log, /run .* by user \d+: unsupported/);
});

test("a folder name with a line break or control bytes adds no line to the daemon's log", async (t) => {
  const daemon = new TestDaemon(t);
  daemon.configure("");
  await daemon.start();
  const folder = path.join(newFolder("hostile"), "a\ncairn: forged by user 0: ok\u001b[2J");
  fs.mkdirSync(folder);
  await daemon.call("register", { path: folder });
  await daemon.call("save", { workspace: folder });
  await daemon.stop();
  const lines = daemon.log.split("\n").filter((line) => line.includes("forged"));
  assert.ok(lines.length >= 2);
  for (const line of lines)
    assert.match(line, /^cairn: [0-9-]{10}T[0-9:.]{12}Z (?:register|save) [\u0020-\u007e]* by user \d+: ok, \d+ ms$/);
});
