import { AgentEventsOptions, AgentEventsResult } from "../../contract/looking.ts";
import { workspaceVerb } from "../kinds/define.ts";

export const agentEvents = workspaceVerb({
  about: "Returns the last calls of agents' hooks in a workspace.",
  options: AgentEventsOptions,
  output: AgentEventsResult,
  looks: true,
  addsWatched: true,
  run: async ({ workspace }, { limit = 100 }) => {
    const { readAgentEvents, withTexts } = await import("../../workspace/points/agent-record.ts");
    const events = limit === 0 ? [] : readAgentEvents(workspace.found).slice(-limit);
    return { events: withTexts(workspace.found, events), watched: null };
  },
});
