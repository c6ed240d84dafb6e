import { existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { CairnBackupStore } from "../backup-stores.ts";
import { type Bench, type OwnCase, samplesOf } from "../bench.ts";
import { Random, sourceText } from "../data/generator.ts";
import { type Contender, alternate, peakMemory, runCommand } from "../measure.ts";
import { limitBar, ratioBars } from "../result.ts";
import { ResticStore } from "../stores.ts";
import { bytesBelow } from "./store-size.ts";

const FILES = 2000;
const EDITS = 100;
const LARGE_BYTES = 4 << 20;
const BAR = 0.5;
const BAR_MB = 300;

interface Library {
  open(path: string): Promise<{ createBackup(repository: unknown, options: object): Promise<unknown> }>;
  openRepository(options: object): Promise<{ close(): Promise<void> }>;
}

/** Both prune copies of the same repository, in which every second of many snapshots is forgotten. */
export const backupPrune: OwnCase = {
  name: "backup-prune",
  data: null,
  async run(bench) {
    const snapshots = bench.quick ? 10 : 100;
    const original = await repositoryWithSnapshots(bench, snapshots);
    const folder = bench.folder("prune");
    const copy = path.join(folder, "copy");
    const cairn = storeIn(folder, copy);
    // Its password file and its caches lie beside Cairn's.
    const restic = new ResticStore(path.join(folder, "store"), "", { place: { location: copy } });
    const prepare = (): void => {
      rmSync(copy, { recursive: true, force: true });
      runCommand({ program: "cp", args: ["-a", original.repository, copy] });
      cairn.forgetCache();
      restic.forgetCache();
    };
    prepare();
    const half = idsByTime(restic).filter((_, i) => i % 2 === 0);
    const left: Record<string, number> = {};
    const contender = (name: string, command: Contender["command"]): Contender => ({
      name,
      prepare,
      command,
      after: () => (left[name] = bytesBelow(copy)),
    });
    const contenders = [
      contender("cairn", cairn.command("forget", ...half, "--prune")),
      contender("restic", restic.command("forget", ...half, "--prune")),
    ];
    const samples = samplesOf(alternate(contenders, bench.repeats));
    const peaks: Record<string, number> = {};
    for (const { name, command } of contenders) {
      prepare();
      peaks[name] = await peakMemory(command);
    }
    runCommand(restic.check());
    const own = peaks["cairn"] ?? Number.NaN;
    const megabytes = (bytes: number | undefined): string => `${((bytes ?? Number.NaN) / 1e6).toFixed(1)} MB`;
    return {
      case: "backup-prune",
      unit: "ms",
      samples,
      bars: [
        ...ratioBars(samples, { restic: BAR }),
        limitBar("peak, restic's", own, peaks["restic"] ?? Number.NaN, "bytes"),
        limitBar("peak", own, BAR_MB * 1e6, "bytes"),
      ],
      meaning: `Every second of ${snapshots} snapshots is forgotten by its id and what only it needed is freed; each time in a copy of the same repository, which Cairn made, without caches.`,
      notes: [
        `peak memory: cairn ${megabytes(own)}, restic ${megabytes(peaks["restic"])}`,
        `the repository: ${megabytes(bytesBelow(original.repository))} before, ${megabytes(left["cairn"])} after cairn, ${megabytes(left["restic"])} after restic`,
      ],
    };
  },
};

/** Between two snapshots one file in twenty and one large file are edited. Made by the library in this process. */
async function repositoryWithSnapshots(bench: Bench, snapshots: number): Promise<CairnBackupStore> {
  const store = storeIn(bench.folder("prune"));
  const folder = bench.folder("prune", "workspace");
  const done = `${folder}.snapshots-${snapshots}`;
  if (existsSync(done)) return store;
  const corpus = sourceText(LARGE_BYTES * 2, 5);
  const random = new Random(99);
  const edit = (name: string, size: number): void => {
    const start = random.between(0, corpus.length - size);
    writeFileSync(path.join(folder, name), `// ${random.next()}\n${corpus.toString("latin1", start, start + size)}`);
  };
  const small = (i: number): void => edit(`module-${i % FILES}.ts`, random.between(1024, 8193));
  mkdirSync(folder, { recursive: true });
  for (let i = 0; i < FILES; i++) small(i);
  store.fresh();
  runCommand(store.workspace.save("first"));
  const { env } = store.command("init");
  process.env["XDG_STATE_HOME"] = env?.["XDG_STATE_HOME"] ?? "";
  const library = (await import(path.resolve(import.meta.dirname, "../../../dist/index.js"))) as Library;
  const client = await library.open(store.workspace.controlDirectory);
  const repository = await library.openRepository({ repository: store.repository, password: "benchmark", env });
  for (let turn = 0; turn < snapshots; turn++) {
    for (let i = 0; i < EDITS; i++) small(random.next());
    edit("large.ts", LARGE_BYTES);
    await client.createBackup(repository, { save: true });
  }
  await repository.close();
  writeFileSync(done, "");
  return store;
}

function storeIn(folder: string, copy?: string): CairnBackupStore {
  const place = copy === undefined ? undefined : { location: copy };
  return new CairnBackupStore(path.join(folder, "store"), path.join(folder, "workspace"), place);
}

function idsByTime(restic: ResticStore): string[] {
  const snapshots = JSON.parse(runCommand(restic.command("snapshots", "--json"))) as { id: string; time: string }[];
  return snapshots.toSorted((a, b) => Date.parse(a.time) - Date.parse(b.time)).map(({ id }) => id);
}
