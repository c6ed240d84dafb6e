import { group } from "../../command.ts";

export const command = group({
  name: "context",
  examples: [
    { line: "cairn context init knowledge", text: "a store in a new folder" },
    { line: "cairn -C knowledge context add viking://resources/docs ./docs", text: "a folder, indexed" },
    { line: 'cairn -C knowledge context find "how do clients sign in"', text: "by meaning and by words" },
  ],
  verbs: {
    init: {
      summary: "make a context store of a folder",
      load: async () => ({ command: (await import("./stores.ts")).init }),
    },
    add: {
      summary: "put a file or folder into it",
      load: async () => ({ command: (await import("./stores.ts")).add }),
    },
    ls: { summary: "list what lies at a place", load: async () => ({ command: (await import("./stores.ts")).ls }) },
    cat: {
      summary: "print a file, or a directory's abstract",
      load: async () => ({ command: (await import("./stores.ts")).cat }),
    },
    find: {
      summary: "find by meaning and by words",
      load: async () => ({ command: (await import("./stores.ts")).find }),
    },
    rm: { summary: "take a file or directory out", load: async () => ({ command: (await import("./stores.ts")).rm }) },
    reindex: {
      summary: "make the index what the files are",
      load: async () => ({ command: (await import("./stores.ts")).reindex }),
    },
    check: { summary: "compare files and index", load: async () => ({ command: (await import("./stores.ts")).check }) },
  },
});
