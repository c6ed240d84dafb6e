import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { test, type TestContext } from "node:test";
import { makeRepository } from "../../src/backup/testing-repository.ts";
import type { BackupRepository } from "../../src/contract/index.ts";
import { CairnError } from "../../src/errors.ts";
import { testFolder, type TestFolder } from "../../src/keep/testing-folder.ts";
import { KEY } from "../../src/repository/storage/s3/testing-s3-storage.ts";
import { TestingS3Server } from "../../src/repository/storage/s3/testing-s3-server.ts";
import { walkDigests } from "../../src/workspace/store/testing-walk.ts";
import { Chance } from "./walk.ts";

/**
 * Random packs of a store, of a repository in a folder and of one on S3 are flipped, cut or removed, then read. Each
 * later point and snapshot is whole, or the call says that it is not. 5 rounds damage two packs each in every place;
 * `CAIRN_FUZZ_RUNS=40` makes as many rounds, `CAIRN_FUZZ_SEED` chooses which, `CAIRN_FUZZ_SHOW=1` prints each step.
 */

const ROUNDS = Number(process.env["CAIRN_FUZZ_RUNS"] ?? 5);
const SEED = Number(process.env["CAIRN_FUZZ_SEED"] ?? 20_261_128);
const PASSWORD = "correct horse";

/** The pack files of a place, by their hex names. */
interface Packs {
  names: () => string[];
  read: (name: string) => Buffer;
  /** Null removes the pack. */
  write: (name: string, bytes: Buffer | null) => void;
}

function packsIn(data: string): Packs {
  const at = (name: string): string => path.join(data, name.slice(0, 2), name);
  return {
    names: () =>
      fs
        .readdirSync(data, { recursive: true, encoding: "utf8" })
        .map((name) => path.basename(name))
        .filter((name) => /^[0-9a-f]{64}$/.test(name))
        .toSorted(),
    read: (name) => fs.readFileSync(at(name)),
    write: (name, bytes) => (bytes === null ? fs.rmSync(at(name)) : fs.writeFileSync(at(name), bytes)),
  };
}

function packsOn({ objects }: TestingS3Server): Packs {
  const keyOf = (name: string): string =>
    [...objects.keys()].find(
      (key) => key.endsWith(`/data/${name.slice(0, 2)}/${name}`) || key.endsWith(`data/${name}`),
    )!;
  return {
    names: () =>
      [...objects.keys()]
        .filter((key) => key.includes("data/"))
        .map((key) => path.posix.basename(key))
        .toSorted(),
    read: (name) => objects.get(keyOf(name))!,
    write: (name, bytes) => void (bytes === null ? objects.delete(keyOf(name)) : objects.set(keyOf(name), bytes)),
  };
}

class World {
  readonly chance: Chance;
  readonly at: TestFolder;
  readonly repository: BackupRepository;
  readonly packs: Packs;
  readonly said: string[] = [];
  damages = 0;
  #made = 0;

  constructor(seed: number, at: TestFolder, repository: BackupRepository, packs: Packs) {
    this.chance = new Chance(seed);
    this.at = at;
    this.repository = repository;
    this.packs = packs;
  }

  show(text: string): void {
    this.said.push(text);
    if (process.env["CAIRN_FUZZ_SHOW"] === "1") console.log(text);
  }

  /** Changes or adds a few files; some contents come back. */
  edit(): void {
    const { chance } = this;
    for (let i = 0; i < 1 + chance.below(4); i++) {
      const part = createHash("sha512")
        .update(`content ${chance.below(40)}`)
        .digest("hex");
      this.at.write(`d${chance.below(4)}/f${chance.below(6)}`, part.repeat(1 + chance.below(300)));
    }
  }

  damage(): void {
    const { chance, packs } = this;
    const name = chance.pick(packs.names());
    const bytes = Buffer.from(packs.read(name));
    const how = chance.pick(["flipped", "flipped", "cut", "missing"]);
    const offset = chance.below(bytes.length);
    if (how === "flipped") bytes[offset]! ^= 1 << chance.below(8);
    packs.write(name, how === "missing" ? null : how === "cut" ? bytes.subarray(0, offset) : bytes);
    this.damages++;
    this.show(`${how} ${name.slice(0, 8)} at ${offset} of ${bytes.length}`);
  }

  /** Returns the call's result; null if the call said that something is damaged. */
  async orDamaged<T>(what: string, work: () => Promise<T>): Promise<T | null> {
    try {
      const result = await work();
      this.show(what);
      return result;
    } catch (error) {
      if (!(error instanceof CairnError) || error.code !== "damaged") throw error;
      this.show(`${what}: ${error.message}`);
      return null;
    }
  }

  async requireWholePoint(id: string): Promise<void> {
    const { problems } = await this.at.client.verify(id);
    assert.deepEqual(problems, [], `point ${id}`);
  }

  async requireWholeSnapshot(id: string): Promise<void> {
    const to = path.join(this.at.root, `restored-${this.#made++}`);
    const { proof } = await this.repository.restore(id, to);
    assert.equal(proof?.state_digest, walkDigests(this.at.folder).state, `snapshot ${id}`);
    assert.equal(walkDigests(to).state, walkDigests(this.at.folder).state, `snapshot ${id}`);
    fs.rmSync(to, { recursive: true });
  }
}

/** Saves, backs up, and looks whether both are whole. */
async function recordAll(world: World): Promise<void> {
  const { chance, at, repository } = world;
  const onWarning = (message: string): void => world.show(`  ${message}`);
  const reread = chance.oneIn(3);
  const saved = await world.orDamaged(`save${reread ? " --reread" : ""}`, () => at.client.save({ reread, onWarning }));
  assert.ok(saved !== null, "a folder can always be saved");
  await world.requireWholePoint(saved.save_point_id);
  const how = chance.pick(["point", "save", "paths"] as const);
  const made = await world.orDamaged(`backup of ${how}`, async () =>
    how === "paths"
      ? repository.createFromPaths([at.folder], { onWarning })
      : at.client.createBackup(repository, { save: how === "save", onWarning }),
  );
  const id = made?.snapshot?.snapshot_id;
  if (id === undefined) return;
  if (how !== "paths") await world.requireWholeSnapshot(id);
  const { problems } = await repository.verify({ snapshots: [id] });
  const lost = problems.filter(({ losses }) => losses.length > 0);
  assert.deepEqual(lost, [], `snapshot ${id}`);
}

async function walk(world: World, kind: "store" | "repository"): Promise<void> {
  const { chance, at, repository } = world;
  for (let round = 0; round < ROUNDS; round++) {
    world.show(`round ${round}`);
    if (!chance.oneIn(3)) world.edit();
    await recordAll(world);
    for (let i = 0; i < 2; i++) world.damage();
    if (chance.oneIn(4)) world.edit();
    if (kind === "store") await at.client.verifyAll();
    else await repository.verify({});
    await recordAll(world);
    if (!chance.oneIn(4)) continue;
    world.show("repair");
    if (kind === "store") await at.client.doctor({ repair: true });
    else await repository.repair({ what: "packs" });
    await recordAll(world);
  }
}

async function begin(t: TestContext, where: "store" | "folder" | "s3"): Promise<World> {
  const at = await testFolder(t, { "a.txt": "a\n" });
  const before = process.env["XDG_CACHE_HOME"];
  process.env["XDG_CACHE_HOME"] = path.join(at.root, "cache");
  t.after(() => {
    if (before === undefined) delete process.env["XDG_CACHE_HOME"];
    else process.env["XDG_CACHE_HOME"] = before;
  });
  const server = where === "s3" ? await TestingS3Server.start(KEY) : null;
  if (server !== null) t.after(async () => server.stop());
  const place = path.join(at.root, "repository");
  const env = {
    AWS_ACCESS_KEY_ID: KEY.accessKeyId,
    AWS_SECRET_ACCESS_KEY: KEY.secretAccessKey,
    AWS_SESSION_TOKEN: KEY.sessionToken,
  };
  const options = {
    repository: server === null ? place : `s3:${server.address}/place`,
    password: PASSWORD,
    ...(server === null ? {} : { env }),
  };
  await makeRepository(options);
  const repository = await at.library.openRepository(options);
  t.after(async () => repository.close());
  const packs =
    server !== null
      ? packsOn(server)
      : packsIn(path.join(where === "store" ? `${at.client.controlDirectory}/store` : place, "data"));
  return new World(SEED + where.length, at, repository, packs);
}

for (const where of ["store", "folder", "s3"] as const)
  test(`points and snapshots that are made after damage in a ${where === "store" ? "store" : `repository (${where})`} are whole`, async (t) => {
    const world = await begin(t, where);
    for (let i = 0; i < 10; i++) world.edit();
    try {
      await walk(world, where === "store" ? "store" : "repository");
    } catch (error) {
      throw new Error(`CAIRN_FUZZ_SEED=${SEED} CAIRN_FUZZ_RUNS=${ROUNDS}\n${world.said.join("\n")}`, { cause: error });
    }
    t.diagnostic(`${world.damages} packs were damaged`);
  });
