import assert from "node:assert/strict";
import { existsSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { test, type TestContext } from "node:test";
import { testFolder } from "../keep/testing-folder.ts";

/** Turns whose calls fail, are denied, never end or run in the background, beside a person who edits. */

/** More than the kernel's tick, by which change times differ. */
const TICK_MS = 15;

interface Scene {
  /** Saves as the hook of an event does. */
  hook(event: string, facts?: object): Promise<void>;
  write(path: string, text: string): Promise<void>;
  remove(path: string): Promise<void>;
  content(path: string): string | null;
  /** Number of entries that each turn changed for certain, and perhaps; the newest turn first. */
  turns(): Promise<[number | null, number][]>;
  /** Returns the paths that stay, each with its reason. */
  rewind(): Promise<[string, string][]>;
}

async function sceneOf(t: TestContext): Promise<Scene> {
  const { client, folder, write } = await testFolder(t, { keep: "one", "old/x": "x", "old/y": "y" });
  t.after(async () => client.close());
  await client.save();
  const cause = { kind: "tool_call", agent: "claude-code", session: "s", turn: "p", each: "tool" } as const;
  const scene: Scene = {
    async hook(event, facts = {}) {
      const called_at = new Date().toISOString();
      await client.save({ skipUnchanged: true, cause: { ...cause, event, called_at, ...facts } });
      await sleep(TICK_MS);
    },
    async write(path, text) {
      write(path, text);
      await sleep(TICK_MS);
    },
    async remove(path) {
      rmSync(join(folder, path), { recursive: true });
      await sleep(TICK_MS);
    },
    content: (path) => (existsSync(join(folder, path)) ? readFileSync(join(folder, path), "utf8") : null),
    turns: async () => (await client.turns()).turns.map(({ changed, uncertain }) => [changed, uncertain]),
    rewind: async () => (await client.rewind()).left_out.map(({ path, detail }) => [path, detail]),
  };
  await scene.hook("UserPromptSubmit");
  return scene;
}

const BASH = { tool: "Bash", call: "1" };

test("a person's edits after a call that failed are the person's", async (t) => {
  const { hook, write, content, turns, rewind } = await sceneOf(t);
  await hook("PreToolUse", BASH);
  await write("out", "of the agent");
  await hook("PostToolUseFailure", { ...BASH, duration_ms: 20 });
  await write("keep", "of the person");
  await hook("PostToolBatch");
  await hook("Stop");
  assert.deepEqual([await turns(), await rewind()], [[[1, 0]], []]);
  assert.deepEqual([content("keep"), content("out")], ["of the person", null]);
});

test("a person's edits in a turn without a call, and while a call is denied, are the person's", async (t) => {
  const { hook, write, content, turns, rewind } = await sceneOf(t);
  await write("keep", "of the person");
  await hook("Stop");
  assert.deepEqual(await turns(), [[0, 0]]);
  await hook("UserPromptSubmit", { turn: "q" });
  await hook("PreToolUse", { ...BASH, turn: "q" });
  await write("keep", "of the person, too");
  await hook("PostToolBatch", { turn: "q", denied: ["1"] });
  await assert.rejects(rewind, /2 turns changed nothing/);
  assert.equal(content("keep"), "of the person, too");
});

test("entries that change after a call without an end, or while a background command runs, stay and are named", async (t) => {
  const { hook, write, content, turns, rewind } = await sceneOf(t);
  await hook("PreToolUse", { ...BASH, background: "" });
  await hook("PostToolUse", { ...BASH, background: "b1" });
  await hook("Stop", { tasks: ["b1"] });
  await write("keep", "of either");
  await hook("UserPromptSubmit", { turn: "q", notified: "1" });
  await hook("Stop", { turn: "q", tasks: [] });
  assert.deepEqual(await turns(), [[0, 1]], "a notification begins no turn");
  await write("later", "of the person");
  const [[path, why] = ["", ""], ...more] = await rewind();
  assert.deepEqual([path, more, content("keep")], ["keep", [], "of either"]);
  assert.match(why, /background command/);
  await hook("UserPromptSubmit", { turn: "r" });
  await hook("PreToolUse", { ...BASH, turn: "r" });
  await write("lost", "of either");
  assert.deepEqual((await turns())[0], [0, 1]);
});

test("late saves make no change uncertain, and a removal is the call's if nothing else was written beside it", async (t) => {
  const { hook, write, remove, content, turns, rewind } = await sceneOf(t);
  const at = async (): Promise<string> => {
    const now = new Date().toISOString();
    await sleep(TICK_MS);
    return now;
  };
  const before = await at();
  await write("old/x", "of the agent");
  await remove("keep");
  const after = await at();
  await write("old/y", "of the person");
  await hook("PreToolUse", { ...BASH, called_at: before, returned_at: before, asked_at: before });
  await hook("PostToolUse", { ...BASH, called_at: after, returned_at: after, asked_at: after });
  await hook("Stop");
  assert.deepEqual([await turns(), await rewind()], [[[2, 0]], []]);
  assert.deepEqual([content("keep"), content("old/x"), content("old/y")], ["one", "x", "of the person"]);
});

test("a rewind inside a turn leaves the turn's later calls to the next rewind", async (t) => {
  const { hook, write, content, rewind } = await sceneOf(t);
  await hook("PreToolUse", BASH);
  await write("out", "first");
  await hook("PostToolUse", BASH);
  await hook("PreToolUse", { tool: "mcp__cairn__rewind", call: "2" });
  assert.deepEqual([await rewind(), content("out")], [[], null]);
  await hook("PostToolUse", { tool: "mcp__cairn__rewind", call: "2" });
  await hook("PreToolUse", { ...BASH, call: "3" });
  await write("out", "again");
  await hook("PostToolUse", { ...BASH, call: "3" });
  await hook("Stop");
  assert.deepEqual([await rewind(), content("out")], [[], null]);
});
