import assert from "node:assert/strict";
import { test } from "node:test";
import { pageAgents } from "./page-agents.ts";

const PLAN = "0".repeat(32);

interface Fake {
  agents: ReturnType<typeof pageAgents>;
  /** The command lines that were run. */
  lines: string[];
  clock: { ms: number };
  answer: { warnings: string[]; folders: object[]; error?: Error };
}

function fake(): Fake {
  const lines: string[] = [];
  const clock = { ms: 0 };
  const answer: Fake["answer"] = { warnings: [], folders: [] };
  const ask = async (words: readonly string[]): Promise<{ data: unknown; warnings: string[] }> => {
    lines.push(words.join(" "));
    await Promise.resolve();
    if (answer.error !== undefined) throw answer.error;
    const { folders, warnings } = answer;
    return { data: { folders, plan_id: PLAN, files: [{ path: "/f", changed: true, text: "x" }] }, warnings };
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
  await agents.change("remove", { ...asked, plan: null });
  await agents.status(null);
  assert.deepEqual(lines, ["agent status --all", "-C /w agent remove codex --plan"]);
  for (const verb of ["install", "remove"] as const) {
    await agents.change(verb, { ...asked, plan: PLAN });
    await agents.status(null);
    assert.deepEqual(lines.slice(-2), [`-C /w agent ${verb} codex --apply ${PLAN}`, "agent status --all"]);
  }
  await agents.change("install", { ...asked, plan: PLAN });
  answer.error = new Error("no");
  await assert.rejects(agents.status(null));
  delete answer.error;
  assert.deepEqual(await agents.status(null), []);
});

test("a removal that leaves the folder covered says so", async () => {
  const { agents, answer } = fake();
  answer.warnings = ["the folder is still covered"];
  const told = await agents.change("remove", { folder: "/w", tool: "codex", plan: PLAN });
  assert.deepEqual(told, {
    plan_id: PLAN,
    files: [{ path: "/f", changed: true }],
    checked: null,
    problem: answer.warnings[0],
  });
});

test("a new workspace, and another answer about one folder, end the kept answer", async () => {
  const { agents, lines, answer } = fake();
  const folder = { path: "/w", agents: [] };
  answer.folders = [folder];
  await agents.status(null);
  await agents.status("/w");
  await agents.status(null);
  assert.deepEqual(lines, ["agent status --all", "-C /w agent status"]);
  const agent = { tool: "codex", covered: true, why: null, last_prompt: null, problems: [] };
  answer.folders = [{ ...folder, agents: [agent] }];
  await agents.status("/w");
  assert.deepEqual(await agents.status(null), answer.folders);
  assert.equal(lines.at(-1), "agent status --all");
  agents.forget();
  await agents.status(null);
  assert.equal(lines.filter((each) => each === "agent status --all").length, 3);
});
