import type { CommandDefinition } from "../command.ts";
import { EXIT_PARTLY } from "../envelope.ts";
import { noteView, pageOfPoint } from "../page-address.ts";
import { firstLine } from "../render/format.ts";
import { shortener } from "../shorten.ts";

export const command: CommandDefinition = {
  name: "bisect",
  answers: true,
  arguments: [
    { name: "<good>", text: "a save point that is good", completes: "points" },
    { name: "<bad>", text: "a later save point that is bad", completes: "points" },
    { name: "<command...>", text: "the command that tests a point, after --" },
  ],
  examples: [
    { line: "cairn bisect head~9 head -- npm test", text: "which of nine saves broke the tests" },
    {
      line: "cairn bisect 1a2b latest -- sh -c 'make || exit 125; ./check'",
      text: "skip save points that do not compile",
    },
  ],
  async run(context, input) {
    const client = await context.open();
    const { quiet, json } = context.globals;
    const result = await client.bisect(input.required(0), input.required(1), input.rest(2), {
      ...context.callOptions(),
      onTest({ save_point_id: id, message }, step, steps) {
        context.progress.finish();
        if (!quiet && !json)
          context.diagnose(`testing ${id.slice(0, 8)} (step ${step} of about ${steps}): ${firstLine(message)}`);
      },
    });
    const { first_bad: bad } = result;
    const address = bad === null ? null : pageOfPoint(client.workspacePath(), bad.save_point_id);
    if (address !== null) noteView(address);
    return {
      data: { ...result, address },
      exitStatus: bad === null ? EXIT_PARTLY : 0,
      async text() {
        const { renderBisect } = await import("../render/bisect.ts");
        const { last_good: good, candidates } = result;
        const last = bad?.save_point_id ?? candidates.at(-1)!;
        const shorten = await shortener(client, [good, last, ...candidates]);
        const next = context.commandLine(["diff", shorten(good), shorten(last)]);
        const page = context.commandLine(["ui"]);
        return renderBisect({ result, shorten, next, page, style: context.style, now: Date.now() });
      },
    };
  },
};
