import { AgentEvent, FailedHooks } from "../../../contract/looking.ts";
import { about, flag, list, object, type Of, oneOf, opt, orNull, rows, text } from "../../../contract/schema.ts";
import { Progress } from "../../../contract/words.ts";

/** The `--json` data of the commands. */

const FILES = {
  tool: text(),
  for: oneOf(["me", "all-mine", "everybody"]),
  folder: orNull(text("the covered folder; null: all workspaces of the user")),
  files: rows(
    object({
      path: text("absolute"),
      changed: flag(),
      text: text("the file's new content; empty: the file was removed"),
      how: opt(oneOf(["created", "deleted", "edited", "unchanged"])),
      entries: opt(list(text(), "names of the entries that come or go, such as `hooks.Stop`")),
    }),
  ),
  plan_id: text("the id of these files with their content, for `--apply`"),
};
export const RemoveData = object(FILES);
export const InstallData = object({
  ...FILES,
  checked: orNull(
    flag("true: a hook was run as it is written, and its event arrived in the workspace; null: no hook was run"),
  ),
  problem: orNull(text("why the hook that was run as a check saved nothing")),
});
export const HookData = object({
  save_point_id: orNull(text("null: no point was made, or it is being made in the background")),
});

/** State of the background process of a folder. */
const LateState = object({
  running: flag(),
  started_at: text(),
  at: text("when this was written"),
  progress: orNull(Progress),
  failed: orNull(text("message of the error that ended the last save; null after a success")),
});
export type LateState = Of<typeof LateState>;

const AgentState = object({
  tool: text("a tool that `agent install` knows, or another one whose hooks were called here"),
  installed: list(oneOf(["project", "user"]), "files that have hooks: of the project, of the user"),
  covered: flag("true: the tool's hooks save this folder, if it runs them"),
  why: orNull(text("why the folder is not covered")),
  trusted: orNull(flag("true: the tool runs the hooks, going by its own records; null: unknown, or not installed")),
  last_prompt: orNull(text("when a person last gave the tool a prompt here, going by its own records; null: unknown")),
  last_hook: orNull(about(AgentEvent, "kept after `agent remove`")),
  last_point: orNull(AgentEvent),
  failed: orNull(FailedHooks),
  checked_at: orNull(text("when `agent install` last ran a hook as a check")),
  problems: rows(text(), "why points may be missing, and what to do"),
});
export type AgentState = Of<typeof AgentState>;
export const FolderState = object({
  path: text(),
  problem: orNull(text("why no hook can save the folder: it was released, is no workspace, or cannot be opened")),
  watched: orNull(flag("true: the daemon watches the folder for changes; null: no daemon serves the folder")),
  background: orNull(LateState),
  agents: rows(AgentState, "one for each tool"),
});
export type FolderState = Of<typeof FolderState>;
export const StatusData = object({
  folders: rows(FolderState),
  clones: rows(
    object({
      tool: text(),
      folder: text(),
      of: text("the covered folder"),
      at: text("when a hook of the tool first ran there"),
      asked_at: orNull(text("when `agent status` asked the person about it; null: not yet")),
    }),
    "folders in which a tool works: not covered, but copies of a covered git repository",
  ),
});
