import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { CairnBackupStore } from "../backup-stores.ts";
import type { OwnCase } from "../bench.ts";
import { Random } from "../data/generator.ts";
import { peakMemory, timeCommand } from "../measure.ts";
import { limitBar } from "../result.ts";
import { ResticStore } from "../stores.ts";
import { IndexWriter } from "../../../src/formats/restic/index-file.ts";
import { Repository } from "../../../src/repository/repository.ts";
import { LocalStorage } from "../../../src/repository/storage/local.ts";

const BLOBS = 10_000_000;
const BLOBS_A_PACK = 4000;
const PACKS_AN_INDEX = 10;
const BAR_BYTES = 700 * 2 ** 20;

/** Only on request (`--only index-ten-million`): the index takes 1 GB and minutes. */
export const indexTenMillion: OwnCase = {
  name: "index-ten-million",
  data: null,
  async run(bench) {
    const blobs = bench.quick ? 200_000 : BLOBS;
    const root = bench.folder("ten-million");
    const folder = path.join(root, "workspace");
    mkdirSync(folder, { recursive: true });
    const cairn = new CairnBackupStore(path.join(root, "store"), folder);
    if (!existsSync(cairn.repository)) {
      writeFileSync(path.join(folder, "file.txt"), "a small workspace\n");
      cairn.fresh();
      await writeIndex(cairn.repository, blobs);
    }
    // Its password file lies beside Cairn's.
    const restic = new ResticStore(path.join(root, "store"), folder, { place: { location: cairn.repository } });
    const backup = cairn.save();
    const first = await peakMemory(backup);
    const second = await peakMemory(backup);
    const peer = await peakMemory(restic.save());
    const time = timeCommand(backup);
    return {
      case: "index-ten-million",
      unit: "bytes",
      samples: { "cairn, index read": [first], "cairn, from its cache": [second], restic: [peer] },
      bars: [limitBar("index read", first, BAR_BYTES, "bytes"), limitBar("from its cache", second, BAR_BYTES, "bytes")],
      meaning: `The most memory that a backup of one small file held at once, into a repository with ${blobs} blobs in its index.`,
      notes: [`with the index in its cache Cairn's backup took ${(time / 1000).toFixed(2)} s`],
    };
  },
};

/** Index files of packs that are not there: nothing that is measured reads them. */
async function writeIndex(location: string, blobs: number): Promise<void> {
  console.error(`making an index of ${blobs} blobs in ${location}`);
  const storage = new LocalStorage(location, { temporaryDirectory: `${location}.tmp` });
  const repository = await Repository.open(storage, { password: "benchmark" });
  const random = new Random(7);
  const id = (): Uint8Array => {
    const bytes = new Uint8Array(32);
    random.fill(bytes);
    return bytes;
  };
  const blob = (): { id: Uint8Array; type: "data"; length: number; uncompressedLength: number } => {
    const length = random.between(1000, 6000);
    return { id: id(), type: "data", length, uncompressedLength: length * 2 };
  };
  for (let left = blobs; left > 0;) {
    const writer = new IndexWriter();
    for (let pack = 0; pack < PACKS_AN_INDEX && left > 0; pack++, left -= BLOBS_A_PACK)
      writer.addPack(id(), Array.from({ length: Math.min(left, BLOBS_A_PACK) }, blob));
    await repository.saveUnpacked("index", writer.finish(), { durable: false });
  }
}
