import { group } from "../../command.ts";

export const command = group({
  name: "database",
  examples: [
    { line: "cairn database list", text: "which SQLite databases are here, and who has them open" },
    { line: "cairn database capture app.db --to app-copy.db", text: "a consistent copy while programs go on writing" },
    { line: "cairn database restore app-copy.db --to app.db", text: "give it back; the present one is kept beside it" },
  ],
  verbs: {
    list: { summary: "list the SQLite databases in a folder", load: () => import("./list.ts") },
    capture: { summary: "copy a database that is being written to", load: () => import("./capture.ts") },
    restore: { summary: "put a captured database in its place", load: () => import("./restore.ts") },
  },
});
