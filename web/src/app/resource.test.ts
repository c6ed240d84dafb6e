import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { h, render } from "preact";
import { type Answer, isConnected, type Resource, useResource } from "./resource.ts";

const DEADLINE_MS = 20_000;

/** Shows a component without content, which needs no more of a document. Returns what its last rendering got. */
function shown(t: TestContext, load: () => Promise<string>): () => Resource<string> {
  const got: Resource<string>[] = [];
  const place = { childNodes: [], firstChild: null } as unknown as Element;
  const View = (): null => {
    got.push(useResource(t.name, load, { isOfNow: true }));
    return null;
  };
  render(h(View, null), place);
  t.after(() => render(null, place));
  return () => got.at(-1)!;
}

async function until(is: () => boolean): Promise<void> {
  const end = performance.now() + DEADLINE_MS;
  for (; !is(); await new Promise(setImmediate)) assert.ok(performance.now() < end, "no change in time");
}

test("a failed load takes the place of an earlier answer, and keeps the time of the first failure", async (t) => {
  const answers: Promise<string>[] = [];
  const now = shown(t, () => answers.shift() ?? Promise.reject(Object.assign(new Error("moved"), { code: "io" })));
  answers.push(Promise.resolve("saved"));
  await until(() => now().value === "saved");
  now().reload();
  await until(() => now().problem !== null);
  assert.equal(now().value, undefined);
  const { since } = now().problem!;
  const first = now().problem;
  now().reload();
  await until(() => now().problem !== first);
  assert.deepEqual(now().problem, { code: "io", message: "moved", hint: undefined, details: undefined, since });
  answers.push(Promise.resolve("changed"));
  now().reload();
  await until(() => now().problem === null);
  assert.equal(now().value, "changed");
});

test("an answer about the folder of now does not outlive the connection to the server", async (t) => {
  let isThere = true;
  const now = shown(t, () => (isThere ? Promise.resolve("saved") : Promise.reject(new Error("no server"))));
  await until(() => now().value === "saved");
  isThere = false;
  isConnected.value = false;
  t.after(() => void (isConnected.value = true));
  await until(() => now().value === undefined);
  assert.equal(now().problem?.message, "no server");
});

test("an answer that does not come is no answer after half a minute", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  let loads = 0;
  const now = shown(t, () => (++loads === 1 ? Promise.resolve("saved") : new Promise(() => undefined)));
  // Effects wait for a timer.
  const soon = (is: () => boolean): Promise<void> => until(() => (t.mock.timers.tick(1), is()));
  await soon(() => now().value === "saved");
  now().reload();
  await soon(() => loads === 2);
  t.mock.timers.tick(29_000);
  await soon(() => true);
  assert.equal(now().value, "saved");
  t.mock.timers.tick(1_000);
  await soon(() => now().value === undefined);
  assert.equal(now().problem?.message, "there is no answer yet");
});

test("no value stands beside a problem", () => {
  const problem = { code: "io", message: "moved", since: "2026-11-30T15:24:00.000Z" };
  // @ts-expect-error A newer problem takes the place of a value.
  const both: Answer<string> = { value: "saved", problem };
  assert.ok(both);
});
