import type { OwnCase } from "../bench.ts";
import { alternate } from "../measure.ts";
import { limitBar, median } from "../result.ts";
import { workspaceWithPoints } from "./many-points.ts";

const VERSION_BAR_MS = 70;
const HISTORY_BAR_MS = 150;

export const startUp: OwnCase = {
  name: "start-up",
  data: null,
  async run(bench) {
    const points = bench.quick ? 100 : 1000;
    const cairn = await workspaceWithPoints(bench, "thousand", points);
    const contenders = [
      { name: "--version", command: cairn.command("--version") },
      { name: "history", command: cairn.on("history") },
    ];
    const times = alternate(contenders, Math.max(bench.repeats, 10));
    const version = times.get("--version") ?? [];
    const history = times.get("history") ?? [];
    return {
      case: "start-up",
      unit: "ms",
      samples: { "cairn --version": version, "cairn history": history },
      bars: [
        limitBar("--version", median(version), VERSION_BAR_MS, "ms"),
        limitBar("history", median(history), HISTORY_BAR_MS, "ms"),
      ],
      meaning: `Whole commands through ./cairn: the launcher, Node's start, the answer. history lists ${points} points.`,
      notes: [],
    };
  },
};
