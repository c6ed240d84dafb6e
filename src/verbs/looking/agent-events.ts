import { AgentEventsOptions, AgentEventsResult } from "../../contract/looking.ts";
import { workspaceVerb } from "../kinds/define.ts";

export const agentEvents = workspaceVerb({
  about: "Returns the last calls of agents' hooks in a workspace.",
  options: AgentEventsOptions,
  output: AgentEventsResult,
  looks: true,
  addsWatched: true,
  run: async ({ workspace }, { limit = 100 }) => {
    const { readAgentEvents } = await import("../../workspace/points/agent-events.ts");
    const events = readAgentEvents(workspace.found.paths.agentEvents);
    return { events: limit === 0 ? [] : events.slice(-limit), watched: null };
  },
});
