import { VerifyReceiptOptions } from "../../../contract/snapshots.ts";
import type { CommandDefinition } from "../../command.ts";
import { CairnError } from "../../../errors.ts";
import { type ReceiptBody, unprovenBy } from "../../../formats/records/receipt.ts";
import { VerbOptions } from "../../options.ts";
import { printable } from "../../render/format.ts";

const OPTIONS = new VerbOptions(VerifyReceiptOptions.entries);

export const command: CommandDefinition = {
  name: "receipt verify",
  harmless: true,
  arguments: [{ name: "<file>", text: "a receipt that `cairn backup restore` wrote", completes: "files" }],
  options: OPTIONS.definitions,
  examples: [
    { line: "cairn receipt verify receipt.json", text: "check the signature, and that it is by this user's own key" },
    {
      line: "cairn receipt verify receipt.json --key operator.pub",
      text: "require a signer whose public key you have",
    },
  ],
  async run(context, input) {
    const library = await context.library();
    const result = await library.verifyReceipt(context.absolute(input.required(0)), {
      ...context.callOptions(),
      ...OPTIONS.read(context, input),
    });
    const { receipt, trusted, rewritten } = result;
    const error = trusted
      ? undefined
      : new CairnError("refused", "the receipt is signed by an unknown key", {
          hint: "check with --key KEY, if you know the signer's public key",
        });
    return {
      data: result,
      ...(error === undefined ? {} : { error }),
      text() {
        const from = receipt["read_from"] === "memory" ? " (from memory, which proves nothing about the disk)" : "";
        const said = (name: string): string => printable(String(receipt[name]));
        return [
          trusted
            ? `${context.style.green("signed")} by a known key: ${result.public_key}`
            : `${context.style.yellow("self-signed")}: by the key in the receipt itself, ${result.public_key}`,
          `  snapshot ${said("snapshot_id").slice(0, 8)} of repository ${said("repository_id").slice(0, 8)} was restored into ${said("target")}`,
          `  on ${said("host")} at ${said("made_at")}, read again${from} and found equal: state digest ${said("state_digest")}`,
          ...unprovenBy(receipt as Partial<ReceiptBody>).map(
            (why) => `  ${context.style.yellow("not proven")}: ${printable(why)}`,
          ),
          ...(rewritten === null
            ? []
            : [
                `  ${context.style.yellow("rewritten since")}: at ${rewritten.at} these paths were removed from the save point, so it has another digest now: ${rewritten.paths.map(({ path }) => printable(path)).join(", ")}`,
              ]),
        ].join("\n");
      },
    };
  },
};
