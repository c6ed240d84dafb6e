import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { dataRanges, makeCorpus } from "../../../../test/fixtures/corpus.ts";
import type { EngineClauses } from "../../../../test/fixtures/engine-clauses.ts";
import { assertFolder, readFolder } from "../../../../test/fixtures/folder-state.ts";
import type { HeldKind } from "../../../../test/fixtures/held-place.ts";
import { loopFileSystem } from "../../../../test/fixtures/loop-file-system.ts";
import { cairnLibrary } from "../../../../test/fixtures/work.ts";
import type { Client, EngineType } from "../../../contract/index.ts";
import { walkDigests } from "../testing-walk.ts";

/** A state keeps its digests through save, restore and fork, on all engines and file systems. */
export function corpusClauses({ clause, subject, atomic }: EngineClauses): void {
  let missing: string[] = [];
  clause(
    "every kind of entry keeps its digests through save, restore, fork and a conversion to every other engine",
    async ({ client, folder, volume, engine }, t) => {
      assert.deepEqual(missing, volume.kind === "juicefs" ? missing : [], "the file system takes all of it");
      const wanted = { state: readFolder(folder), ranges: dataRanges(folder), digests: walkDigests(folder) };
      const check = (at: string, context: string): void => {
        assertFolder(at, wanted.state, context);
        if (volume.kind !== "juicefs") assert.deepEqual(dataRanges(at), wanted.ranges, `${context}: holes`);
      };
      /** Saves the folder again and checks that the point has the digests of the walk. */
      const save = async (by: Client, context: string): Promise<string> => {
        const { save_point_id: id } = await by.save({ message: context });
        await by.seal();
        const point = (await by.history(undefined, 0, { all: true })).save_points[0]!;
        assert.deepEqual(
          [point.save_point_id, point.payload_root_hash, point.metadata_digest, point.complete],
          [id, wanted.digests.state, wanted.digests.meta, true],
          context,
        );
        return id;
      };
      const id = await save(client, `saved by ${engine}`);
      for (const method of atomic ? (["exchange", "entries"] as const) : (["entries"] as const)) {
        disturb(folder);
        const restored = await client.restore({ target: id, method });
        assert.deepEqual([restored.method, restored.left_out], [method, []]);
        check(folder, `restored by ${method}`);
        await save(client, `saved again after ${method}`);
      }
      const to = path.join(volume.root, "to");
      await client.restore({ target: id, to });
      check(to, "restored elsewhere");

      const fork = async (target: string, by: EngineType): Promise<void> => {
        const at = path.join(volume.root, `fork-by-${by}`);
        const { save_point: started } = await client.fork(target, at);
        check(at, `forked by ${by}`);
        assert.deepEqual(
          [started.payload_root_hash, started.metadata_digest],
          [wanted.digests.state, wanted.digests.meta],
        );
        await save(await (await cairnLibrary()).open(at), `saved in the fork by ${by}`);
      };
      await fork(id, engine);

      for (const other of enginesOn(subject.on, engine)) {
        await client.setEngine(other);
        const taken = await save(client, `taken over by ${other}`);
        await fork(taken, other);
        disturb(folder);
        await client.restore({ target: id });
        check(folder, `restored by ${other}`);
        disturb(folder);
        await client.setEngine(engine);
        await client.restore({ target: taken });
        check(folder, `what ${other} saved, restored by ${engine}`);
        await save(client, `back from ${other}`);
      }

      // Fork to a file system on which only the engine `copy` works.
      const beyond = loopFileSystem(t, "ext4");
      assert.ok(beyond !== null);
      const alone = path.join(beyond.root, "alone");
      await client.fork(id, alone, { standalone: true });
      assertFolder(alone, wanted.state, "on another file system");
      const exported = await (await cairnLibrary()).open(alone);
      await exported.setEngine("copy");
      await save(exported, "exported");
      assert.deepEqual((await exported.verifyAll()).problems, []);
      assert.deepEqual((await client.verifyAll()).problems, []);
    },
    { fill: (folder) => void (missing = makeCorpus(folder)) },
  );
}

/** All other engines that work on a file system. */
function enginesOn(kind: HeldKind, than: EngineType): EngineType[] {
  const clones: Partial<Record<HeldKind, EngineType>> = {
    btrfs: "reflink-copy",
    xfs: "reflink-copy",
    juicefs: "juicefs-clone",
  };
  const all: (EngineType | undefined)[] = [clones[kind], "copy"];
  return all.filter((each) => each !== undefined && each !== than) as EngineType[];
}

/** Changes entries of every kind. */
function disturb(folder: string): void {
  const at = (name: string): string => path.join(folder, name);
  for (const name of ["names", "links", "kinds"]) fs.rmSync(at(name), { recursive: true });
  fs.writeFileSync(at("names"), "was a directory\n");
  fs.appendFileSync(at("contents/large"), "more");
  fs.writeFileSync(at("contents/hole-first"), "no hole any more\n");
  fs.truncateSync(at("contents/hole-last"), 1);
  fs.chmodSync(at("modes/f0"), 0o777);
  fs.chownSync(at("modes/d4755"), 0, 0);
  fs.rmSync(at("attributes/file"));
  fs.writeFileSync(at("attributes/file"), "without attributes\n");
  fs.utimesSync(at("times/past"), 1, 1);
  fs.lutimesSync(at("times/later-link"), 1, 1);
  fs.writeFileSync(at("extra"), "was never there\n");
  fs.chmodSync(folder, 0o700);
}
