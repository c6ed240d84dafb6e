import type { VerifyReceiptOptions } from "../../../contract/index.ts";
import type { CommandDefinition } from "../../command.ts";
import { CairnError } from "../../../errors.ts";
import { printable } from "../../render/format.ts";

export const command: CommandDefinition = {
  name: "receipt verify",
  arguments: [{ name: "<file>", text: "a receipt that `cairn backup restore` wrote", completes: "files" }],
  options: [
    { flags: "--key <key>", text: "the public key that it must be signed with: base64, hex, or a file with either" },
  ],
  examples: [
    { line: "cairn receipt verify receipt.json", text: "is it as it was signed, and by this user's own key" },
    { line: "cairn receipt verify receipt.json --key operator.pub", text: "by a key that was handed over before" },
  ],
  async run(context, input) {
    const options: VerifyReceiptOptions = context.callOptions();
    const key = input.text("key");
    if (key !== undefined) options.key = key;
    const library = await context.library();
    const result = await library.verifyReceipt(context.absolute(input.required(0)), options);
    const { receipt, trusted } = result;
    const error = trusted
      ? undefined
      : new CairnError("refused", "the receipt is signed by an unknown key", {
          hint: "if you know the signer's public key, check with --key KEY",
        });
    return {
      data: result,
      ...(error === undefined ? {} : { error }),
      text() {
        const from = receipt["read_from"] === "memory" ? " (out of memory, which says nothing of the disk)" : "";
        const said = (name: string): string => printable(String(receipt[name]));
        return [
          trusted
            ? `${context.style.green("signed")} by a key that is known here: ${result.public_key}`
            : `${context.style.yellow("self-signed")}: by the key that it brings along, ${result.public_key}`,
          `  snapshot ${said("snapshot_id").slice(0, 8)} of repository ${said("repository_id").slice(0, 8)} was restored into ${said("target")}`,
          `  on ${said("host")} at ${said("made_at")}, read again${from} and found equal: state digest ${said("state_digest")}`,
        ].join("\n");
      },
    };
  },
};
