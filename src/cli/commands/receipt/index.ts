import { group } from "../../command.ts";

export const command = group({
  name: "receipt",
  examples: [{ line: "cairn receipt verify receipt.json", text: "is it as it was signed, and by this user's own key" }],
  verbs: { verify: { summary: "check that a receipt is as it was signed", load: () => import("./verify.ts") } },
});
