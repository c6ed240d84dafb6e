import { group } from "../../command.ts";

export const command = group({
  name: "bundle",
  examples: [
    { line: "cairn bundle verify docs.ovpack", text: "is everything in it what was packed" },
    { line: "cairn bundle extract docs.ovpack docs", text: "into a folder, once all of it was checked" },
  ],
  verbs: {
    inspect: { summary: "what is in a bundle", load: async () => ({ command: (await import("./files.ts")).inspect }) },
    verify: {
      summary: "read all of a bundle and prove it whole",
      load: async () => ({ command: (await import("./files.ts")).verify }),
    },
    diff: { summary: "compare two bundles", load: async () => ({ command: (await import("./files.ts")).diff }) },
    extract: {
      summary: "write what is in a bundle into a folder",
      load: async () => ({ command: (await import("./files.ts")).extract }),
    },
  },
});
