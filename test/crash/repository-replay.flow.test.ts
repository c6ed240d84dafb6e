import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { makeRepository } from "../../src/backup/testing-repository.ts";
import type { BackupRepository } from "../../src/contract/index.ts";
import { cairn } from "../fixtures/command.ts";
import { readFolder } from "../fixtures/folder-state.ts";
import { makeFirst, makeSecond } from "../fixtures/two-states.ts";
import { type Live, replay as replayScene, type Scene } from "./replay.ts";

/** Commands that change a repository, or restore from one: each is killed at every pass. */

const PASSWORD = "password";

/** Caches, and temporary folders of the repository and of the user, are tidied by the next command that fills them. */
const LEAVES = /\/cache\/cairn\/|\/state\/cairn\/|\/(?:repository|target)\/tmp\//;

function replay(title: string, prepare: (live: Live) => Promise<Scene>): void {
  replayScene(title, async (live) => ({ leaves: LEAVES, ...(await prepare(live)) }));
}

/** `-r …  --password-file …` of a repository in `live`. */
function optionsOf(live: Live, name = "repository"): string[] {
  return ["-r", live.at(name), "--password-file", live.at("password")];
}

async function makeEmpty(live: Live, name = "repository"): Promise<void> {
  fs.writeFileSync(live.at("password"), `${PASSWORD}\n`);
  await makeRepository({ repository: live.at(name), password: PASSWORD });
}

async function within<T>(
  live: Live,
  work: (repository: BackupRepository) => Promise<T>,
  { name = "repository", password = PASSWORD } = {},
): Promise<T> {
  const repository = await (await live.library()).openRepository({ repository: live.at(name), password });
  try {
    return await work(repository);
  } finally {
    await repository.close();
  }
}

/** Snapshots of a folder that grows and changes; the first one has a large file that the others lack. Returns their ids, oldest first. */
async function snapshots(live: Live, count = 3): Promise<string[]> {
  await makeEmpty(live);
  makeFirst(live.folder);
  fs.writeFileSync(path.join(live.folder, "lost"), randomBytes(200_000));
  const ids: string[] = [];
  const client = await live.client();
  await within(live, async (repository) => {
    for (let round = 0; round < count; round++) {
      if (round === 1) fs.rmSync(path.join(live.folder, "lost"));
      fs.writeFileSync(path.join(live.folder, "changes"), `round ${round}\n`.repeat(1000));
      const { snapshot } = await client.createBackup(repository, { save: true });
      ids.push(snapshot!.snapshot_id);
    }
  });
  return ids;
}

/** Every byte is there, the digest of each snapshot is proven unless `isProven` is false, and no lock is left. Returns the ids of all snapshots. */
async function sound(live: Live, { name = "repository", isLocked = false, isProven = true } = {}): Promise<string[]> {
  const ids = await within(
    live,
    async (repository) => {
      const { problems, checked } = await repository.verify();
      const damage = problems.filter(({ severity }) => severity === "damage");
      assert.deepEqual([damage, isProven ? checked.digests : 0], [[], isProven ? checked.snapshots : 0]);
      return (await repository.list()).snapshots.map(({ snapshot_id: id }) => id as string);
    },
    { name },
  );
  if (!isLocked) assert.deepEqual(fs.readdirSync(live.at(name, "locks")), []);
  return ids;
}

/** A command that ends in the same state if it is repeated after a kill; `repeat` returns that state. */
function repeated(
  live: Live,
  args: readonly string[],
  keeps: readonly string[],
  repeat: (repository: BackupRepository) => Promise<unknown>,
): Scene {
  return {
    args,
    isRepeated: true,
    next: async () => {
      const left = await sound(live, { isLocked: true });
      for (const id of keeps) assert.ok(left.includes(id), `snapshot ${id} is still there`);
      await within(live, repeat);
    },
    look: async () => (await sound(live)).length,
  };
}

replay("backup init, killed at any pass, leaves an empty repository or can be repeated", async (live) => {
  fs.writeFileSync(live.at("password"), `${PASSWORD}\n`);
  return {
    args: ["backup", "init", ...optionsOf(live)],
    isRepeated: true,
    next: async () => {
      const options = { repository: live.at("repository"), password: PASSWORD };
      if (!fs.existsSync(live.at("repository/config"))) await (await live.library()).initRepository(options);
    },
    look: async () => sound(live),
  };
});

replay("backup create, killed at any pass, keeps earlier snapshots and makes a complete one or none", async (live) => {
  await snapshots(live, 1);
  makeSecond(live.folder);
  return {
    args: ["backup", "create", ...optionsOf(live), "-t", "killed", "-C", live.folder],
    next: async () => {
      await sound(live, { isLocked: true });
      const client = await live.client();
      await within(live, async (repository) => client.createBackup(repository, { save: true }));
    },
    look: async () => {
      await sound(live);
      return within(live, async (repository) => (await repository.list()).snapshots.map(({ tags }) => tags));
    },
  };
});

replay("backup stream, killed at any pass, makes a complete snapshot or none", async (live) => {
  await makeEmpty(live);
  fs.writeFileSync(live.at("content"), randomBytes(3_000_000));
  return {
    args: ["backup", "stream", ...optionsOf(live), "--", "sh", "-c", `cat ${live.at("content")}`],
    next: async () => {
      await within(live, async (repository) => repository.createFromPaths([live.at("password")]));
    },
    // A snapshot of a stream or of several folders has no digest.
    look: async () => (await sound(live, { isProven: false })).length,
  };
});

replay("backup create of several folders, killed at any pass, makes a complete snapshot or none", async (live) => {
  await makeEmpty(live);
  makeFirst(live.folder);
  fs.mkdirSync(live.at("other"));
  fs.writeFileSync(live.at("other/file"), "other\n");
  return {
    args: ["backup", "create", live.folder, live.at("other"), ...optionsOf(live)],
    next: async () => {
      await within(live, async (repository) => repository.createFromPaths([live.at("password")]));
    },
    look: async () => (await sound(live, { isProven: false })).length,
  };
});

replay("backup forget, killed at any pass, keeps the snapshots of the rules and can be repeated", async (live) => {
  const ids = await snapshots(live);
  const args = ["backup", "forget", "--keep-last", "1", "--prune", "--instant", ...optionsOf(live)];
  return repeated(live, args, ids.slice(-1), async (repository) =>
    repository.forget({ retention: { keepLast: 1 }, prune: true, instant: true }),
  );
});

replay("backup prune in two looks, killed at any pass, loses nothing and can be repeated", async (live) => {
  const ids = await snapshots(live);
  await within(live, async (repository) => repository.forget({ retention: { keepLast: 1 } }));
  return repeated(live, ["backup", "prune", ...optionsOf(live)], ids.slice(-1), async (repository) =>
    repository.prune(),
  );
});

replay("backup copy, killed at any pass, leaves a sound target and can be repeated", async (live) => {
  await snapshots(live, 2);
  await makeEmpty(live, "target");
  const to = ["--to", live.at("target"), "--to-password-file", live.at("password")];
  return {
    args: ["backup", "copy", ...optionsOf(live), ...to],
    isRepeated: true,
    next: async () => {
      await sound(live, { name: "target", isLocked: true });
      await within(live, async (target) => within(live, async (from) => from.copyTo(target)), { name: "target" });
      await sound(live);
    },
    look: async () => (await sound(live, { name: "target" })).length,
  };
});

replay("backup tag, killed at any pass, loses no snapshot and can be repeated", async (live) => {
  await snapshots(live, 2);
  return repeated(
    live,
    ["backup", "tag", "--path", live.folder, "--add", "kept", ...optionsOf(live)],
    [],
    async (repository) => {
      await repository.tag({ paths: [live.folder], add: ["kept"] });
      assert.deepEqual(
        (await repository.list()).snapshots.map(({ tags }) => tags),
        [["kept"], ["kept"]],
      );
    },
  );
});

replay("backup rewrite, killed at any pass, leaves a sound repository and can be repeated", async (live) => {
  const ids = await snapshots(live, 2);
  const args = ["backup", "rewrite", "--exclude", "lost", "--forget", ...optionsOf(live)];
  return repeated(live, args, ids.slice(1), async (repository) => {
    await repository.rewrite({ exclude: ["lost"], forget: true });
    assert.deepEqual((await repository.find("lost")).found, []);
  });
});

/** A wrong byte in the largest pack, most of which is the file `lost`. */
function damage(live: Live): void {
  const data = live.at("repository/data");
  const packs = fs.globSync("*/*", { cwd: data }).map((name) => path.join(data, name));
  const [pack] = packs.toSorted((a, b) => fs.statSync(b).size - fs.statSync(a).size);
  const bytes = fs.readFileSync(pack!);
  bytes[bytes.length >> 1]! ^= 1;
  fs.chmodSync(pack!, 0o600);
  fs.writeFileSync(pack!, bytes);
}

for (const verb of ["packs", "snapshots"] as const)
  replay(`backup repair ${verb}, killed at any pass, keeps undamaged snapshots and can be repeated`, async (live) => {
    const ids = await snapshots(live, 2);
    damage(live);
    if (verb === "snapshots") await within(live, async (repository) => repository.repair({ what: "packs" }));
    return {
      args: ["backup", "repair", verb, ...(verb === "packs" ? [] : ["--forget"]), ...optionsOf(live)],
      isRepeated: true,
      next: async () => {
        await within(live, async (repository) => {
          if (verb === "packs") await repository.repair({ what: "packs" });
          await repository.repairSnapshots({ forget: true });
        });
      },
      look: async () => {
        const left = await sound(live);
        return [left.includes(ids[1]!), left.includes(ids[0]!), left.length];
      },
    };
  });

for (const [verb, look] of [
  ["add", async (live: Live) => within(live, async (repository) => (await repository.keys()).keys.length)],
  [
    "passwd",
    async (live: Live) =>
      within(live, async (repository) => (await repository.keys()).keys.length).catch((error: Error) => error.name),
  ],
] as const)
  replay(
    `backup key ${verb}, killed at any pass, takes effect or not, and the content stays readable`,
    async (live) => {
      await makeEmpty(live);
      fs.writeFileSync(live.at("new-password"), "new password\n");
      const args = ["backup", "key", verb, ...optionsOf(live), "--new-password-file", live.at("new-password")];
      // The lock of a killed command goes with the next verification. Both passwords open the repository until the old key goes.
      const next = async (): Promise<unknown> =>
        within(live, async (repository) => repository.verify()).catch(async () =>
          within(live, async (repository) => repository.verify(), { password: "new password" }),
        );
      return {
        args,
        look: async () => (verb === "passwd" ? typeof (await look(live)) : look(live)),
        next,
      };
    },
  );

replay("backup key remove, killed at any pass, takes effect or not", async (live) => {
  await makeEmpty(live);
  const added = await within(live, async (repository) => repository.addKey("other password"));
  const other = added.keys.find(({ current }) => !current)!;
  return {
    args: ["backup", "key", "remove", other.key_id, ...optionsOf(live)],
    next: async () => within(live, async (repository) => repository.verify()),
    look: async () => within(live, async (repository) => (await repository.keys()).keys.length),
  };
});

for (const isResumed of [false, true])
  replay(
    `backup restore, killed at any pass${isResumed ? " after it resumed a killed one" : ""}, leaves no folder or a complete one`,
    async (live) => {
      await snapshots(live, 1);
      const to = live.at("to");
      const args = ["backup", "restore", "latest", "--to", to, ...optionsOf(live)];
      if (isResumed) assert.ok(cairn(args, { failpoint: "restore-backup.written" }).killed);
      return {
        args,
        passes: isResumed ? ["partial.taken-over"] : [],
        next: async () => {
          // The next restore removes what a killed one left.
          await within(live, async (repository) => repository.restore("latest", live.at("another")));
          fs.rmSync(live.at("another"), { recursive: true });
        },
        look: () => (fs.existsSync(to) ? readFolder(to) : null),
      };
    },
  );

replay("backup restore --in-place, killed at any pass, leaves the old or the new state", async (live) => {
  await snapshots(live, 1);
  await live.save();
  makeSecond(live.folder);
  await live.save();
  return {
    args: ["backup", "restore", "latest", "--in-place", ...optionsOf(live), "-C", live.folder],
    look: () => readFolder(live.folder),
  };
});
