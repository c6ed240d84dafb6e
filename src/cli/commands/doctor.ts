import { CairnError } from "../../errors.ts";
import type { Client, DoctorResult } from "../../contract/index.ts";
import type { CommandDefinition, Outcome } from "../command.ts";
import type { Context } from "../context.ts";
import { DoctorOptions } from "../../contract/care.ts";
import { VerbOptions } from "../options.ts";

const OPTIONS = new VerbOptions(DoctorOptions.entries);

export const command: CommandDefinition = {
  name: "doctor",
  harmless: true,
  arguments: [{ name: "[dir]", text: "the workspace", completes: "folders" }],
  options: OPTIONS.definitions,
  examples: [
    { line: "cairn doctor", text: "list problems, and what --repair would do; changes nothing" },
    { line: "cairn doctor --repair", text: "repair them" },
  ],
  async run(context, input) {
    const client = await context.open(input.argument(0));
    const result = await client.doctor({ ...context.callOptions(), ...OPTIONS.read(context, input) });
    await noteAgents(context, client, result);
    for (const problem of (await client.schedule(context.callOptions())).problems) context.note(problem);
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

/** Reports why agents with hooks in the folder may save nothing. Only this user's process can read the tools' records. */
async function noteAgents(context: Context, client: Client, { findings }: DoctorResult): Promise<void> {
  const { folderState } = await import("./agent/status.ts");
  const { agents } = await folderState(context, client.workspacePath());
  const { describeFailed } = await import("../../workspace/points/failed-hooks.ts");
  const isTold = findings.some(({ kind }) => kind === "hooks");
  for (const { tool, problems, failed } of agents) {
    if (failed !== null && !isTold) context.note(describeFailed({ agent: tool, ...failed }));
    for (const each of problems) context.note(each);
  }
}

function hintFor({ findings }: DoctorResult, repair: string): string {
  const left = findings.filter(({ severity, repaired }) => severity === "damage" && repaired !== true);
  if (findings.some((finding) => finding.repair !== undefined && finding.repaired === undefined))
    return `\`${repair}\` repairs what can be repaired`;
  if (left.some(({ kind }) => kind === "key"))
    return "put store-key or store-password back from a copy: without its keys the store cannot be read; or start over with `cairn release FOLDER --delete-points`";
  if (left.every(({ kind }) => kind === "folder")) return "see the finding for how to get the folder back";
  return "to heal these points, put the lost files back (for example `cairn backup restore latest --in-place`) and run `cairn save`; remove points that stay damaged with `cairn cleanup drop POINT…`, all in one call, and head only after another `cairn save`";
}
