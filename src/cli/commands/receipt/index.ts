import type { CommandDefinition } from "../../command.ts";
import { usage } from "../../input.ts";

export const command: CommandDefinition = {
  name: "receipt",
  arguments: [{ name: "<verb>", text: "what to do" }],
  examples: [{ line: "cairn receipt verify receipt.json", text: "is it as it was signed, and by this user's own key" }],
  verbs: { verify: { summary: "check that a receipt is as it was signed", load: () => import("./verify.ts") } },
  async run() {
    throw usage("cairn receipt wants a verb", "`cairn receipt --help` lists them");
  },
};
