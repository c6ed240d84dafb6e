import { group } from "../../command.ts";

export const command = group({
  name: "context",
  examples: [
    { line: "cairn context init knowledge", text: "create a store in a new folder" },
    { line: "cairn -C knowledge context add viking://resources/docs ./docs", text: "add and index a folder" },
    { line: 'cairn -C knowledge context find "how do clients sign in"', text: "search by meaning and by words" },
  ],
  verbs: {
    init: {
      summary: "create a context store in a folder",
      load: async () => ({ command: (await import("./stores.ts")).init }),
    },
    add: {
      summary: "add a file or folder",
      load: async () => ({ command: (await import("./stores.ts")).add }),
    },
    ls: { summary: "list entries at a URI", load: async () => ({ command: (await import("./stores.ts")).ls }) },
    cat: {
      summary: "print a file, or a directory's abstract",
      load: async () => ({ command: (await import("./stores.ts")).cat }),
    },
    find: {
      summary: "search by meaning and by words",
      load: async () => ({ command: (await import("./stores.ts")).find }),
    },
    rm: { summary: "remove a file or directory", load: async () => ({ command: (await import("./stores.ts")).rm }) },
    reindex: {
      summary: "update the index from the files",
      load: async () => ({ command: (await import("./stores.ts")).reindex }),
    },
    check: {
      summary: "compare the files with the index",
      load: async () => ({ command: (await import("./stores.ts")).check }),
    },
  },
});
