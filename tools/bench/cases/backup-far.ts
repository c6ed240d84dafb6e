import { writeFileSync } from "node:fs";
import path from "node:path";
import { CairnBackupStore } from "../backup-stores.ts";
import type { Bench, DataCase } from "../bench.ts";
import { type DataSet, noteEdited, warm } from "../data/data-sets.ts";
import { type FarServer, startS3, startSftp } from "../far-servers.ts";
import { type Line, openLine } from "../line.ts";
import { type Command, type Contender, alternate, runCommand } from "../measure.ts";
import { memoryProof, RestoreTarget } from "../restore-target.ts";
import { type Bar, limitBar, median, type Result } from "../result.ts";
import { ResticStore } from "../stores.ts";
import { listFiles } from "./change-files.ts";

const ROUND_TRIPS = [0, 20, 100];
/** Bytes a second of a line with 100 Mbit/s: plausible for the longest round trip, and slower than a disk. */
const RATE = 12_500_000;
/** The most time of a restore, as a multiple of the time that such a line needs for the bytes alone. */
const LINE_BAR = 1.25;
const EDITED = 10;
const WRITES_BAR = 4;
/** The ratio of the times at five times the speed. */
const RESTORE_BAR = 0.2;

export const backupS3: DataCase = {
  name: "backup-s3",
  data: ["small"],
  run: async (bench, data) => measureFar(bench, data, { name: "backup-s3", start: startS3, isBar: true }),
};

export const backupSftp: DataCase = {
  name: "backup-sftp",
  data: ["small"],
  run: async (bench, data) => {
    const start = async (): Promise<FarServer | { reason: string }> => startSftp(bench.folder("sftp"));
    return measureFar(bench, data, { name: "backup-sftp", start, isBar: false });
  },
};

interface Kind {
  name: string;
  start: () => Promise<FarServer | { reason: string }>;
  /** True if issue 4 has bars for this kind of server. */
  isBar: boolean;
}

interface Found {
  samples: Record<string, number[]>;
  bars: Bar[];
  notes: string[];
}

async function measureFar(bench: Bench, data: DataSet, kind: Kind): Promise<Result> {
  const found: Found = { samples: {}, bars: [], notes: [] };
  const server = await kind.start();
  if ("reason" in server) found.notes.push(`skipped: ${server.reason}`);
  else {
    try {
      for (const roundTrip of ROUND_TRIPS) await measureLine(bench, data, { kind, server, roundTrip, found });
      if (kind.isBar) await measureNarrowLine(bench, data, { kind, server, roundTrip: ROUND_TRIPS.at(-1) ?? 0, found });
    } finally {
      await server.close();
    }
  }
  return {
    case: kind.name,
    data: data.name,
    unit: "ms",
    ...found,
    meaning: `A real server of this machine behind a line with so much added to each round trip. Restore: ${data.what}, on a machine without caches of the repository. Small backup: ${EDITED} files edited since the last one.`,
  };
}

interface FarRun {
  kind: Kind;
  server: FarServer;
  /** Milliseconds. */
  roundTrip: number;
  found: Found;
}

async function measureLine(bench: Bench, data: DataSet, run: FarRun): Promise<void> {
  const { kind, server, roundTrip, found } = run;
  const line = await openLine({ port: server.port, roundTrip, folder: bench.scratch, isHttp: server.isHttp });
  const folder = bench.folder(data.name, kind.name);
  const stores = storesOver(line, { server, folder, data: data.folder });
  const target = new RestoreTarget(folder);
  try {
    if (roundTrip === ROUND_TRIPS[0]) fill(data, stores);
    if (!found.notes.includes(line.note)) found.notes.push(line.note);
    const over = (contenders: Contender[]): Contender[] =>
      contenders.map((each) => countingIts({ ...each, command: line.over(each.command) }, run, line));
    const restores = alternate(over(restoresOf(stores, target)), bench.repeats);
    const files = listFiles(data.folder);
    const edit = (round: number): void => editSome(files, roundTrip + round);
    const saves = alternate(over(savesOf(stores)), bench.repeats, edit);
    noteEdited(data);
    for (const [name, times] of [...restores, ...saves]) found.samples[`${name}, ${roundTrip} ms`] = times;
    if (!kind.isBar || roundTrip !== ROUND_TRIPS.at(-1)) return;
    const of = (times: Map<string, number[]>, name: string): number => median(times.get(name) ?? []);
    const value = of(restores, "restore: cairn") / of(restores, "restore: restic");
    found.bars.push({ what: `restore, ${roundTrip} ms`, value, limit: RESTORE_BAR, unit: "ratio" });
  } finally {
    target.close();
    await line.close();
  }
}

/** Measures restores over a line with a limited rate: the part of their time that the line needs for the bytes. */
async function measureNarrowLine(
  bench: Bench,
  data: DataSet,
  { kind, server, roundTrip, found }: FarRun,
): Promise<void> {
  const line = await openLine({
    port: server.port,
    roundTrip,
    rate: RATE,
    folder: bench.scratch,
    isHttp: server.isHttp,
  });
  const folder = bench.folder(data.name, kind.name);
  const stores = storesOver(line, { server, folder, data: data.folder });
  const target = new RestoreTarget(folder);
  try {
    const stats = JSON.parse(runCommand(line.over(stores.cairn.command("stats", "--json")))) as {
      data: { stored_bytes: number };
    };
    const least = (stats.data.stored_bytes / RATE) * 1000;
    const contenders = restoresOf(stores, target).map((each) => ({ ...each, command: line.over(each.command) }));
    const where = `${roundTrip} ms and ${(RATE * 8) / 1e6} Mbit/s`;
    for (const [name, times] of alternate(contenders, bench.repeats)) found.samples[`${name}, ${where}`] = times;
    const value = median(found.samples[`restore: cairn, ${where}`] ?? []) / least;
    found.bars.push({ what: `restore, ${where}, of the line's own time`, value, limit: LINE_BAR, unit: "ratio" });
    found.notes.push(`the bytes of a restore alone take ${(least / 1000).toFixed(1)} s at ${where}`);
  } finally {
    target.close();
    await line.close();
  }
}

interface FarStores {
  cairn: CairnBackupStore;
  restic: ResticStore;
}

/** Returns the stores over a line. A repository is known by its id, so that each line leads to the same repository. */
function storesOver(line: Line, on: { server: FarServer; folder: string; data: string }): FarStores {
  const cairn = on.server.places(line, "cairn").cairn;
  const restic = on.server.places(line, "restic").restic;
  return {
    cairn: new CairnBackupStore(path.join(on.folder, "cairn"), on.data, cairn),
    restic: new ResticStore(path.join(on.folder, "restic"), on.data, { place: restic }),
  };
}

function fill(data: DataSet, { cairn, restic }: FarStores): void {
  for (const store of [cairn, restic]) {
    store.fresh();
    runCommand(store.save());
  }
  warm(data.folder);
}

function restoresOf({ cairn, restic }: FarStores, target: RestoreTarget): Contender[] {
  const contender = (store: { name: string; forgetCache(): void }, command: Command, how = ""): Contender => ({
    name: `restore: ${store.name}${how}`,
    command,
    prepare: () => {
      target.fresh();
      store.forgetCache();
    },
  });
  return [
    contender(cairn, cairn.restore(target.folder)),
    contender(cairn, cairn.command(...memoryProof(target)), " --prove-from memory"),
    contender(restic, restic.command("restore", "latest", "--target", target.folder)),
  ];
}

function savesOf({ cairn, restic }: FarStores): Contender[] {
  return [cairn, restic].map((store) => ({ name: `small backup: ${store.name}`, command: store.save() }));
}

/** Notes the requests that the contender's last run made to the server. */
function countingIts(contender: Contender, { server, roundTrip, found, kind }: FarRun, line: Line): Contender {
  const label = `${contender.name}, ${roundTrip} ms`;
  return {
    ...contender,
    prepare: () => {
      contender.prepare?.();
      server.forgetRequests(line);
    },
    after: () => {
      const { all, writing } = server.requests(line);
      const note = `${label}: ${all} requests, ${writing} of them write`;
      found.notes = [...found.notes.filter((each) => !each.startsWith(`${label}:`)), note];
      if (!kind.isBar || contender.name !== "small backup: cairn" || roundTrip !== ROUND_TRIPS.at(-1)) return;
      const what = `writes, ${roundTrip} ms`;
      const before = found.bars.find((bar) => bar.what === what)?.value ?? 0;
      const worst = limitBar(what, Math.max(before, writing), WRITES_BAR, "count");
      found.bars = [...found.bars.filter((bar) => bar.what !== what), worst];
    },
  };
}

function editSome(files: readonly string[], round: number): void {
  for (let i = 0; i < EDITED; i++) {
    const file = files[(round * 7919 + i * 101) % files.length] ?? "";
    writeFileSync(file, `// edited in round ${round} at ${Date.now()}, ${i}\n`.repeat(20 + i));
  }
}
