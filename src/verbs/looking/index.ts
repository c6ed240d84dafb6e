/** Verbs that look at a workspace and its save points. */
export { workspacePath } from "./workspace-path.ts";
export { historyDays } from "./history-days.ts";
export { history } from "./history.ts";
export { why } from "./why.ts";
export { latestSavePoint, hasSavePoints } from "./latest-save-point.ts";
export { resolve, shortIds } from "./resolve.ts";
export { status } from "./status.ts";
export { diff } from "./diff.ts";
export { diffDatabase } from "./diff-database.ts";
export { show } from "./show.ts";
export { walk } from "./walk.ts";
export { read } from "./read.ts";
