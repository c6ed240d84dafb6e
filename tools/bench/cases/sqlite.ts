import { copyFileSync, mkdirSync, readFileSync, rmSync, statSync } from "node:fs";
import path from "node:path";
import { DatabaseSync } from "node:sqlite";
import { zstdCompressSync } from "node:zlib";
import { CairnBackupStore } from "../backup-stores.ts";
import type { Bench, OwnCase } from "../bench.ts";
import { Random } from "../data/generator.ts";
import { runCommand, timeCommand } from "../measure.ts";
import { peerStores } from "../peer-stores.ts";
import { limitBar, median, ratioBars, type Result, shown } from "../result.ts";
import { ResticStore } from "../stores.ts";
import { bytesBelow } from "./store-size.ts";

const PAGE = 4096;
/** Bytes of a row, so that a page holds exactly one row. */
const ROW_BYTES = 3_700;
/** Offset of the random bytes in a row: a multiple of 4. */
const RANDOM_FROM = 1_848;
const TEXT = "the mail of the day, and what was answered to it; ";

type Spread = "random" | "clustered";

function changedPages(spread: Spread): OwnCase {
  return {
    name: `sqlite-${spread}`,
    data: null,
    run: (bench) => runWith(bench, spread),
  };
}

export const sqliteRandom = changedPages("random");
export const sqliteClustered = changedPages("clustered");

function runWith(bench: Bench, spread: Spread): Result {
  const folder = bench.folder(`sqlite-${spread}`);
  rmSync(folder, { recursive: true, force: true });
  const [live, copied] = [path.join(folder, "live"), path.join(folder, "copied")];
  for (const each of [live, copied]) mkdirSync(each, { recursive: true });
  const [file, copy, former] = [
    path.join(live, "mail.db"),
    path.join(copied, "mail.db"),
    path.join(folder, "former.db"),
  ];
  const rows = Math.floor((bench.quick ? 1 << 26 : 1 << 30) / PAGE);
  // Open to the end, as that of a program that goes on running.
  const database = makeDatabase(file, rows);
  try {
    const cairn = new CairnBackupStore(path.join(folder, "backup"), live);
    const peers = peerStores((name) => path.join(folder, name), copied).stores;
    const restic =
      peers.find(({ name }) => name.startsWith("restic")) ?? new ResticStore(path.join(folder, "restic"), copied);
    const backUp = { program: "sqlite3", args: [file, `.backup ${copy}`] };
    const samples: Record<string, number[]> = {};
    const time = (name: string, ms: number): number => ((samples[name] ??= []).push(ms), ms);
    cairn.fresh();
    time("cairn, first", timeCommand(cairn.save()));
    runCommand(backUp);
    restic.fresh();
    time("restic, first", timeCommand(restic.save()));
    const stored: Record<"cairn" | "restic" | "pages", number[]> = { cairn: [], restic: [], pages: [] };
    for (let round = 0; round < bench.repeats; round++) {
      copyFileSync(copy, former);
      changeRows(database, rows, spread, round);
      const held = [bytesBelow(cairn.repository), bytesBelow(restic.repository)] as const;
      time("cairn", timeCommand(cairn.save()));
      const vacuumed = path.join(folder, "vacuumed.db");
      rmSync(vacuumed, { force: true });
      time("VACUUM INTO", timeCommand({ program: "sqlite3", args: [file, `VACUUM INTO '${vacuumed}'`] }));
      const copying = time(".backup", timeCommand(backUp));
      time(".backup and restic", copying + timeCommand(restic.save()));
      stored.cairn.push(bytesBelow(cairn.repository) - held[0]);
      stored.restic.push(bytesBelow(restic.repository) - held[1]);
      stored.pages.push(compressedChanges(former, copy));
    }
    const [own, others, pages] = [median(stored.cairn), median(stored.restic), median(stored.pages)];
    return {
      case: `sqlite-${spread}`,
      unit: "ms",
      samples,
      bars: [
        ...ratioBars(samples, { ".backup and restic": 0.3 }),
        limitBar("stored: cairn / compressed changed pages", own / pages, 1.15, "ratio"),
        limitBar("stored: cairn / restic", own / others, 0.15, "ratio"),
      ],
      meaning: `A backup of a database that is open, of ${(statSync(file).size / 2 ** 20).toFixed(0)} MiB, after 1 % of its pages changed (${spread}).`,
      notes: [
        `stored: cairn ${shown(own, "bytes")}, ${restic.name} ${shown(others, "bytes")}; the changed pages compressed: ${shown(pages, "bytes")}`,
      ],
    };
  } finally {
    database.close();
    rmSync(folder, { recursive: true, force: true });
  }
}

function makeDatabase(file: string, rows: number): DatabaseSync {
  const database = new DatabaseSync(file);
  database.exec(`PRAGMA page_size = ${PAGE}; PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;
    CREATE TABLE mail (id INTEGER PRIMARY KEY, body BLOB); BEGIN`);
  const random = new Random(5);
  const insert = database.prepare("INSERT INTO mail VALUES (?, ?)");
  for (let id = 0; id < rows; id++) insert.run(id, body(random));
  database.exec("COMMIT; PRAGMA wal_checkpoint(TRUNCATE)");
  return database;
}

/** Returns a row's content: half text, half incompressible bytes. */
function body(random: Random): Buffer {
  const bytes = Buffer.alloc(ROW_BYTES, TEXT);
  random.fill(bytes.subarray(RANDOM_FROM));
  return bytes;
}

function changeRows(database: DatabaseSync, rows: number, spread: Spread, round: number): void {
  const random = new Random(100 + round);
  const update = database.prepare("UPDATE mail SET body = ? WHERE id = ?");
  const count = Math.floor(rows / 100);
  const start = random.between(0, rows - count);
  database.exec("BEGIN");
  for (let i = 0; i < count; i++) update.run(body(random), spread === "random" ? random.between(0, rows) : start + i);
  database.exec("COMMIT");
}

/** Returns the bytes of all pages that differ, compressed together as blobs are. */
function compressedChanges(before: string, after: string): number {
  const [old, now] = [readFileSync(before), readFileSync(after)];
  const changed: Buffer[] = [];
  for (let at = 0; at < now.length; at += PAGE) {
    const page = now.subarray(at, at + PAGE);
    if (!page.equals(old.subarray(at, at + PAGE))) changed.push(page);
  }
  return zstdCompressSync(Buffer.concat(changed)).length;
}
