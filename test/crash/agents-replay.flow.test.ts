import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { walkDigests } from "../../src/workspace/store/testing-walk.ts";
import { buildCommand, cairnOk } from "../fixtures/command.ts";
import { readFolder } from "../fixtures/folder-state.ts";
import { makeFirst, makeSecond, makeUnsaved } from "../fixtures/two-states.ts";
import { type Live, replay } from "./replay.ts";

/** Commands around other programs and coding agents: each is killed at every pass. */

/** Calls the hook of Claude Code with an event of one turn. */
function hook(live: Live, event: string, facts: object = {}): void {
  const common = { hook_event_name: event, cwd: live.folder, session_id: "session", prompt_id: "turn" };
  const input = JSON.stringify({ ...common, ...facts });
  const args = [buildCommand(), "agent", "hook", "claude-code", "--verbose"];
  const { status, stderr } = spawnSync(process.execPath, args, { input, encoding: "utf8" });
  assert.equal(status, 0, stderr);
}

replay("rewind, killed at any pass, leaves the state after the turn or before it", async (live) => {
  makeFirst(live.folder);
  await live.save();
  await live.close();
  const call = { tool_name: "Bash", tool_input: { command: "make second" } };
  hook(live, "UserPromptSubmit", { prompt: "Change all" });
  hook(live, "PreToolUse", call);
  makeSecond(live.folder);
  hook(live, "PostToolUse", call);
  hook(live, "Stop");
  return {
    args: ["rewind", "-C", live.folder],
    look: () => readFolder(live.folder, { withoutRootTime: true }),
  };
});

replay("run, killed at any pass, has a point of the folder as it was before the program started", async (live) => {
  makeFirst(live.folder);
  await live.save();
  makeUnsaved(live.folder);
  const unsaved = walkDigests(live.folder).state;
  const made = path.join(live.folder, "made");
  return {
    args: ["run", "-m", "run", "-C", live.folder, "--", "sh", "-c", `echo made > ${made}`],
    look: async () => {
      const { save_points: points } = await (await live.client()).history(undefined, 0, { all: true });
      const [first] = points.filter(({ message }) => message === "run").toReversed();
      const hasRun = fs.existsSync(made);
      if (hasRun) assert.equal(first?.payload_root_hash, unsaved, "the point before the program");
      return hasRun;
    },
  };
});

const OWN = `{\n  "model": "x",\n  "hooks": {\n    "Stop": [\n      { "hooks": [{ "type": "command", "command": "true" }] }\n    ]\n  }\n}\n`;

/** The files of a user's home; those of the tool are whole, and have the user's own entries. */
function homeOf(live: Live): Record<string, string> {
  const settings = fs.readFileSync(live.at("home/.claude/settings.json"), "utf8");
  const { model, hooks } = JSON.parse(settings) as { model: string; hooks: { Stop: unknown[] } };
  assert.deepEqual([model, hooks.Stop[0]], ["x", { hooks: [{ type: "command", command: "true" }] }]);
  const names = fs.readdirSync(live.at("home"), { recursive: true, encoding: "utf8" });
  // Hooks register workspaces in the usual place, too.
  const own = names.filter((name) => !name.startsWith(".local"));
  const files = own.filter((name) => fs.statSync(live.at("home", name)).isFile()).toSorted();
  return Object.fromEntries(files.map((name) => [name, fs.readFileSync(live.at("home", name), "utf8")]));
}

for (const verb of ["install", "remove"] as const)
  replay(`agent ${verb}, killed at any pass, keeps a user's own settings and can be repeated`, async (live) => {
    makeFirst(live.folder);
    await live.save();
    await live.close();
    fs.mkdirSync(live.at("home/.claude"));
    fs.writeFileSync(live.at("home/.claude/settings.json"), OWN);
    const args = ["agent", verb, "claude-code", "-C", live.folder];
    if (verb === "remove") cairnOk(["agent", "install", "claude-code", "-C", live.folder], { own: true });
    return {
      args,
      isRepeated: true,
      next: async () => {
        homeOf(live);
        cairnOk(args);
      },
      look: () => {
        const files = homeOf(live);
        if (verb === "remove") assert.equal(files[".claude/settings.json"], OWN);
        else assert.match(files[".claude/settings.json"]!, /agent hook claude-code/);
        return files;
      },
    };
  });
