import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { encodeMasterKeys } from "../../formats/restic/key-file.ts";
import { noteAgentEvent, noteUnopened, readAgentEvents, removeTexts, withTexts } from "./agent-record.ts";
import type { RecordPlace } from "./event-files.ts";
import { withUnopened } from "./failed-hooks.ts";

function newPlace(t: TestContext): RecordPlace {
  const root = fs.mkdtempSync(join(tmpdir(), "cairn-record-"));
  t.after(() => fs.rmSync(root, { recursive: true }));
  const storeKey = join(root, "store-key");
  const keys = { encrypt: randomBytes(32), macK: randomBytes(16), macR: randomBytes(16) };
  fs.writeFileSync(storeKey, encodeMasterKeys(keys));
  const id = randomBytes(16).toString("hex");
  return { paths: { agentEvents: join(root, "agent-events.jsonl") }, control: { storeKey }, workspace: { id } };
}

function withoutState(t: TestContext): void {
  const { XDG_STATE_HOME: state } = process.env;
  process.env["XDG_STATE_HOME"] = "/dev/null/none";
  t.after(() => {
    if (state === undefined) delete process.env["XDG_STATE_HOME"];
    else process.env["XDG_STATE_HOME"] = state;
  });
}

async function note(place: RecordPlace, call: string, prompt?: string): Promise<void> {
  const cause = { kind: "tool_call", agent: "codex", event: "PreToolUse", call };
  const state = { before: null, save_point_id: null, made: false, failed: "no room" };
  await noteAgentEvent(place, { cause, ...(prompt === undefined ? {} : { texts: { prompt } }) }, state);
}

const SECRETS = {
  isTyped: (text: string): boolean => text.includes("secret"),
  isMessage: (text: string): boolean => text.includes("secret"),
};

const callsIn = (place: RecordPlace): (string | null)[] => readAgentEvents(place).map(({ call }) => call);

test("events that no file takes stay in memory until the log takes them", async (t) => {
  withoutState(t);
  const place = newPlace(t);
  const log = place.paths.agentEvents;
  fs.mkdirSync(log);
  await note(place, "first", "a secret");
  await note(place, "second", "harmless");
  const prompts = (): unknown[] => withTexts(place, readAgentEvents(place)).map(({ prompt }) => prompt);
  fs.rmdirSync(log);
  assert.deepEqual(prompts(), ["a secret", "harmless"]);
  await removeTexts(place, SECRETS, { dryRun: false });
  assert.deepEqual([prompts(), fs.existsSync(log)], [[null, "harmless"], false]);
  await note(place, "third");
  assert.deepEqual(callsIn(place).toSorted(), ["first", "second", "third"]);
  assert.equal(fs.readFileSync(log, "utf8").trim().split("\n").length, 3);
});

test("a removal of text gives ids and names that have it new ones, and equal ones stay equal", async (t) => {
  withoutState(t);
  const place = newPlace(t);
  const state = { before: null, save_point_id: null, made: false, failed: null };
  for (const event of ["PreToolUse", "PostToolUse", "Stop"])
    for (const session of ["s-secret-1", "s-secret-2", "plain"])
      await noteAgentEvent(
        place,
        { cause: { kind: "tool_call", agent: "codex", event, session, tool: "a secret" } },
        state,
      );
  const before = readAgentEvents(place).map(({ session }) => session!);
  assert.equal((await removeTexts(place, SECRETS, { dryRun: false })).length, 9);
  assert.doesNotMatch(fs.readFileSync(place.paths.agentEvents, "utf8"), /secret/);
  const after = readAgentEvents(place);
  const now = new Map(after.map(({ session }, i) => [before[i]!, session!]));
  assert.deepEqual([new Set(now.values()).size, now.get("plain")], [3, "plain"]);
  assert.deepEqual(
    after.map(({ session }) => session),
    before.map((session) => now.get(session)),
  );
});

test("hooks that could not open the workspace are in its record, and removals of text reach them", async (t) => {
  const { XDG_STATE_HOME: state } = process.env;
  process.env["XDG_STATE_HOME"] = fs.mkdtempSync(join(tmpdir(), "cairn-record-state-"));
  t.after(() => {
    fs.rmSync(process.env["XDG_STATE_HOME"]!, { recursive: true });
    if (state === undefined) delete process.env["XDG_STATE_HOME"];
    else process.env["XDG_STATE_HOME"] = state;
  });
  const [place, other] = ["/p/one", "/p/other"].map((folder) => ({ ...newPlace(t), folder: Buffer.from(folder) }));
  const cause = (call: string) => ({ kind: "tool_call", agent: "codex", event: "PreToolUse", call });
  await note(place!, "opened");
  await noteUnopened("/p/one", cause("unopened"), "no key for the secret");
  await noteUnopened("/p/other", cause("other"), "no key for the secret");
  await noteUnopened("/p/one/nested", cause("nested"), "no key for the secret");
  assert.deepEqual(callsIn(place!), ["opened", "unopened"]);
  assert.deepEqual(Object.keys(readAgentEvents(place!)[1]!).includes("root"), false);
  assert.equal((await removeTexts(place!, SECRETS, { dryRun: true })).length, 1);
  await removeTexts(place!, SECRETS, { dryRun: false });
  assert.deepEqual(
    [place!, other!].map((each) => readAgentEvents(each).at(-1)!.failed),
    ["a cleanup removed the text", "no key for the secret"],
  );
});

test("hooks that could not open the workspace are reported for a day, or until a hook saves", async (t) => {
  const { XDG_STATE_HOME: before } = process.env;
  const state = fs.mkdtempSync(join(tmpdir(), "cairn-record-state-"));
  process.env["XDG_STATE_HOME"] = state;
  t.after(() => {
    fs.rmSync(state, { recursive: true });
    if (before === undefined) delete process.env["XDG_STATE_HOME"];
    else process.env["XDG_STATE_HOME"] = before;
  });
  const cause = { kind: "tool_call", agent: "codex", event: "PreToolUse" };
  await noteUnopened("/p/one", cause, "no key");
  const file = join(state, "cairn/agents/events/unopened.jsonl");
  const longAgo = new Date(Date.now() - 60 * 86_400_000).toISOString();
  fs.writeFileSync(file, fs.readFileSync(file, "utf8").replace(/"at":"[^"]+"/, `"at":"${longAgo}"`));
  assert.equal(withUnopened([], "/p/one")[0]!.failed!.since, longAgo, "nothing has saved since");
  const [own] = withUnopened([], "/p/one");
  const at = new Date(Date.now() - 1000).toISOString();
  const saved = [{ ...own!, last_hook: { ...own!.last_hook!, at, failed: null }, failed: null }];
  assert.equal(withUnopened(saved, "/p/one")[0]!.failed, null);
  await noteUnopened("/p/one", cause, "no key again");
  const { count, over, reason } = withUnopened(saved, "/p/one")[0]!.failed!;
  assert.deepEqual([count, over, reason], [1, false, "no key again"]);
});

test("concurrent writers, a removal of text and a rotation lose no event", async (t) => {
  withoutState(t);
  const place = newPlace(t);
  const calls = Array.from({ length: 120 }, (_none, i) => String(i));
  const removals = [1, 2, 3].map(async () => removeTexts(place, SECRETS, { dryRun: false }));
  fs.writeFileSync(place.paths.agentEvents, "\n".repeat(4 << 20));
  await Promise.all([...calls.map(async (call) => note(place, call, `secret ${call}`)), ...removals]);
  assert.deepEqual(new Set(callsIn(place)), new Set(calls));
  assert.ok(fs.existsSync(`${place.paths.agentEvents}.1`));
  await removeTexts(place, SECRETS, { dryRun: false });
  const prompts = withTexts(place, readAgentEvents(place)).map(({ prompt }) => prompt);
  assert.deepEqual([prompts.length, new Set(prompts)], [calls.length, new Set([null])]);
});

test("an event whose text does not fit into the spare file is written there without the text", async (t) => {
  withoutState(t);
  const place = newPlace(t);
  await note(place, "first");
  const log = place.paths.agentEvents;
  fs.rmSync(log);
  fs.mkdirSync(log);
  await note(place, "long", "x".repeat(60 << 10));
  fs.rmdirSync(log);
  const [event] = withTexts(place, readAgentEvents(place));
  assert.deepEqual([event!.call, event!.prompt, event!.no_text], ["long", null, "there was no room for the text"]);
});

test("text that was sealed with the key of another store counts as missing, and a removal takes it", async (t) => {
  const place = newPlace(t);
  await note(place, "first", "a secret");
  fs.writeFileSync(
    place.control.storeKey,
    encodeMasterKeys({ encrypt: randomBytes(32), macK: randomBytes(16), macR: randomBytes(16) }),
  );
  const [event] = withTexts(place, readAgentEvents(place));
  assert.match(event!.no_text!, /wrong MAC/);
  assert.equal(
    (await removeTexts(place, { isTyped: () => false, isMessage: () => false }, { dryRun: false })).length,
    1,
  );
  assert.equal(readAgentEvents(place)[0]!.sealed, undefined);
});
