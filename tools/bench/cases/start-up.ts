import type { OwnCase } from "../bench.ts";
import { alternate } from "../measure.ts";
import { limitBar, median } from "../result.ts";
import { workspaceWithPoints } from "./many-points.ts";

const BARS_MS = { "--version": 30, status: 40, history: 150 } as const;

export const startUp: OwnCase = {
  name: "start-up",
  data: null,
  async run(bench) {
    const points = bench.quick ? 100 : 1000;
    const cairn = await workspaceWithPoints(bench, "thousand", points);
    const contenders = [
      { name: "--version", command: cairn.command("--version") },
      { name: "status", command: cairn.on("status") },
      { name: "history", command: cairn.on("history") },
    ];
    const times = Object.fromEntries(alternate(contenders, Math.max(bench.repeats, 10)));
    return {
      case: "start-up",
      unit: "ms",
      samples: times,
      bars: Object.entries(BARS_MS).map(([name, most]) => limitBar(name, median(times[name] ?? []), most, "ms")),
      meaning: `Whole commands through ./cairn: the launcher, Node's start, the answer. history lists ${points} points.`,
      notes: [],
    };
  },
};
