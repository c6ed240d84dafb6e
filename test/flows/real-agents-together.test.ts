import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test, type TestContext } from "node:test";
import { cairnOk, SCRATCH } from "../fixtures/command.ts";
import { TestDaemon } from "../fixtures/daemon.ts";
import { eventually } from "../fixtures/eventually.ts";
import { LONG } from "../fixtures/long.ts";
import { MockModel } from "../fixtures/mock-model.ts";
import { findPeer, type Peer } from "../fixtures/peers.ts";
import { AGENTS, trustHooks, turnIds, Work } from "../fixtures/real-agents.ts";

/** Two real agents work at once in one folder, and each uses the MCP server of a daemon over HTTP. */

const NAMES = Object.keys(AGENTS);
const PAIRS = NAMES.flatMap((one, i) => NAMES.slice(i + 1).map((other) => [one, other] as const));

for (const pair of LONG ? PAIRS : PAIRS.filter((_, i) => i === 0 || i === PAIRS.length - 1)) {
  const peers = pair.map((name) => findPeer(AGENTS[name]!.peer));
  const missing = peers.find((peer) => "reason" in peer);
  const skip = missing === undefined ? false : (missing as { reason: string }).reason;
  test(`${pair.join(" and ")} work at once in one folder, and the turn of each is taken back alone`, { skip }, async (t) =>
    together(t, pair, peers as Peer[]),
  );
}

async function together(t: TestContext, pair: readonly [string, string], peers: readonly Peer[]): Promise<void> {
  const home = `${pair.join("-and-")}`;
  const works: { work: Work; model: MockModel }[] = [];
  for (const [i, name] of pair.entries()) {
    const model = await new MockModel().start(t);
    works.push({ model, work: new Work(home, AGENTS[name]!, peers[i]!.program, { url: model.url }) });
  }
  const { project } = works[0]!.work;
  const before = works[0]!.work.state();
  for (const [i, name] of pair.entries()) {
    works[i]!.work.cairn("agent", "install", name);
    if (name === "codex") await trustHooks(works[i]!.work);
  }
  // Each waits in a shell command until the other has begun one, so that their turns overlap.
  await Promise.all(
    works.map(async ({ work, model }, i) => {
      const [mine, other] = [pair[i]!, pair[1 - i]!];
      const agent = AGENTS[mine]!;
      const wait = `touch ${mine}.begun; for i in $(seq 600); do [ -e ${other}.begun ] && break; sleep 0.1; done`;
      const write = agent.write(path.join(project, `${mine}.txt`), `${mine}\n`);
      model.expect(agent.shell(wait), write, { say: "done" });
      await work.turn(`Work as ${mine}`, false);
    }),
  );
  const { work } = works[0]!;
  await eventually("the last hooks", () => work.turns().length === 2 && work.turns().every((each) => each.ended_at !== null));
  const after = work.state();
  const made = pair.flatMap((name) => [`${name}.begun`, `${name}.txt`]);
  assert.deepEqual(Object.keys(after).filter((name) => !(name in before)).toSorted(), made.toSorted());
  console.log(JSON.stringify(work.turns(), null, 1));
  for (const name of pair) {
    const turn = work.turns().find((each) => each.agent === name)!;
    const done = work.try("rewind", turn.turn_id);
    console.log(name, done.status, JSON.stringify(done.data), done.warnings, done.error);
  }
}
