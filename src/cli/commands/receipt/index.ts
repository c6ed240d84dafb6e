import { group } from "../../command.ts";

export const command = group({
  name: "receipt",
  examples: [
    { line: "cairn receipt verify receipt.json", text: "check the signature, and that it is by this user's own key" },
  ],
  verbs: { verify: { summary: "verify a receipt's signature", load: () => import("./verify.ts") } },
});
