import { CairnError } from "../../errors.ts";
import { EXIT_PARTLY } from "../envelope.ts";
import type { CommandDefinition, Outcome } from "../command.ts";
import { usage } from "../input.ts";
import { plural, shellQuote } from "../render/format.ts";
import { VerifyOptions } from "../../contract/looking.ts";
import { pick } from "../../contract/schema.ts";
import { BACKUP_OPTIONS, backupIn, operandOf, requireNoRepository } from "../operands.ts";
import { VerbOptions } from "../options.ts";
import { shortener } from "../shorten.ts";

const OPTIONS = new VerbOptions(pick(VerifyOptions, "deep"));

export const command: CommandDefinition = {
  name: "verify",
  harmless: true,
  arguments: [
    {
      name: "[point]",
      text: "a save point, also of another workspace (NAME:POINT), or backup:SNAPSHOT; default: head",
      completes: "points",
    },
  ],
  options: [
    {
      flags: "--all",
      text: "verify every point in the control directory, also of forks, and the store itself",
      excludes: ["[point]"],
    },
    ...OPTIONS.definitions,
    ...BACKUP_OPTIONS,
  ],
  examples: [
    { line: "cairn verify", text: "read the complete content of head" },
    { line: "cairn verify backup:latest", text: "read all data of the last backup of this folder" },
    {
      line: "cairn verify --all",
      text: "everything in the control directory; exit 6 if something is damaged, 10 if not everything could be read",
    },
  ],
  async run(context, input) {
    const target = input.argument(0);
    const client = await context.open();
    const options = { ...context.callOptions(), ...OPTIONS.read(context, input) };
    const backup = backupIn(context, client, target ?? "head");
    if (backup !== null) {
      if (backup.path !== "")
        throw usage("a backup is verified as a whole", `cairn verify ${shellQuote(`backup:${backup.snapshot}`)}`);
      const { verifySnapshot } = await import("./backup/verify.ts");
      return verifySnapshot(context, input, backup);
    }
    requireNoRepository(input);
    const result = input.flag("all")
      ? await client.verifyAll(options)
      : await client.verify(operandOf(context, client, target ?? "head"), options);
    const outcome: Outcome = {
      data: result,
      async text() {
        const { renderVerify } = await import("../render/care.ts");
        const shorten = await shortener(
          client,
          [...result.problems, ...result.unverified].map(({ point }) => point),
        );
        return renderVerify(result, shorten, context.style);
      },
    };
    if (result.problems.length > 0) {
      const count = result.problems.length;
      outcome.error = new CairnError("damaged", `verify found ${plural(count, "problem")}`, {
        hint: `\`${context.commandLine(["doctor"])}\` tells what can be repaired`,
      });
    } else if (result.unverified.length > 0 || result.rows.some(({ wrong }) => wrong > 0))
      outcome.exitStatus = EXIT_PARTLY;
    return outcome;
  },
};
