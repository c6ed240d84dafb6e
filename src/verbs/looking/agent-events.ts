import { AgentEvent, AgentHooks } from "../../contract/looking.ts";
import { count, flag, object, type Of, opt, orNull, rows } from "../../contract/schema.ts";
import { WorkspaceCallOptions } from "../../contract/words.ts";
import { workspaceVerb } from "../kinds/define.ts";

export const AgentEventsOptions = object({
  ...WorkspaceCallOptions.entries,
  limit: opt(count("at most this many, the newest; default 100")),
});
export type AgentEventsOptions = Of<typeof AgentEventsOptions>;
export const AgentEventsResult = object({
  events: rows(AgentEvent, "oldest first"),
  agents: rows(AgentHooks, "each agent with an event in the whole record"),
  watched: orNull(flag("true: the daemon watches the folder for changes; null: no daemon serves the folder")),
});
export type AgentEventsResult = Of<typeof AgentEventsResult>;

export const agentEvents = workspaceVerb({
  about: "Returns the last calls of agents' hooks in a workspace, and which hooks failed.",
  options: AgentEventsOptions,
  output: AgentEventsResult,
  looks: true,
  addsWatched: true,
  run: async ({ workspace }, { limit = 100, onWarning }) => {
    const { readAgentEvents, withTexts } = await import("../../workspace/points/agent-record.ts");
    const { hooksIn } = await import("../../workspace/points/failed-hooks.ts");
    const log = readAgentEvents(workspace.found);
    const events = limit === 0 ? [] : log.slice(-limit);
    // A hook saves into a damaged store too, if it needs nothing of the damaged part.
    await (await import("../../look/status.ts")).warnOfDamage(workspace, { onWarning });
    return { events: withTexts(workspace.found, events), agents: hooksIn(workspace.found, log), watched: null };
  },
});
