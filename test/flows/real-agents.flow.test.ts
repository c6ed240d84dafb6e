import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test, type TestContext } from "node:test";
import { eventually } from "../fixtures/eventually.ts";
import { LONG } from "../fixtures/long.ts";
import { MockModel } from "../fixtures/mock-model.ts";
import { findPeer, type Peer } from "../fixtures/peers.ts";
import { type Agent, AGENTS, BUSY, folderWithCairn, git, goBack, trustHooks, Work } from "../fixtures/real-agents.ts";

/** Each real agent works for two turns, and goes back by the command and by its own MCP tool. The model alone is a mock. */

for (const [name, agent] of Object.entries(AGENTS)) {
  const peer = findPeer(agent.peer);
  const skip = "reason" in peer ? peer.reason : false;
  test(`${name}: two turns are saved, and reverted by cairn rewind and by the agent's MCP tool`, { skip }, async (t) =>
    flow(t, name, agent, peer as Peer),
  );
}

async function flow(t: TestContext, name: string, agent: Agent, { program, version }: Peer): Promise<void> {
  t.diagnostic(`${name} ${version}`);
  const model = await new MockModel().start(t);
  const work = new Work(name, agent, program, { url: model.url });
  const before = work.state();
  const inside = (file: string): string => path.join(work.project, file);
  const say = { say: "done" };
  assert.equal(work.cairn("agent", "install", name)["checked"], true);
  if (name === "codex") {
    assert.deepEqual([work.status(name).trusted, work.status(name).problems.length], [false, 1]);
    const longAgo = Date.now() / 1000 - 600;
    fs.utimesSync(path.join(work.home, ".codex/hooks.json"), longAgo, longAgo);
    model.expect(say);
    await work.turn("Do nothing", false);
    assert.deepEqual(work.turns(), [], "Codex has ignored the hooks");
    assert.match(work.status(name).problems[1], /no hook of Codex has saved since its prompt/);
    await trustHooks(work);
    assert.equal(work.status(name).trusted, true, "the digests are Codex's own");
  }

  const [make, remove] = ["mkdir made && echo one > made/x && echo more >> keep.txt", "rm -r old made/x"];
  model.expect(agent.write(inside("new.txt"), "by the tool\n"), agent.shell(make), say);
  await work.turn("Make the files", false);
  const first = work.state();
  model.expect(agent.shell(remove), ...agent.edit(inside("new.txt"), "by the tool", "edited"), say);
  await work.turn("Remove the files", true);
  const second = work.state();
  assert.deepEqual([first["made/x"], first["keep.txt"], first["old/a.txt"]], ["one\n", "keep\nmore\n", "a\n"]);
  assert.deepEqual([second["old"], second["made/x"], second["new.txt"]], [undefined, undefined, "edited\n"]);

  // opencode ends before its last hook.
  await eventually("the last hook", () => work.turns().every(({ ended_at: at }) => at !== null));
  if (work.turns().some(({ uncertain }) => uncertain > 0)) return t.skip(BUSY);
  assert.deepEqual(
    work
      .turns()
      .map(({ prompt, commands, paths, changed }) => [
        prompt?.replaceAll('"', ""),
        commands,
        changed,
        paths.map((each) => each.path).toSorted(),
      ]),
    [
      ["Remove the files", [remove], 5, ["made/x", "new.txt", "old", "old/a.txt", "old/b.txt"]],
      ["Make the files", [make], 4, ["keep.txt", "made", "made/x", "new.txt"]],
    ],
  );
  assert.deepEqual([work.status(name).trusted, work.status(name).problems], [true, []]);
  for (const [word, state] of [
    ["rewind", first],
    ["undo", second],
    ["redo", first],
    ["undo", second],
  ] as const) {
    work.cairn(word);
    assert.deepEqual(work.state(), state, word);
  }

  model.expect(...goBack(name));
  await work.turn(agent.hasCommand === true ? "/cairn-rewind 1" : "Go back a turn", true);
  if (agent.hasCommand === true) assert.match(model.log.at(-1)!, /If a number was given here: 1/);
  assert.equal(model.left, 0);
  assert.deepEqual(work.state(), first, "by the agent's own tool");
  work.cairn("agent", "remove", name);
  const added = { "keep.txt": "keep\nmore\n", made: "folder", "made/x": "one\n", "new.txt": "by the tool\n" };
  assert.deepEqual(work.state(), { ...before, ...added });
  assert.deepEqual(work.entries(), []);
}

const WAYS = ["me", "all-mine", "everybody"] as const;

for (const [name, agent] of Object.entries(AGENTS)) {
  const peer = findPeer(agent.peer);
  const skip = "reason" in peer ? peer.reason : false;
  for (const whom of LONG ? WAYS : (["me"] as const))
    test(
      `${name}: turns in the folder, a subfolder, a worktree and a clone are saved as --for ${whom} says`,
      { skip },
      async (t) => places(t, { name, agent, program: (peer as Peer).program, whom }),
    );
}

/** The agent makes a turn in each place. A subfolder belongs to the workspace above, a worktree becomes one. */
async function places(
  t: TestContext,
  { name, agent, program, whom }: { name: string; agent: Agent; program: string; whom: (typeof WAYS)[number] },
): Promise<void> {
  const model = await new MockModel().start(t);
  const bin = folderWithCairn();
  const work = new Work(`${name}-${whom}`, agent, program, { url: model.url, bin });
  const beside = path.join(work.home, "work/beside");
  git(work.project, "init", "--quiet");
  work.cairn("save");
  work.cairn("agent", "install", name, "--for", whom);
  git(work.project, "add", "--all");
  git(work.project, "commit", "--quiet", "-m", "first");
  git(work.project, "worktree", "add", "--quiet", beside);
  const mate = new Work(`mate-of-${name}-${whom}`, agent, program, { url: model.url, bin });
  fs.rmSync(mate.project, { recursive: true });
  git("/", "clone", "--quiet", work.project, mate.project);
  if (name === "codex") await trustHooks(work);
  const turnIn = async (one: Work, folder: string): Promise<void> => {
    model.expect(agent.write(path.join(folder, "new.txt"), `${folder}\n`), { say: "done" });
    await one.turn(`Write in ${path.basename(folder)}`, false, folder);
  };
  const promptsIn = (one: Work, folder: string): (string | null)[] =>
    one.turns(folder).map(({ prompt }) => prompt?.replaceAll('"', "") ?? null);
  const [below, isTop] = [path.join(work.project, "old"), whom === "everybody" && /claude|gemini/.test(name)];
  await turnIn(work, work.project);
  await eventually("the turn of the folder", () => promptsIn(work, work.project).length === 1);
  await turnIn(work, below);
  const inFolder = isTop ? ["Write in project"] : ["Write in old", "Write in project"];
  await eventually("the turns of the folder", () => promptsIn(work, work.project).length === inFolder.length);
  assert.deepEqual(promptsIn(work, work.project), inFolder);
  if (isTop) assert.match(work.status(name, below).why, /reads the project's hooks only if it is started in /);
  else assert.equal(work.status(name, below).covered, true);
  // For all workspaces a worktree is one once a person makes it one.
  await turnIn(work, beside);
  if (whom === "all-mine") assert.match(work.status(name, beside).why, /agent install .* covers it/);
  else await eventually("the turn of the worktree", () => promptsIn(work, beside).length === 1);
  await turnIn(mate, mate.project);
  assert.equal(mate.find(mate.project), null, "a clone with another home is no workspace");
  const { covered, why, problems } = mate.status(name);
  assert.deepEqual([covered, why], [false, whom === "everybody" ? "not a workspace" : "no hooks are installed"]);
  if (whom === "everybody") assert.match(problems.join(), /save nothing until it is a workspace: cairn -C .* save/);
  work.cairn("agent", "remove", name, "--for", whom);
  // The files for everybody stay in git, and so in the worktree.
  const isOfGit = (file: string): boolean => whom === "everybody" && file.startsWith(beside);
  assert.deepEqual(
    work.entries().filter((file) => !isOfGit(file)),
    [],
  );
}
