import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { findPeer, NEWER_RESTIC } from "../../test/fixtures/peers.ts";
import { CairnBackupStore } from "./backup-stores.ts";
import { Random, sourceText } from "./data/generator.ts";
import type { Bench } from "./bench.ts";
import { alternate, type Command, peakMemory, runCommand } from "./measure.ts";
import { type Bar, median } from "./result.ts";
import { ResticStore } from "./stores.ts";

interface Library {
  open(path: string): Promise<{ createBackup(repository: unknown, options: object): Promise<unknown> }>;
  openRepository(options: object): Promise<{ close(): Promise<void> }>;
}

export interface ManySnapshots {
  /** made by the first snapshot */
  files: number;
  snapshots: number;
  /** small files that are edited between two of them */
  edits: number;
  /** bytes of a file that is edited too; 0 for none */
  large: number;
}

/** Makes a repository with many snapshots of one folder, by the library in this process, unless it exists. */
export async function repositoryOfMany(folder: string, on: ManySnapshots): Promise<CairnBackupStore> {
  const store = storeIn(folder);
  const data = path.join(folder, "workspace");
  const done = path.join(folder, "done");
  if (existsSync(done)) return store;
  const corpus = sourceText(8 << 20, 5);
  const random = new Random(99);
  const edit = (name: string, size: number): void => {
    const start = random.between(0, corpus.length - size);
    writeFileSync(path.join(data, name), `// ${random.next()}\n${corpus.toString("latin1", start, start + size)}`);
  };
  const small = (i: number): void => edit(`module-${i % on.files}.ts`, random.between(1024, 8193));
  mkdirSync(data, { recursive: true });
  for (let i = 0; i < on.files; i++) small(i);
  store.fresh();
  runCommand(store.workspace.save("first"));
  const { env } = store.command("init");
  process.env["XDG_STATE_HOME"] = env?.["XDG_STATE_HOME"] ?? "";
  const library = (await import(path.resolve(import.meta.dirname, "../../dist/index.js"))) as Library;
  const client = await library.open(store.workspace.controlDirectory);
  const repository = await library.openRepository({ repository: store.repository, password: "benchmark", env });
  for (let turn = 0; turn < on.snapshots; turn++) {
    for (let i = 0; i < on.edits; i++) small(random.next());
    if (on.large > 0) edit("large.ts", on.large);
    await client.createBackup(repository, {});
  }
  await repository.close();
  writeFileSync(done, "");
  return store;
}

/** `copy`: another place of its repository, which Cairn made. */
export function storeIn(folder: string, copy?: string): CairnBackupStore {
  const place = copy === undefined ? undefined : { location: copy };
  return new CairnBackupStore(path.join(folder, "store"), path.join(folder, "workspace"), place);
}

/** Returns the newest installed restic, on a repository that Cairn made. Password file and caches lie beside Cairn's. */
export function resticOn(folder: string, repository: string): ResticStore {
  const peer = findPeer("restic", NEWER_RESTIC);
  const place = { location: repository };
  return new ResticStore(path.join(folder, "store"), "", "reason" in peer ? { place } : { place, peer });
}

export function idsByTime(restic: ResticStore): string[] {
  const snapshots = JSON.parse(runCommand(restic.command("snapshots", "--json"))) as { id: string; time: string }[];
  return snapshots.toSorted((a, b) => Date.parse(a.time) - Date.parse(b.time)).map(({ id }) => id);
}

/** The commands of Cairn and restic, by the name of the operation. */
export type Verbs = Readonly<Record<string, readonly [own: Command, theirs: Command]>>;

/** Times each pair of commands in turns, and takes their peak memory. Limits are ratios of medians. */
export async function besideRestic(
  bench: Bench,
  verbs: Verbs,
  { restic, prepare, limits }: { restic: ResticStore; prepare: () => void; limits: { wall: number; memory: number } },
): Promise<{ samples: Record<string, number[]>; bars: Bar[] }> {
  const samples: Record<string, number[]> = {};
  const bars: Bar[] = [];
  for (const [verb, commands] of Object.entries(verbs)) {
    const contenders = commands.map((command, i) => ({ name: `${[CAIRN, restic.name][i]} ${verb}`, prepare, command }));
    const times = [...alternate(contenders, bench.repeats)];
    Object.assign(samples, Object.fromEntries(times));
    const peaks: number[] = [];
    for (const command of commands) {
      prepare();
      peaks.push(await peakMemory(command));
    }
    const ratio = ([own, theirs]: readonly number[]): number => own! / theirs!;
    const wall = ratio(times.map(([, each]) => median(each)));
    bars.push(
      { what: `${verb}: wall / ${restic.name}`, value: wall, limit: limits.wall, unit: "ratio" },
      { what: `${verb}: memory / ${restic.name}`, value: ratio(peaks), limit: limits.memory, unit: "ratio" },
    );
  }
  return { samples, bars };
}

const CAIRN = "cairn";
