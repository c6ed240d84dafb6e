import { createReadStream, existsSync } from "node:fs";
import { WhyOptions } from "../../../contract/repositories.ts";
import { pick } from "../../../contract/schema.ts";
import { advice, CairnError, line, word } from "../../../errors.ts";
import type { CommandDefinition } from "../../command.ts";
import { VerbOptions } from "../../options.ts";
import { shortener } from "../../shorten.ts";
import { NAME, onMachine } from "./place.ts";

const LIMIT = new VerbOptions(pick(WhyOptions, "limit"));
export const history: CommandDefinition = {
  name: "vm history",
  answers: true,
  arguments: [NAME],
  options: LIMIT.definitions,
  examples: [{ line: "cairn vm history web", text: "its saved states, newest first" }],
  async run(context, input) {
    const { name, saved } = await onMachine(context, input, "inspectMachine");
    const client = await context.open(saved).catch((error: unknown) => {
      if (existsSync(saved)) throw error;
      throw new CairnError("not_found", `there is no saved state of ${name}`, {
        hint: advice`save one: ${line(`vm save ${name}`, "saveMachine", word("machines"), name)}`,
      });
    });
    const { limit = 0 } = LIMIT.read(context, input);
    const result = await client.history(undefined, limit, context.callOptions());
    return {
      data: result,
      paged: true,
      async text() {
        const { renderHistory } = await import("../../render/points.ts");
        const { save_points: points, head } = result;
        return renderHistory({
          result: { ...result, undo: null },
          rows: points.map((point) => [point]),
          empty: "no saved states yet",
          shorten: await shortener(client, [...points.map((point) => point.save_point_id), head]),
          style: context.style,
          now: Date.now(),
        });
      },
    };
  },
};

export const logs: CommandDefinition = {
  name: "vm logs",
  answers: true,
  arguments: [NAME],
  examples: [{ line: "cairn vm logs web", text: "its console since the last start or restore" }],
  async run(context, input) {
    const { name, console_log } = await onMachine(context, input, "inspectMachine");
    return {
      data: { name, console_log },
      ...(context.globals.json || !existsSync(console_log) ? {} : { content: createReadStream(console_log) }),
    };
  },
};
