import assert from "node:assert/strict";
import { test } from "node:test";
import { pageAgents } from "./page-agents.ts";

interface Fake {
  agents: ReturnType<typeof pageAgents>;
  /** The command lines that were run. */
  lines: string[];
  clock: { ms: number };
  answer: { warnings: string[]; error?: Error };
}

function fake(): Fake {
  const lines: string[] = [];
  const clock = { ms: 0 };
  const answer: Fake["answer"] = { warnings: [] };
  const ask = async (words: readonly string[]): Promise<{ data: unknown; warnings: string[] }> => {
    lines.push(words.join(" "));
    await Promise.resolve();
    if (answer.error !== undefined) throw answer.error;
    return { data: { folders: [], files: [{ path: "/f", changed: true, text: "x" }] }, warnings: answer.warnings };
  };
  return { agents: pageAgents(ask, () => clock.ms), lines, clock, answer };
}

test("tabs and reloads of the overview share one agent status --all for a minute", async () => {
  const { agents, lines, clock } = fake();
  await Promise.all([agents.status(null), agents.status(null)]);
  clock.ms = 59_000;
  await agents.status(null);
  assert.equal(lines.length, 1);
  clock.ms = 61_000;
  await agents.status(null);
  assert.deepEqual(lines, ["agent status --all", "agent status --all"]);
  await agents.status("/w");
  await agents.status("/w");
  assert.deepEqual(lines.slice(2), ["-C /w agent status", "-C /w agent status"]);
});

test("an installation and a removal end the kept answer, a plan does not, and a failure is not kept", async () => {
  const { agents, lines, answer } = fake();
  const asked = { folder: "/w", tool: "codex" };
  await agents.status(null);
  await agents.change("remove", { ...asked, isPlan: true });
  await agents.status(null);
  assert.deepEqual(lines, ["agent status --all", "-C /w agent remove codex --plan"]);
  for (const verb of ["install", "remove"] as const) {
    await agents.change(verb, { ...asked, isPlan: false });
    await agents.status(null);
    assert.deepEqual(lines.slice(-2), [`-C /w agent ${verb} codex`, "agent status --all"]);
  }
  await agents.change("install", { ...asked, isPlan: false });
  answer.error = new Error("no");
  await assert.rejects(agents.status(null));
  delete answer.error;
  assert.deepEqual(await agents.status(null), []);
});

test("a removal that leaves the folder covered says so", async () => {
  const { agents, answer } = fake();
  answer.warnings = ["the folder is still covered"];
  const told = await agents.change("remove", { folder: "/w", tool: "codex", isPlan: false });
  assert.deepEqual(told, { files: [{ path: "/f", changed: true }], checked: null, problem: answer.warnings[0] });
});
