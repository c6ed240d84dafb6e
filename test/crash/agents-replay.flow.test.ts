import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { walkDigests } from "../../src/workspace/store/testing-walk.ts";
import { buildCommand } from "../fixtures/command.ts";
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
