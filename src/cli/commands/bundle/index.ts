import { group } from "../../command.ts";

export const command = group({
  name: "bundle",
  examples: [
    { line: "cairn bundle verify docs.ovpack", text: "is everything in it what was packed" },
    { line: "cairn bundle export viking://resources/docs docs.ovpack", text: "a subtree of the context store here" },
    { line: "cairn bundle import docs.ovpack viking://resources", text: "into another store" },
    { line: "cairn bundle extract docs.ovpack docs", text: "into a folder, once all of it was checked" },
  ],
  verbs: {
    export: {
      summary: "pack a subtree of a context store",
      load: async () => ({ command: (await import("./stores.ts")).exportSubtree }),
    },
    import: {
      summary: "bring a bundle into a context store",
      load: async () => ({ command: (await import("./stores.ts")).importSubtree }),
    },
    backup: {
      summary: "pack all of a context store",
      load: async () => ({ command: (await import("./stores.ts")).backup }),
    },
    restore: {
      summary: "bring a backup back into a context store",
      load: async () => ({ command: (await import("./stores.ts")).restore }),
    },
    inspect: { summary: "what is in a bundle", load: async () => ({ command: (await import("./files.ts")).inspect }) },
    verify: {
      summary: "read all of a bundle and prove it whole",
      load: async () => ({ command: (await import("./files.ts")).verify }),
    },
    diff: { summary: "compare two bundles", load: async () => ({ command: (await import("./files.ts")).diff }) },
    convert: {
      summary: "write a bundle in another layout",
      load: async () => ({ command: (await import("./files.ts")).convert }),
    },
    extract: {
      summary: "write what is in a bundle into a folder",
      load: async () => ({ command: (await import("./files.ts")).extract }),
    },
  },
});
