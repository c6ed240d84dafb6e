import { append } from "../../append.ts";
import { CairnError, toCairnError } from "../../errors.ts";
import type { Client, DoctorResult } from "../../contract/index.ts";
import type { CommandDefinition, Outcome } from "../command.ts";
import type { Context } from "../context.ts";
import { DoctorOptions, type Finding } from "../../contract/care.ts";
import { machinesRoot } from "../../fs/users.ts";
import { noteRunner } from "./service/status.ts";
import { VerbOptions } from "../options.ts";
import { formatBytes, listedNames, printable } from "../render/format.ts";

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
    const options = OPTIONS.read(context, input);
    const result = await client.doctor({ ...context.callOptions(), ...options });
    append(result.findings, await machineFindings(context, options.repair === true));
    const schedule = await client.schedule(context.callOptions());
    for (const problem of schedule.problems) context.note(problem);
    const hooks = result.findings.flatMap(({ kind, severity, detail }) =>
      (kind === "hooks" || kind === "not-writable") && severity !== "info" ? [detail] : [],
    );
    const failing = [...hooks, ...(await noteAgents(context, client, result)), ...schedule.problems];
    await noteRunner(context, schedule);
    const outcome: Outcome = {
      data: result,
      async text() {
        const { renderDoctor } = await import("../render/care.ts");
        return renderDoctor(result, context.style, failing.length > 0);
      },
    };
    if (!result.healthy) {
      const repair = context.commandLine(["doctor", "--repair"], input.argument(0));
      outcome.error = new CairnError("damaged", "doctor found damage", { hint: hintFor(result, repair) });
    } else if (failing.length > 0)
      outcome.error = new CairnError("overdue", listedNames(failing.slice(0, 3)), {
        hint: `\`${context.commandLine(["save"], input.argument(0))}\` shows if the folder can be saved now`,
      });
    return outcome;
  },
};

/**
 * Reports why agents with hooks in the folder may save nothing, and returns the failures that last. Only this user's process can
 * read the tools' records.
 */
async function noteAgents(context: Context, client: Client, { findings }: DoctorResult): Promise<string[]> {
  const { folderState } = await import("./agent/status.ts");
  const { agents } = await folderState(context, client.workspacePath());
  const { describeFailed } = await import("../../workspace/points/failed-hooks.ts");
  const isTold = findings.some(({ kind }) => kind === "hooks");
  const failing: string[] = [];
  for (const { tool, problems, failed } of agents) {
    const said = failed === null || isTold ? null : describeFailed({ agent: tool, ...failed });
    if (said !== null) context.note(said);
    if (said !== null && failed?.over === false) failing.push(said);
    for (const each of problems) context.note(each);
  }
  return failing;
}

/** Returns the findings of `doctor` about this user's machines: files of killed and failed commands, which a repair removes. */
async function machineFindings(context: Context, isRepair: boolean): Promise<Finding[]> {
  const { leftoversIn } = await import("../../capture/vm/leftovers.ts");
  const findings: Finding[] = [];
  try {
    for (const { places, bytes, remove } of await leftoversIn(machinesRoot(context.env))) {
      const detail = `files of killed or failed commands on virtual machines, ${formatBytes(bytes)}: ${listedNames(places.map(printable))}`;
      const finding: Finding = { kind: "leftovers", severity: "info", detail, repair: "they are removed" };
      findings.push(finding);
      if (!isRepair) continue;
      try {
        await remove();
        finding.repaired = true;
      } catch (error) {
        finding.repaired = false;
        finding.detail = `${detail}; the repair failed: ${toCairnError(error).message}`;
      }
    }
  } catch (error) {
    const detail = `the folder of virtual machines cannot be looked at: ${toCairnError(error).message}`;
    findings.push({ kind: "leftovers", severity: "warning", detail });
  }
  return findings;
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
