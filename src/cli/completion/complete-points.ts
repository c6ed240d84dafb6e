import type { CommandDefinition } from "../command.ts";
import { firstLine } from "../render/format.ts";

export const command: CommandDefinition = {
  name: "__complete",
  answers: true,
  arguments: [{ name: "[what]", text: "points" }],
  examples: [{ line: "cairn __complete points", text: "a line per point: short id, tab, message" }],
  /** Completion must never disturb the line that is being typed: a failure gives no candidates. */
  async run(context) {
    try {
      const client = await context.open();
      // No progress is shown, because it would overwrite the line that is being typed.
      const { signal } = context;
      const { save_points: points } = await client.history(undefined, LIMIT, { signal });
      const ids = await client.shortIds(
        points.map((point) => point.save_point_id),
        { signal },
      );
      const candidates = points.map((point, i) => ({
        word: ids[i] ?? point.save_point_id,
        text: firstLine(point.message) || point.created_at,
      }));
      candidates.push(
        { word: "head", text: "the point that the folder is based on" },
        { word: "latest", text: "the newest point" },
      );
      return { data: { candidates }, text: () => candidates.map(({ word, text }) => `${word}\t${text}`).join("\n") };
    } catch {
      return { data: { candidates: [] }, text: () => "" };
    }
  },
};

const LIMIT = 200;
