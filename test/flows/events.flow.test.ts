import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import http from "node:http";
import path from "node:path";
import { createInterface } from "node:readline";
import { test, type TestContext } from "node:test";
import { connect } from "../../src/client.ts";
import { EVENT_TYPES, type EventType, type ServiceEvent } from "../../src/contract/service.ts";
import { SCRATCH } from "../fixtures/command.ts";
import { TestDaemon } from "../fixtures/daemon.ts";
import { eventually } from "../fixtures/eventually.ts";
import { ORDINARY_USER } from "../fixtures/loop-file-system.ts";
import { installForOrdinaryUser, whyNoOrdinaryUser } from "../fixtures/ordinary-user.ts";

/** What a daemon tells of as it happens, to clients that come, go and come again. */

async function started(t: TestContext): Promise<TestDaemon> {
  const daemon = new TestDaemon(t);
  daemon.configure('[backend]\ntype = "plain"\n');
  return daemon.start();
}

async function workspace(daemon: TestDaemon, name: string): Promise<string> {
  const folder = path.join(daemon.folder, name);
  fs.mkdirSync(folder);
  fs.writeFileSync(path.join(folder, "a"), "one");
  await daemon.call("register", { path: folder });
  return folder;
}

/** Types of events that follow from calls alone, without those that tell what runs now: the kernel decides when a write is told. */
const TOLD = EVENT_TYPES.filter((type) => type !== "changed" && type !== "call");

/** Collects events until the test ends, or its signal fires. */
function collect(
  t: TestContext,
  daemon: TestDaemon,
  options: { workspace?: string; after?: number; types?: EventType[] },
): { events: ServiceEvent[]; failed: Promise<unknown>; stop: () => void } {
  const stopped = new AbortController();
  t.after(() => stopped.abort());
  const events: ServiceEvent[] = [];
  const failed = (async () => {
    try {
      for await (const each of connect({ socket: daemon.socket }).events({
        types: TOLD,
        ...options,
        signal: stopped.signal,
      }))
        events.push(each);
    } catch (error) {
      return error;
    }
    return null;
  })();
  return { events, failed, stop: () => stopped.abort() };
}

const isOf = (type: EventType) => (each: ServiceEvent) => each.type === type;

/** Tags that make an event of 6 KiB. */
const LONG_EDIT = { add: Array.from({ length: 100 }, (_, i) => `${"x".repeat(60)}${i}`) };

/** A stream as the socket gives it. */
async function raw(
  daemon: TestDaemon,
  url: string,
  headers: Record<string, string> = {},
): Promise<http.IncomingMessage> {
  const request = http.get({ socketPath: daemon.socket, path: url, headers, agent: false });
  const [response] = (await once(request, "response")) as [http.IncomingMessage];
  response.on("error", () => undefined);
  return response;
}

test("the event stream reports calls in order, and resumes without gaps or duplicates", async (t) => {
  const daemon = await started(t);
  const folder = await workspace(daemon, "told");
  const live = collect(t, daemon, { workspace: folder, after: 0 });
  const saved = (await daemon.call("save", { workspace: folder })) as { save_point_id: string };
  fs.writeFileSync(path.join(folder, "a"), "two");
  await daemon.call("pin", { workspace: folder, target: "head" });
  await daemon.call("tag", { workspace: folder, target: "head", edit: { add: ["t"] } });
  await daemon.call("unpin", { workspace: folder, target: "head" });
  await daemon.call("restore", { workspace: folder, options: { target: "head" } });
  await daemon.call("undo", { workspace: folder });
  await daemon.call("setPolicy", { workspace: folder, policy: { keptTrees: 3 } });
  await daemon.call("status", { workspace: folder });
  await assert.rejects(daemon.call("pin", { workspace: folder, target: "nothing-of-this-name" }));
  const wanted = ["reset", "registered", "save", "pin", "tag", "unpin", "restore", "undo", "policy"];
  await eventually("all are told", () => live.events.length >= wanted.length);
  assert.deepEqual(
    live.events.map(({ type }) => type),
    wanted,
  );
  const [save] = live.events.filter(isOf("save"));
  assert.equal((save!.data as { save_point_id: string }).save_point_id, saved.save_point_id);
  assert.equal(save!.workspace, folder);
  // In two parts: the second begins where the first was cut off.
  for (const cut of [0, 3, wanted.length - 1]) {
    const rest = collect(t, daemon, { workspace: folder, after: live.events[cut]!.id! });
    await daemon.call("pin", { workspace: folder, target: "head" });
    await eventually(
      "the rest is told",
      () => rest.events.at(-1)?.type === "pin" && live.events.at(-1)?.id === rest.events.at(-1)?.id,
    );
    assert.deepEqual(rest.events, live.events.slice(cut + 1));
    rest.stop();
    assert.equal(((await rest.failed) as { code: string }).code, "interrupted");
  }
});

test("an event client reconnects without gaps after a restart, and gets a reset event after a kill", async (t) => {
  const daemon = await started(t);
  const folder = await workspace(daemon, "again");
  const { events } = collect(t, daemon, { workspace: folder, after: 0, types: ["pin", "save", "started"] });
  await daemon.call("save", { workspace: folder });
  await eventually("it is told", () => events.some(isOf("save")));
  const pins = async (count: number): Promise<void> => {
    for (let i = 0; i < count; i++) await daemon.call("pin", { workspace: folder, target: "head" });
  };
  await pins(5);
  await daemon.stop();
  await daemon.start();
  await pins(5);
  await eventually("all are told", () => events.filter(isOf("pin")).length >= 10);
  assert.deepEqual(
    events.map(({ type }) => type),
    ["reset", "save", ...Array(5).fill("pin"), ...Array(5).fill("pin")],
    "nothing about the daemon as a whole is of a workspace, but for a reset",
  );
  await daemon.kill();
  await daemon.start();
  await pins(1);
  await eventually("the last is told", () => events.filter(isOf("pin")).length >= 11);
  assert.deepEqual(
    events.slice(12).map(({ type }) => type),
    ["reset", "pin"],
  );
  const ids = events.map(({ id }) => id!);
  assert.deepEqual(
    ids,
    [...new Set(ids)].toSorted((a, b) => a - b),
  );
});

test("the event stream has the format of EventSource, and invalid queries are refused", async (t) => {
  const daemon = await started(t);
  const folder = await workspace(daemon, "raw");
  await daemon.call("save", { workspace: folder });
  const response = await raw(daemon, `/v1/events?after=0&types=save&workspace=${encodeURIComponent(folder)}`);
  assert.equal(response.headers["content-type"], "text/event-stream");
  const lines: string[] = [];
  for await (const line of createInterface({ input: response })) {
    lines.push(line);
    if (line === "" && lines.includes("event: save")) break;
  }
  response.destroy();
  const at = lines.indexOf("event: save");
  const event = JSON.parse(lines[at + 1]!.replace(/^data: /, "")) as ServiceEvent;
  assert.equal(lines[at - 1], `id: ${event.id}`);
  // The header of a client that connects again counts before its address.
  const again = await raw(daemon, "/v1/events?after=0", { "last-event-id": String(event.id) });
  again.setEncoding("utf8");
  await daemon.call("pin", { workspace: folder, target: "head" });
  let text = "";
  for await (const piece of again as AsyncIterable<string>) if ((text += piece).includes("event: pin")) break;
  again.destroy();
  assert.doesNotMatch(text, /event: (?:save|reset)/);
  const unknown = collect(t, daemon, { after: 17 });
  await eventually("a number of nothing is answered with all that is kept", () => unknown.events.length >= 4);
  assert.deepEqual(
    unknown.events.slice(0, 2).map(({ type }) => type),
    ["reset", "registered"],
    "and with one reset",
  );
  for (const [query, status] of [
    ["?types=never", 400],
    ["?after=-1", 400],
    ["?after=1e3", 400],
    ["?since=1", 400],
    ["?workspace=relative", 400],
    ["?workspace=/nowhere", 404],
  ] as const) {
    const refused = await raw(daemon, `/v1/events${query}`);
    assert.equal(refused.statusCode, status, query);
    refused.resume();
  }
  const page = await raw(daemon, "/v1/events", { origin: "https://example.org" });
  assert.equal(page.statusCode, 403);
  page.resume();
});

test("the daemon closes the stream of a reader that does not read, and others get events at once", async (t) => {
  const daemon = await started(t);
  const folder = await workspace(daemon, "slow");
  await daemon.call("save", { workspace: folder });
  const slow = await raw(daemon, "/v1/events");
  slow.pause();
  const closed = new Promise((resolve) => slow.once("close", resolve));
  const { events } = collect(t, daemon, { types: ["tag"], after: 0 });
  let delays: number[] = [];
  for (let i = 0; i < 400; i++) {
    const count = events.length;
    await daemon.call("tag", { workspace: folder, target: "head", edit: LONG_EDIT });
    const done = performance.now();
    await eventually("it is told", () => events.length > count);
    delays.push(performance.now() - done);
  }
  delays = delays.toSorted((a, b) => a - b);
  t.diagnostic(`told after ${delays[200]!.toFixed(1)} ms, p99 ${delays[395]!.toFixed(1)} ms`);
  slow.resume();
  await closed;
  await daemon.call("pin", { workspace: folder, target: "head" });
});

test("event streams end when the daemon stops, and do not count as calls", async (t) => {
  const daemon = new TestDaemon(t);
  daemon.configure('[backend]\ntype = "plain"\n[socket]\ncalls = 4\n');
  await daemon.start();
  const folder = await workspace(daemon, "stopped");
  const streams = await Promise.all(Array.from({ length: 30 }, async () => raw(daemon, "/v1/events")));
  await daemon.call("save", { workspace: folder });
  // One that has more waiting than the system holds for it.
  (await raw(daemon, "/v1/events")).pause();
  for (let i = 0; i < 80; i++) await daemon.call("tag", { workspace: folder, target: "head", edit: LONG_EDIT });
  const ends = streams.map(async (each) => {
    each.resume();
    await new Promise((resolve) => each.once("close", resolve));
  });
  const before = performance.now();
  assert.equal(await daemon.stop(), 0);
  await Promise.all(ends);
  assert.ok(performance.now() - before < 9_000, "no grace is waited for");
});

test(
  "a user gets only the events of workspaces on which they may act at that time",
  { skip: whyNoOrdinaryUser() ?? false },
  async (t) => {
    const daemon = await started(t);
    const user = installForOrdinaryUser();
    t.after(() => user.remove());
    fs.chmodSync(SCRATCH, 0o755);
    fs.chmodSync(daemon.folder, 0o755);
    fs.chmodSync(daemon.socket, 0o666);
    const [others, own] = [await workspace(daemon, "others"), await workspace(daemon, "own")];
    fs.chmodSync(others, 0o700);
    await daemon.call("release", { workspace: own });
    fs.chownSync(own, ORDINARY_USER, ORDINARY_USER);
    fs.chownSync(path.join(own, "a"), ORDINARY_USER, ORDINARY_USER);
    await daemon.call("register", { path: own });
    const { prefix, node } = user.optionsIn("/");
    const [program, ...rest] = [...prefix!, node!];
    const script = `const [socketPath, path] = process.argv.slice(1);
require("http").get({ socketPath, path }, (r) => { console.log(r.statusCode); r.pipe(process.stdout); });`;
    const as = (url: string): { text: () => string; child: ReturnType<typeof spawn> } => {
      const child = spawn(program!, [...rest, "-e", script, daemon.socket, url], {
        stdio: ["ignore", "pipe", "inherit"],
      });
      t.after(() => void child.kill());
      let text = "";
      child.stdout!.setEncoding("utf8").on("data", (piece: string) => (text += piece));
      return { text: () => text, child };
    };
    const refused = as(`/v1/events?workspace=${encodeURIComponent(others)}`);
    await eventually("it is answered", () => refused.text() !== "");
    assert.match(refused.text(), /^403\n/);
    const heard = as("/v1/events?after=0");
    await eventually("it is answered", () => heard.text().includes("event: registered"));
    for (const folder of [others, own]) await daemon.call("save", { workspace: folder });
    await eventually("it hears", () => heard.text().includes("event: save"));
    // Another user's folder lies at the path now.
    fs.chownSync(own, 0, 0);
    await daemon.call("pin", { workspace: own, target: "head" });
    fs.chownSync(own, ORDINARY_USER, ORDINARY_USER);
    await daemon.call("unpin", { workspace: own, target: "head" });
    await eventually("it hears again", () => heard.text().includes("event: unpin"));
    assert.doesNotMatch(heard.text(), /event: pin/);
    assert.ok(!heard.text().includes(others), heard.text());
    const later = as("/v1/events?after=0");
    await eventually("what is kept is told", () => later.text().includes("event: unpin"));
    assert.ok(!later.text().includes(others));
  },
);
