import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { DatabaseSync } from "node:sqlite";
import { test, type TestContext } from "node:test";
import { CairnError } from "../../errors.ts";
import type { Caller } from "../state/peer.ts";
import { Events, type Noted } from "./events.ts";
import { type Hand, type JobCall, Jobs } from "./jobs.ts";
import { Records } from "./records.ts";

const ME = { pid: 1, uid: 4711, gid: 4711, isAgent: false, token: null, only: null };
const OTHER = { pid: 1, uid: 4712, gid: 4712, isAgent: false, token: null, only: null };
const WORKSPACE = { id: "0".repeat(32), path: "/somewhere" };

function folder(t: TestContext): string {
  const made = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-records-"));
  t.after(() => fs.rmSync(made, { recursive: true }));
  return made;
}

interface Opened {
  records: Records;
  events: Events;
  jobs: Jobs;
  log: string[];
}

/** What a daemon opens at its start; `killed`: the one before it was. */
function open(directory: string, killed = false): Opened {
  const log: string[] = [];
  const say = (line: string): void => void log.push(line);
  const records = Records.open(directory, say);
  const events = new Events(records, { killed, log: say });
  return { records, events, jobs: new Jobs(records, events, say), log };
}

function changed(events: Events, paths: number): number {
  return events.append({ workspace: WORKSPACE, type: "changed", data: { paths, names: [] } });
}

const numbers = (list: readonly Noted[]): number[] => list.map(({ event }) => event.id!);
const types = (list: readonly Noted[]): string[] => list.map(({ event }) => event.type);

function call(more: Partial<JobCall> = {}): JobCall {
  return { verb: "save", path: "/somewhere", place: null, key: null, request: "r", ...more };
}

/** Begins a job, and gives its end and its hand into the test's. */
function begun(jobs: Jobs, given: JobCall, peer: Caller = ME) {
  const work = Promise.withResolvers<unknown>();
  const hand = Promise.withResolvers<Hand>();
  const ended = Promise.withResolvers<void>();
  const id = jobs.begin(
    peer,
    given,
    (its) => {
      hand.resolve(its);
      return work.promise;
    },
    ended.resolve,
  );
  return { id, ...work, hand: hand.promise, ended: ended.promise };
}

const quiet = { onProgress: () => undefined, onWarning: () => undefined };

test("event numbers rise over restarts, even if the database was lost", (t) => {
  const directory = folder(t);
  const first = open(directory);
  const heard: Noted[] = [];
  const listening = first.events.listen((each) => heard.push(each));
  const [one, two] = [changed(first.events, 1), changed(first.events, 2)];
  assert.deepEqual(numbers(heard), [one, two]);
  listening[Symbol.dispose]();
  assert.deepEqual(numbers(first.events.after(one, 10)), [two]);
  first.events.close();
  first.records.close();
  assert.equal(fs.statSync(path.join(directory, "records.db")).mode & 0o777, 0o600);
  const second = open(directory);
  assert.deepEqual(types(second.events.after(0, 10)), ["reset", "changed", "changed", "started"]);
  const three = changed(second.events, 3);
  assert.ok(three > two);
  assert.ok([one, two, three].every((each) => second.events.knows(each)) && second.events.knows(0));
  assert.equal(second.events.knows(three + 1), false);
  second.events.close();
  second.records.close();
  const third = open(directory, true);
  assert.deepEqual(types(third.events.after(three, 10)), ["reset"], "a kill may have taken events with it");
  third.records.close();
  fs.rmSync(path.join(directory, "records.db"));
  const fourth = open(directory);
  assert.ok(fourth.events.last > third.events.last);
  assert.equal(fourth.events.knows(three), false);
  fourth.records.close();
});

test("old events and events beyond the limit are removed, and knows() is false for them", (t) => {
  const directory = folder(t);
  const { records, events } = open(directory);
  const old = changed(events, 1);
  events.flush();
  records.write(() => records.run("UPDATE events SET at = ?", [Date.now() - 8 * 86_400_000]));
  const last = Array.from({ length: 1_001 }, (_, i) => changed(events, i)).at(-1)!;
  events.flush();
  assert.equal(events.after(0, 2_000).length, 1_001);
  assert.equal(events.knows(0), false);
  assert.equal(events.knows(old), true, "all after it are there");
  assert.equal(events.knows(old - 1), false);
  assert.equal(events.knows(last), true);
  for (let i = 0; i < 100_500; i++) changed(events, i);
  events.flush();
  changed(events, 0);
  for (let i = 0; i < 1_000; i++) changed(events, i);
  events.flush();
  assert.ok(Number(records.get("SELECT count(*) AS n FROM events")!["n"]) <= 101_000);
  assert.equal(events.knows(last), false);
  records.close();
});

test("events that cannot be written reach listeners, are logged once, and are unknown to later readers", (t) => {
  const { records, events, log } = open(folder(t));
  const before = events.last;
  t.mock.method(records, "write", () => {
    throw new CairnError("no_space", "full");
  });
  const heard: Noted[] = [];
  using _listening = events.listen((each) => heard.push(each));
  const lost = changed(events, 1);
  events.flush();
  changed(events, 2);
  events.flush();
  assert.equal(heard.length, 2);
  assert.deepEqual(log, ["events cannot be recorded for now: full"]);
  t.mock.restoreAll();
  changed(events, 3);
  assert.equal(events.knows(lost), false);
  assert.equal(events.knows(before), true);
  assert.deepEqual(
    events.after(before, 10).map(({ event }) => event.data),
    [{ reason: "some events could not be recorded" }, { paths: 3, names: [] }],
  );
  records.close();
});

test("a damaged database is renamed and replaced, and a newer database is refused", (t) => {
  const directory = folder(t);
  const file = path.join(directory, "records.db");
  const filled = open(directory);
  for (let i = 0; i < 2_000; i++) changed(filled.events, i);
  filled.events.close();
  filled.records.close();
  const whole = fs.readFileSync(file);
  const spoiled = Buffer.from(whole);
  spoiled.fill(0xa5, 4096, 12_288);
  for (const damage of [
    whole.subarray(0, whole.length / 2),
    spoiled,
    Buffer.from("no database at all, and long enough"),
  ]) {
    fs.writeFileSync(file, damage);
    const { records, log } = open(directory);
    assert.match(log.join("\n"), /cannot be read .* was moved to .*records\.db\.damaged-/);
    records.close();
  }
  fs.rmSync(file);
  fs.mkdirSync(file);
  open(directory).records.close();
  assert.ok(fs.readdirSync(directory).filter((name) => name.includes(".damaged-")).length >= 3);
  const newer = new DatabaseSync(file);
  newer.exec("PRAGMA user_version = 2");
  newer.close();
  const before = fs.readFileSync(file);
  assert.throws(() => open(directory), { code: "newer_version" });
  assert.deepEqual(fs.readFileSync(file), before);
});

test("a job's answer, error and warnings survive a restart, and an unfinished job becomes interrupted", async (t) => {
  const directory = folder(t);
  const first = open(directory);
  const good = begun(first.jobs, call({ verb: "verify" }));
  const bad = begun(first.jobs, call());
  const under = begun(first.jobs, call());
  assert.equal(first.jobs.find(ME, good.id).state, "queued");
  const hand = await good.hand;
  hand.onBegin();
  assert.equal(first.jobs.find(ME, good.id).state, "running");
  hand.onProgress({ phase: "scanning", done: 3 });
  hand.onWarning("look out");
  assert.deepEqual(first.jobs.find(ME, good.id).progress, { phase: "scanning", done: 3 });
  good.resolve({ bytes: Buffer.from([1, 2]) });
  bad.reject(new CairnError("refused", "no", { hint: "ask otherwise" }));
  await Promise.all([good.ended, bad.ended]);
  first.records.close();
  const { jobs, records } = open(directory, true);
  const found = jobs.find(ME, good.id);
  assert.equal(found.state, "done");
  assert.deepEqual(found.answer, { bytes: Buffer.from([1, 2]) });
  assert.deepEqual(found.warnings, ["look out"]);
  assert.equal(jobs.find(ME, bad.id).error?.hint, "ask otherwise");
  await assert.rejects(jobs.answer(bad.id, quiet), { code: "refused" });
  assert.equal(jobs.find(ME, under.id).state, "interrupted");
  assert.equal(jobs.find(ME, under.id).error?.code, "interrupted");
  assert.throws(() => jobs.find(OTHER, good.id), { code: "not_found" });
  assert.deepEqual(jobs.list(OTHER, { after: null, most: 10 }), { jobs: [], next: null });
  const page = jobs.list(ME, { after: null, most: 2 });
  assert.deepEqual(
    page.jobs.map(({ job_id: id }) => id),
    [under.id, bad.id],
  );
  assert.deepEqual(
    jobs.list(ME, { after: page.next, most: 2 }).jobs.map(({ job_id: id }) => id),
    [good.id],
  );
  assert.throws(() => jobs.list(OTHER, { after: good.id, most: 2 }), { code: "not_found" });
  // Who has a token that is narrowed sees the jobs of that token alone, also of a root's.
  const agent = { ...ME, isAgent: true, token: "a1", only: new Set(["w"]) };
  assert.throws(() => jobs.find(agent, good.id), { code: "not_found" });
  assert.throws(() => jobs.find({ ...agent, uid: 0, gid: 0 }, good.id), { code: "not_found" });
  assert.deepEqual(jobs.list(agent, { after: null, most: 10 }).jobs, []);
  const own = begun(jobs, call({ key: "k" }), agent);
  assert.equal(jobs.find(agent, own.id).state, "queued");
  assert.deepEqual(
    jobs.list(agent, { after: null, most: 10 }).jobs.map(({ job_id: id }) => id),
    [own.id],
  );
  assert.notEqual(begun(jobs, call({ key: "k" })).id, own.id, "a key is its owner's");
  records.close();
});

test("a repeated idempotency key joins the running call or returns its answer, for the same user and request", async (t) => {
  const directory = folder(t);
  const { jobs, records } = open(directory);
  const one = begun(jobs, call({ key: "k" }));
  const joined = begun(jobs, call({ key: "k" }));
  assert.equal(joined.id, one.id);
  await joined.ended;
  assert.throws(() => begun(jobs, call({ key: "k", request: "other" })), { code: "conflict" });
  assert.notEqual(begun(jobs, call({ key: "k", request: "other" }), OTHER).id, one.id);
  const warned: string[] = [];
  const waiting = jobs.answer(one.id, { ...quiet, onWarning: (each) => warned.push(each) });
  (await one.hand).onWarning("w");
  one.resolve({ n: 1 });
  assert.deepEqual(await waiting, { n: 1 });
  await one.ended;
  assert.equal(begun(jobs, call({ key: "k" })).id, one.id);
  assert.deepEqual(await jobs.answer(one.id, { ...quiet, onWarning: (each) => warned.push(each) }), { n: 1 });
  assert.deepEqual(warned, ["w", "w"]);
  records.write(() => records.run("UPDATE jobs SET ended = ended - ?", [86_400_001]));
  assert.notEqual(begun(jobs, call({ key: "k", request: "other" })).id, one.id, "a day later it is free");
  records.close();
});

test("a repeated idempotency key starts an interrupted, cancelled or retryable call again", async (t) => {
  const directory = folder(t);
  const first = open(directory);
  const begun1 = begun(first.jobs, call({ key: "k" }));
  assert.equal((await begun1.hand).since, null);
  first.records.close();
  const { jobs, records } = open(directory, true);
  const created = Date.parse(jobs.find(ME, begun1.id).created_at);
  let before = begun1.id;
  for (const code of ["busy", "interrupted"] as const) {
    const again = begun(jobs, call({ key: "k" }));
    assert.notEqual(again.id, before);
    assert.equal((await again.hand).since, created);
    again.reject(new CairnError(code, "not now"));
    await again.ended;
    before = again.id;
  }
  const cancelled = begun(jobs, call({ key: "k" }));
  assert.equal((await jobs.cancel(ME, cancelled.id)).state, "cancelled", "it waited for its turn, and need not");
  const last = begun(jobs, call({ key: "k" }));
  last.reject(new CairnError("refused", "never"));
  await last.ended;
  assert.equal(begun(jobs, call({ key: "k" })).id, last.id);
  records.close();
});

test("only its maker can cancel a running job, and the job's signal is aborted", async (t) => {
  const { jobs, records } = open(folder(t));
  const one = begun(jobs, call());
  const { signal, onBegin } = await one.hand;
  onBegin();
  await assert.rejects(jobs.cancel(OTHER, one.id), { code: "not_found" });
  assert.equal(signal.aborted, false);
  assert.equal((await jobs.cancel(ME, one.id, 0)).state, "running", "it has not heard of it yet");
  assert.equal(signal.aborted, true);
  one.reject(new CairnError("interrupted", "stopped by the caller"));
  await one.ended;
  assert.equal((await jobs.cancel(ME, one.id)).state, "cancelled");
  await jobs.idle();
  records.close();
});

test("a job that cannot be recorded is not started, and an unrecorded end is known until a restart", async (t) => {
  const directory = folder(t);
  const { jobs, records, log } = open(directory);
  const one = begun(jobs, call({ key: "k" }));
  const { mock } = t.mock.method(records, "write", () => {
    throw new CairnError("no_space", "full");
  });
  assert.throws(() => begun(jobs, call()), { code: "no_space" });
  one.resolve({ n: 1 });
  await one.ended;
  assert.match(log.join("\n"), /cannot record the end of job .*: full/);
  assert.equal(jobs.find(ME, one.id).state, "done");
  assert.equal(begun(jobs, call({ key: "k" })).id, one.id);
  assert.deepEqual(await jobs.answer(one.id, quiet), { n: 1 });
  mock.restore();
  records.close();
  const later = open(directory, true);
  assert.equal(later.jobs.find(ME, one.id).state, "interrupted");
  later.records.close();
});

test("an answer that is too long is returned once, and jobs of the busiest user are removed first", async (t) => {
  const { jobs, records } = open(folder(t));
  const long = begun(jobs, call({ key: "k" }));
  const whole = jobs.answer(long.id, quiet);
  long.resolve("x".repeat(5 << 20));
  assert.equal(((await whole) as string).length, 5 << 20);
  await assert.rejects(jobs.answer(long.id, quiet), { code: "unsupported" });
  const rare = begun(jobs, call(), OTHER);
  rare.resolve(1);
  await rare.ended;
  records.write(() => {
    for (let i = 0; i < 10_100; i++)
      records.run(
        "INSERT INTO jobs (id, uid, owner, verb, request, since, state, created, ended) VALUES (?, ?, ?, 'save', 'r', 0, 'done', ?, ?)",
        [`${i}`, ME.uid, String(ME.uid), i, Date.now()],
      );
  });
  for (let i = 0; i < 100; i++) {
    const each = begun(jobs, call());
    each.resolve(1);
    await each.ended;
  }
  assert.ok(Number(records.get("SELECT count(*) AS n FROM jobs")!["n"]) <= 10_100);
  assert.equal(jobs.find(OTHER, rare.id).state, "done");
  assert.throws(() => jobs.find(ME, long.id), { code: "not_found" });
  records.close();
});
