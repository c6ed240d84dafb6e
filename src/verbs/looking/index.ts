/** Verbs that look at a workspace and its save points. */
export { AgentEventsOptions, AgentEventsResult, agentEvents } from "./agent-events.ts";
export { DiffDatabaseOptions, DiffDatabaseResult, diffDatabase } from "./diff-database.ts";
export { DiffTextOptions, DiffTextResult, diffText } from "./diff-text.ts";
export { diff } from "./diff.ts";
export { FindNamesOptions, FindNamesResult, findNames } from "./find-names.ts";
export { historyDays } from "./history-days.ts";
export { history } from "./history.ts";
export { hasSavePoints, latestSavePoint } from "./latest-save-point.ts";
export { read } from "./read.ts";
export { resolve, shortIds } from "./resolve.ts";
export { showBackup } from "./show-backup.ts";
export { show } from "./show.ts";
export { status } from "./status.ts";
export { turns } from "./turns.ts";
export { walk } from "./walk.ts";
export { why } from "./why.ts";
export { workspacePath } from "./workspace-path.ts";
