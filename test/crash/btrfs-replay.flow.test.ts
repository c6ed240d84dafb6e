import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import type { Client } from "../../src/contract/index.ts";
import { isSubvolume } from "../../src/fs/linux/btrfs.ts";
import { walkDigests } from "../../src/workspace/store/testing-walk.ts";
import { assertFolder, type FolderState, readFolder } from "../fixtures/folder-state.ts";
import { subvolumesOf } from "../fixtures/held-place.ts";
import { fillOddly } from "../fixtures/odd-entries.ts";
import { makeFirst, makeSecond, makeUnsaved } from "../fixtures/two-states.ts";
import { checkWorkspace, examine, type Live, replay, type Scene } from "./replay.ts";

/**
 * Commands that make snapshots and subvolumes of btrfs, or clones: each is killed at every pass. Those that answer only when
 * the disk has everything also meet a power cut at each pass.
 */

/** Makes the folder a subvolume, whose points are snapshots. */
async function subvolume(live: Live): Promise<Client> {
  fs.rmdirSync(live.folder);
  execFileSync("btrfs", ["-q", "subvolume", "create", live.folder]);
  await (await (await live.library()).init(live.folder, { engineType: "btrfs-snapshot" })).close();
  return live.client();
}

/** Saves and seals; each later state must have this point. */
async function saveSealed(live: Live): Promise<string> {
  const client = await live.client();
  const { save_point_id: id } = await client.save();
  await client.seal();
  const { payload_root_hash: digest } = await client.resolve(id);
  live.acknowledged.push({ id, digest, state: readFolder(live.folder) });
  return id;
}

/** The next save makes a point with this state, and the next seal leaves no point without a digest. */
async function saveAndSeal(live: Live, wanted?: string | null): Promise<void> {
  const client = await live.client();
  const { save_point_id: id } = await client.save({ message: "next" });
  await client.seal();
  assert.equal((await client.resolve(id)).payload_root_hash, wanted ?? walkDigests(live.folder).state);
  await examine(client, ["original"]);
}

/** Digests of the points that the next save did not make. */
async function digests(live: Live): Promise<unknown> {
  const { save_points: points } = await (await live.client()).history(undefined, 0, { all: true });
  assert.ok(points.every(({ complete }) => complete));
  return points.filter(({ message }) => message !== "next").map(({ payload_root_hash: digest }) => digest);
}

/** The same, and each subvolume of the disk is the folder, a point's tree or an original. */
async function snapshots(live: Live): Promise<unknown> {
  const known = /^(?:work|\.cairn-original-[0-9a-f]{16}|.*\/points\/\d{10}\/tree)$/;
  assert.deepEqual(
    subvolumesOf(live.root).filter((each) => !known.test(each)),
    [],
  );
  return digests(live);
}

/** Two sealed points, then edits that nobody saved. */
async function twoPoints(live: Live): Promise<{ client: Client; first: string }> {
  const client = await subvolume(live);
  makeFirst(live.folder);
  const first = await saveSealed(live);
  makeSecond(live.folder);
  await saveSealed(live);
  makeUnsaved(live.folder);
  return { client, first };
}

const KILLS = { how: "kill", on: "btrfs" } as const;
const CUTS = { how: "cut", on: "btrfs" } as const;

for (const keeping of [KILLS, CUTS]) {
  const killed = keeping === KILLS ? "killed" : "cut off from power";

  replay(
    `save by a snapshot, ${killed} at any pass, makes one complete point or none`,
    async (live) => {
      await twoPoints(live);
      return { args: ["save", live.folder, "-m", "killed"], next: async () => saveAndSeal(live), look: snapshots };
    },
    keeping,
  );

  replay(
    `restore by exchange, ${killed} at any pass, leaves the old or the new state`,
    async (live) => {
      const { first } = await twoPoints(live);
      return {
        args: ["restore", first, "--method", "exchange", "-C", live.folder],
        next: async () => saveAndSeal(live),
        look: async () => {
          await snapshots(live);
          return readFolder(live.folder);
        },
        passes: ["exchange.exchanged"],
      };
    },
    keeping,
  );

  for (const to of ["btrfs-snapshot", "plain"] as const)
    replay(
      `a conversion to ${to === "plain" ? "a plain folder" : "a subvolume"}, ${killed} at any pass, leaves the old or the new folder whole`,
      async (live) => conversion(live, to),
      keeping,
    );
}

/** Converts the folder; the original stays beside the new one. */
async function conversion(live: Live, to: "btrfs-snapshot" | "plain"): Promise<Scene> {
  if (to === "plain") await subvolume(live);
  makeFirst(live.folder);
  fillOddly(live.folder);
  await saveSealed(live);
  // A socket has no place in a point.
  const [{ digest }] = live.acknowledged as [(typeof live.acknowledged)[number]];
  live.acknowledged.length = 0;
  const state = readFolder(live.folder);
  const how = to === "plain" ? ["reflink-copy", live.folder, "--plain"] : [to, live.folder];
  return {
    args: ["engine", "set", ...how, "--allow", "holders"],
    next: async () => {
      assertFolder(live.folder, state, "before the next command");
      await saveAndSeal(live, digest);
    },
    look: async () => {
      assertFolder(live.folder, state, "the folder");
      await checkWorkspace(await live.client(), []);
      await snapshots(live);
      return [isSubvolume(live.folder), originals(live, state)];
    },
    passes: ["convert.exchanged"],
    finds: ["original"],
  };
}

/** How many originals lie beside the folder; each is whole. */
function originals(live: Live, state: FolderState): number {
  const beside = fs.readdirSync(live.root).filter((name) => name.startsWith(".cairn-original-"));
  for (const name of beside) assertFolder(live.at(name), state, "the original");
  return beside.length;
}

replay(
  "init with a conversion, killed at any pass, leaves a workspace or none, and the folder whole",
  async (live) => {
    makeFirst(live.folder);
    const state = readFolder(live.folder);
    return {
      args: ["init", live.folder, "--engine", "btrfs-snapshot", "--allow", "holders"],
      next: async () => {
        assertFolder(live.folder, state, "before the next command");
        await saveAndSeal(live);
      },
      look: () => {
        assertFolder(live.folder, state, "the folder");
        return [isSubvolume(live.folder), originals(live, state)];
      },
    };
  },
  KILLS,
);

replay(
  "seal, killed at any pass, loses no point and can be repeated",
  async (live) => {
    const { client } = await twoPoints(live);
    for (let i = 0; i < 2; i++) {
      fs.writeFileSync(path.join(live.folder, "edited"), `${i}\n`);
      await client.save({ message: `${i}` });
    }
    return {
      args: ["seal", live.folder],
      isRepeated: true,
      next: async () => saveAndSeal(live),
      look: snapshots,
      passes: ["seal.staged"],
    };
  },
  KILLS,
);
