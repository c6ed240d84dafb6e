import assert from "node:assert/strict";
import path from "node:path";
import { test, type TestContext } from "node:test";
import { SCRATCH } from "../fixtures/command.ts";
import { TestDaemon } from "../fixtures/daemon.ts";
import { eventually } from "../fixtures/eventually.ts";
import { LONG } from "../fixtures/long.ts";
import { MockModel } from "../fixtures/mock-model.ts";
import { findPeer, type Peer } from "../fixtures/peers.ts";
import { AGENTS, BUSY, folderWithCairn, goBack, trustHooks, Work } from "../fixtures/real-agents.ts";

/** Two real agents work at once in one folder, and each uses the MCP server of a daemon over HTTP. */

const NAMES = Object.keys(AGENTS);
const PAIRS = NAMES.flatMap((one, i) => NAMES.slice(i + 1).map((other) => [one, other] as const));

for (const pair of LONG ? PAIRS : PAIRS.filter((_, i) => i === 0 || i === PAIRS.length - 1)) {
  const peers = pair.map((name) => findPeer(AGENTS[name]!.peer));
  const missing = peers.find((peer) => "reason" in peer);
  const skip = missing === undefined ? false : (missing as { reason: string }).reason;
  test(
    `${pair.join(" and ")} work at once in one folder, and the turn of each is taken back alone`,
    { skip },
    async (t) => together(t, pair, peers as Peer[]),
  );
}

async function together(t: TestContext, pair: readonly [string, string], peers: readonly Peer[]): Promise<void> {
  const home = `${pair.join("-and-")}`;
  const more = { XDG_STATE_HOME: path.join(SCRATCH, `state-of-${home}`) };
  const works: { work: Work; model: MockModel }[] = [];
  for (const [i, name] of pair.entries()) {
    const model = await new MockModel().start(t);
    works.push({ model, work: new Work(home, AGENTS[name]!, peers[i]!.program, { url: model.url, more }) });
  }
  const { project } = works[0]!.work;
  const before = works[0]!.work.state();
  for (const [i, name] of pair.entries()) {
    works[i]!.work.cairn("agent", "install", name);
    if (name === "codex") await trustHooks(works[i]!.work);
  }
  // Each waits in a shell command until the other has begun one, so that their turns overlap. Gemini CLI refuses `$(…)`.
  await Promise.all(
    works.map(async ({ work, model }, i) => {
      const [mine, other] = [pair[i]!, pair[1 - i]!];
      const agent = AGENTS[mine]!;
      const wait = `touch ${mine}.begun; timeout 60 sh -c "until [ -e ${other}.begun ]; do sleep 0.1; done"`;
      const write = agent.write(path.join(project, `${mine}.txt`), `${mine}\n`);
      model.expect(agent.shell(wait), write, { say: "done" });
      await work.turn(`Work as ${mine}`, false);
    }),
  );
  const { work } = works[0]!;
  await eventually(
    "the last hooks",
    () => work.turns().length === 2 && work.turns().every((each) => each.ended_at !== null),
  );
  const after = work.state();
  const made = (state: object): string[] => Object.keys(state).filter((file) => !(file in before));
  assert.deepEqual(
    made(after).toSorted(),
    pair.flatMap((name) => [`${name}.begun`, `${name}.txt`]),
  );
  for (const name of pair) {
    const turn = work.turns().find((each) => each.agent === name)!;
    const own = turn.paths.map((each) => each.path);
    assert.ok(
      own.every((file) => file.startsWith(`${name}.`)),
      `the turn of ${name} has ${own.join()}`,
    );
    const { status, data } = work.try("rewind", turn.turn_id);
    const named = (data["left_out"] as { path: string }[]).map((each) => each.path);
    assert.equal(status, named.length === 0 ? 0 : 10);
    assert.deepEqual(
      made(work.state()).toSorted(),
      made(after)
        .filter((file) => !own.includes(file))
        .toSorted(),
      `${name}: ${JSON.stringify([turn, data])}`,
    );
    const kept = made(work.state()).filter((file) => file.startsWith(`${name}.`));
    assert.deepEqual(
      kept.filter((file) => !named.includes(file)),
      [],
      "what stays of the turn is named",
    );
    if (own.length > 0) work.cairn("undo");
    assert.deepEqual(work.state(), after);
  }
  for (const name of pair) work.cairn("agent", "remove", name);
  assert.deepEqual([work.entries(), made(work.state()).length], [[], 4]);
}

for (const [name, agent] of Object.entries(AGENTS)) {
  const peer = findPeer(agent.peer);
  const skip = "reason" in peer ? peer.reason : LONG ? false : "a variant of another test; CAIRN_TEST_LONG=1 runs it";
  test(`${name} goes back a turn by the MCP server of a daemon over HTTP`, { skip }, async (t) => {
    const daemon = new TestDaemon(t);
    daemon.configure('[backend]\ntype = "plain"\n[http]\nlisten = "127.0.0.1:0"\n');
    await daemon.start();
    const model = await new MockModel().start(t);
    const more: Record<string, string> = {
      CAIRN_SOCKET: daemon.socket,
      XDG_STATE_HOME: path.join(SCRATCH, `state-of-${name}`),
      PATH: `${folderWithCairn()}:${process.env["PATH"]}`,
    };
    const work = new Work(`${name}-http`, agent, (peer as Peer).program, { url: model.url, more });
    const before = work.state();
    const install = ["agent", "install", name, "--for", "everybody", "--http", `${daemon.url}/mcp`];
    assert.equal(work.cairn(...install)["checked"], true);
    more["CAIRN_TOKEN"] = work.cairn("service", "token", "create", "--workspace", work.project)["token"] as string;
    if (name === "codex") await trustHooks(work);
    model.expect(agent.shell("rm -r old && echo new > new.txt"), { say: "done" });
    await work.turn("Change the files", false);
    await eventually("the last hook", () => work.turns()[0]?.ended_at !== null);
    if (work.turns().some(({ uncertain }) => uncertain > 0)) return t.skip(BUSY);
    assert.deepEqual(
      work.turns().map(({ changed }) => changed),
      [4],
    );
    model.expect(...goBack(name));
    await work.turn("Go back a turn", true);
    assert.deepEqual([model.left, work.state()], [0, before]);
    work.cairn("agent", "remove", name, "--for", "everybody");
    assert.deepEqual(work.entries(), []);
  });
}
