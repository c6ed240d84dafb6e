import { group } from "../../command.ts";

export const command = group({
  name: "database",
  examples: [
    { line: "cairn database list", text: "list the SQLite databases here, and the processes that have them open" },
    { line: "cairn database capture app.db --to app-copy.db", text: "a consistent copy while programs keep writing" },
    {
      line: "cairn database restore app-copy.db --to app.db",
      text: "restore it; the replaced database is kept beside it",
    },
  ],
  verbs: {
    list: { summary: "list the SQLite databases in a folder", load: () => import("./list.ts") },
    capture: { summary: "copy a database that is being written to", load: () => import("./capture.ts") },
    restore: { summary: "replace a database with a captured one", load: () => import("./restore.ts") },
  },
});
