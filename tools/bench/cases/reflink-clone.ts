import { rmSync } from "node:fs";
import path from "node:path";
import type { Bench, OwnCase } from "../bench.ts";
import { timeCommand } from "../measure.ts";
import { limitBar, median, type Result } from "../result.ts";
import { EnginePlace, timed } from "./engine-place.ts";

/** xfs: a point of many small files, beside cp. */
export const reflinkClone: OwnCase = {
  name: "reflink-clone",
  data: null,
  async run(bench) {
    const files = bench.quick ? 2000 : 100_000;
    return measure(bench, { name: "reflink-clone", files, what: `${files} small files` });
  },
};

/** xfs: a point of one large file. */
export const reflinkLarge: OwnCase = {
  name: "reflink-large",
  data: null,
  async run(bench) {
    const large = bench.quick ? 64 << 20 : 2 ** 31 - (1 << 20);
    return measure(bench, { name: "reflink-large", files: 0, large, what: "one file of 2 GiB" });
  },
};

async function measure(
  bench: Bench,
  on: { name: string; files: number; large?: number; what: string },
): Promise<Result> {
  const place = await EnginePlace.make(bench, { kind: "xfs", engine: "reflink-copy", ...on });
  try {
    const own: number[] = [];
    const cp: number[] = [];
    const copy = path.join(place.root, "copy");
    await place.client.save();
    for (let i = 0; i < bench.repeats; i++) {
      own.push(await timed(async () => place.client.save()));
      cp.push(timeCommand({ program: "cp", args: ["-a", "--reflink=always", place.folder, copy] }));
      rmSync(copy, { recursive: true });
    }
    const ratio = {
      what: "cairn / cp --reflink",
      value: median(own) / median(cp),
      limit: 0.75,
      unit: "ratio" as const,
    };
    return {
      case: on.name,
      unit: "ms",
      samples: { cairn: own, "cp --reflink": cp },
      bars: [on.large === undefined ? ratio : limitBar("a point", median(own), 50, "ms")],
      meaning: `A point of ${on.what} as clones, made durable; one call of the library. cp is a whole command.`,
      notes: [],
    };
  } finally {
    await place.close();
  }
}
