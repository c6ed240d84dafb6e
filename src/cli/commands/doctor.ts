import { CairnError } from "../../errors.ts";
import type { DoctorResult } from "../../contract/index.ts";
import type { CommandDefinition, Outcome } from "../command.ts";
import { DoctorOptions } from "../../contract/care.ts";
import { VerbOptions } from "../options.ts";

const OPTIONS = new VerbOptions(DoctorOptions.entries, {
  breakLocks: { text: "take over another host's lock; only when you know that it is dead" },
});

export const command: CommandDefinition = {
  name: "doctor",
  arguments: [{ name: "[dir]", text: "the workspace", completes: "folders" }],
  options: OPTIONS.definitions,
  examples: [
    { line: "cairn doctor", text: "what is wrong, and what --repair would do about it; changes nothing" },
    { line: "cairn doctor --repair", text: "do it" },
  ],
  async run(context, input) {
    const client = await context.open(input.argument(0));
    const result = await client.doctor({ ...context.callOptions(), ...OPTIONS.read(context, input) });
    const outcome: Outcome = {
      data: result,
      async text() {
        const { renderDoctor } = await import("../render/care.ts");
        return renderDoctor(result, context.style);
      },
    };
    if (!result.healthy) {
      const repair = context.commandLine(["doctor", "--repair"], input.argument(0));
      outcome.error = new CairnError("damaged", "doctor found damage", { hint: hintFor(result, repair) });
    }
    return outcome;
  },
};

function hintFor({ findings }: DoctorResult, repair: string): string {
  const left = findings.filter(({ severity, repaired }) => severity === "damage" && repaired !== true);
  if (findings.some((finding) => finding.repair !== undefined && finding.repaired === undefined))
    return `\`${repair}\` mends what can be mended`;
  if (left.some(({ kind }) => kind === "key"))
    return "without its keys nothing of the store can be read: put store-key or store-password back from a copy, or begin anew with `cairn release FOLDER --delete-points`";
  if (left.every(({ kind }) => kind === "folder")) return "the finding says how the folder comes back";
  return "what is still in the folder, or comes back by `cairn backup restore latest --in-place`, is stored again by the next save, and heals the points; those that stay damaged go with `cairn cleanup --only POINT…`, all at once, head after another `cairn save`";
}
