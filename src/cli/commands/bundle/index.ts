import { group } from "../../command.ts";

export const command = group({
  name: "bundle",
  examples: [
    { line: "cairn bundle verify docs.ovpack", text: "check every file in the bundle" },
    {
      line: "cairn bundle export viking://resources/docs docs.ovpack",
      text: "export a subtree of the context store here",
    },
    { line: "cairn bundle import docs.ovpack viking://resources", text: "import it into another store" },
    { line: "cairn bundle extract docs.ovpack docs", text: "check it, and extract it into a folder" },
  ],
  verbs: {
    export: {
      summary: "export a subtree of a context store",
      load: async () => ({ command: (await import("./stores.ts")).exportSubtree }),
    },
    import: {
      summary: "import a bundle into a context store",
      load: async () => ({ command: (await import("./stores.ts")).importSubtree }),
    },
    backup: {
      summary: "export a whole context store",
      load: async () => ({ command: (await import("./stores.ts")).backup }),
    },
    restore: {
      summary: "restore a backup into a context store",
      load: async () => ({ command: (await import("./stores.ts")).restore }),
    },
    inspect: {
      summary: "list a bundle's content",
      load: async () => ({ command: (await import("./files.ts")).inspect }),
    },
    verify: {
      summary: "read a bundle and check it for damage",
      load: async () => ({ command: (await import("./files.ts")).verify }),
    },
    diff: { summary: "compare two bundles", load: async () => ({ command: (await import("./files.ts")).diff }) },
    convert: {
      summary: "convert a bundle to another layout",
      load: async () => ({ command: (await import("./files.ts")).convert }),
    },
    extract: {
      summary: "extract a bundle into a folder",
      load: async () => ({ command: (await import("./files.ts")).extract }),
    },
  },
});
