import { mkdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { spawn, type ChildProcess } from "node:child_process";
import path from "node:path";
import {
  findOpenViking,
  startModels,
  startOpenViking,
  VERSIONS,
  withClient,
} from "../../../test/fixtures/openviking.ts";
import type { Bench, OwnCase } from "../bench.ts";
import { sourceText } from "../data/generator.ts";
import { peakMemory, timeCommand } from "../measure.ts";
import { limitBar, median, ratioBars, type Result, shown } from "../result.ts";
import { CAIRN } from "../stores.ts";

const FILES = 10_000;
const FILE_BYTES = 107_374;
const KEY = "secret";

/** A subtree of 1 GiB out of a context store and into one, through OpenViking's own client: our server and its own. */
export const bundles: OwnCase = {
  name: "bundles",
  data: null,
  async run(bench: Bench): Promise<Result> {
    const folder = bench.folder("bundles");
    rmSync(folder, { recursive: true, force: true });
    const count = bench.quick ? FILES / 20 : FILES;
    const [store, packed] = [path.join(folder, "store"), path.join(folder, "docs.ovpack")];
    makeDocs(path.join(folder, "docs"), count);
    const cairn = (...args: string[]) => ({ program: CAIRN, args: [...args, "--quiet"] });
    timeCommand(cairn("context", "init", store));
    timeCommand(cairn("-C", store, "context", "add", "viking://resources/docs", path.join(folder, "docs")));
    const samples: Record<string, number[]> = {};
    const time = (name: string, ms: number): number => ((samples[name] ??= []).push(ms), ms);
    const memory: Record<"export" | "import", number[]> = { export: [], import: [] };
    for (let round = 0; round < bench.repeats; round++) {
      rmSync(packed, { force: true });
      memory.export.push(await peakMemory(cairn("-C", store, "bundle", "export", "viking://resources/docs", packed)));
      time("verify", timeCommand(cairn("bundle", "verify", packed)));
      const into = path.join(folder, `into-${round}`);
      timeCommand(cairn("context", "init", into));
      memory.import.push(await peakMemory(cairn("-C", into, "bundle", "import", packed, "viking://resources")));
      rmSync(into, { recursive: true, force: true });
    }
    await throughClients(bench, { folder, packed, time });
    const bytes = count * FILE_BYTES;
    const rate = bytes / 1e6 / (median(samples["verify"]!) / 1000);
    return {
      case: "bundles",
      unit: "ms",
      samples,
      bars: [
        ...Object.entries({ "OpenViking, export": 0.25, "OpenViking, import": 0.5 }).flatMap(([name, most]) =>
          ratioBars({ ...samples, cairn: samples[name.replace("OpenViking", "cairn")] ?? [] }, { [name]: most }),
        ),
        limitBar("peak memory of an export", median(memory.export), 250 << 20, "bytes"),
        limitBar("peak memory of an import", median(memory.import), 250 << 20, "bytes"),
        limitBar("1 / verify's MB/s, of 400", 400 / rate, 1, "ratio"),
      ],
      meaning: `A subtree of ${count} files, ${shown(bytes, "bytes")}, out of a context store and into one, by OpenViking ${VERSIONS["0.4"]}'s client.`,
      notes: [`verify: ${rate.toFixed(0)} MB/s; the bundle has ${shown(statSync(packed).size, "bytes")}`],
    };
  },
};

function makeDocs(folder: string, count: number): void {
  for (let i = 0; i < count; i++) {
    const below = path.join(folder, `d${Math.floor(i / 100)}`);
    mkdirSync(below, { recursive: true });
    writeFileSync(path.join(below, `f${i}.md`), sourceText(FILE_BYTES, i));
  }
}

interface Through {
  folder: string;
  packed: string;
  time: (name: string, ms: number) => number;
}

/** Times import and export in the client. The two servers take turns at going first. */
async function throughClients(bench: Bench, { folder, packed, time }: Through): Promise<void> {
  const found = findOpenViking("0.4");
  if ("reason" in found) return;
  const models = await startModels();
  const real = await startOpenViking(found.folder, models.base);
  try {
    const key = await real.newUser("bench", "bench");
    for (let round = 0; round < bench.repeats; round++) {
      const own = await serveOwn(path.join(folder, `served-${round}`));
      const run = async (name: string, server: { url: string; key: string }): Promise<void> => {
        const out = path.join(folder, "out.ovpack");
        rmSync(out, { force: true });
        const said = await withClient(
          found.folder,
          server,
          `
import time
t = time.time()
c.import_ovpack(${JSON.stringify(packed)}, "viking://resources/round${round}")
say((time.time() - t) * 1000)
c.wait_processed()
t = time.time()
c.export_ovpack("viking://resources/round${round}/docs", ${JSON.stringify(out)})
say((time.time() - t) * 1000)
`,
        );
        time(`${name}, import`, said[0] as number);
        time(`${name}, export`, said[1] as number);
      };
      const turns = [
        async () => run("cairn", { url: own.url, key: KEY }),
        async () => run("OpenViking", { url: real.url, key }),
      ];
      for (const turn of round % 2 === 0 ? turns : turns.toReversed()) await turn();
      own.child.kill();
      rmSync(path.join(folder, `served-${round}`), { recursive: true, force: true });
    }
  } finally {
    await real.stop();
    models.server.close();
  }
}

async function serveOwn(store: string): Promise<{ url: string; child: ChildProcess }> {
  timeCommand({ program: CAIRN, args: ["context", "init", store, "--quiet"] });
  const args = ["-C", store, "serve-context", "--listen", "127.0.0.1:0", "--json"];
  const child = spawn(CAIRN, args, {
    env: { ...process.env, CAIRN_CONTEXT_KEY: KEY },
    stdio: ["ignore", "pipe", "inherit"],
  });
  let said = "";
  for await (const piece of child.stdout) {
    said += String(piece);
    if (said.includes("\n")) break;
  }
  return { url: (JSON.parse(said) as { data: { url: string } }).data.url, child };
}
