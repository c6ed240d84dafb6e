import fs from "node:fs";
import path from "node:path";
import { readFolder } from "../fixtures/folder-state.ts";
import { makeFirst, makeSecond } from "../fixtures/two-states.ts";
import { type Live, replay } from "./replay.ts";

/** Commands that make, move or end workspaces: each is killed at every pass. */

async function onePoint(live: Live): Promise<void> {
  makeFirst(live.folder);
  await live.save();
}

/** Null, or the state of a folder that the command makes or removes; a workspace there answers. */
async function stateAt(live: Live, folder: string, isWorkspace = true): Promise<unknown> {
  if (!fs.existsSync(folder)) return null;
  if (isWorkspace) {
    const client = await (await live.library()).open(folder);
    const { save_points: points, damaged } = await client.history(undefined, 0, { all: true });
    if (points.length === 0 || damaged.length > 0) throw new Error(`${folder} has no points`);
    if (!(await client.status()).clean) throw new Error(`${folder} is not clean`);
    await client.close();
  }
  return readFolder(folder);
}

/** The registration of another folder removes what killed commands have left among the user's records. */
async function initAnother(live: Live): Promise<void> {
  fs.mkdirSync(live.at("another"));
  await (await (await live.library()).init(live.at("another"))).close();
}

for (const more of [[], ["--standalone"]])
  replay(
    `fork ${more.join("")}, killed at any pass, leaves no fork or a complete one`.replace(" ,", ","),
    async (live) => {
      await onePoint(live);
      const fork = live.at("fork");
      return { args: ["fork", "head", fork, ...more, "-C", live.folder], look: async () => stateAt(live, fork) };
    },
  );

replay("restore --to, killed at any pass, leaves no folder or a complete one", async (live) => {
  await onePoint(live);
  const to = live.at("to");
  return { args: ["restore", "head", "--to", to, "-C", live.folder], look: async () => stateAt(live, to, false) };
});

/** A fork that changed, with a file that no point has. */
async function changedFork(live: Live): Promise<string> {
  await onePoint(live);
  const fork = live.at("fork");
  await (await live.client()).fork("head", fork);
  makeSecond(fork);
  fs.writeFileSync(path.join(fork, "only-here"), "unsaved\n");
  return fork;
}

replay("fork --remove, killed at any pass, leaves the whole fork or its state in a point", async (live) => {
  const fork = await changedFork(live);
  const state = readFolder(fork, { withoutRootTime: true });
  return {
    args: ["-C", live.folder, "fork", "--remove", fork],
    beside: fork,
    look: () => (fs.existsSync(fork) ? readFolder(fork, { withoutRootTime: true }) : null),
    check: async (_live, isAfter) => {
      if (!isAfter) return;
      const client = await live.client();
      const { save_points: points } = await client.history(undefined, 0, { all: true });
      const kept = points.find(({ cause }) => cause.kind === "adopt")!;
      await client.restore({ target: kept.save_point_id, to: live.at("kept") });
      const now = readFolder(live.at("kept"), { withoutRootTime: true });
      if (JSON.stringify([...now]) !== JSON.stringify([...state])) throw new Error("the point is not the fork's state");
      fs.rmSync(live.at("kept"), { recursive: true });
    },
  };
});

for (const more of [[], ["--merge"]])
  replay(
    `adopt ${more.join("")}, killed at any pass, leaves the old or the new state`.replace(" ,", ","),
    async (live) => {
      const fork = await changedFork(live);
      if (more.length > 0) fs.writeFileSync(path.join(live.folder, "mine"), "mine\n");
      const args = ["adopt", fork, ...more, "-C", live.folder];
      // A merge moves entries in and out of the root, whose own time is that of the recovery.
      const look = (): unknown => readFolder(live.folder, { withoutRootTime: more.length > 0 });
      return { args, beside: fork, look };
    },
  );

replay("relocate, killed at any pass, can be repeated", async (live) => {
  await onePoint(live);
  const old = live.folder;
  await live.close();
  live.folder = live.at("moved");
  fs.renameSync(old, live.folder);
  const next = async (): Promise<unknown> => {
    const library = await live.library();
    const listed = await library.listWorkspaces();
    if (listed.some(({ path: place }) => place === old)) await library.relocate(old, live.folder);
    return (await live.client()).save({ skipUnchanged: true });
  };
  return { args: ["relocate", old, live.folder], look: () => readFolder(live.folder), next, isRepeated: true };
});

replay("release --delete-points, killed at any pass, leaves all points or none", async (live) => {
  makeFirst(live.folder);
  await (await live.client()).save({ message: "old" });
  return {
    args: ["release", live.folder, "--delete-points"],
    next: async () => {
      await (await live.client()).save({ message: "next" });
      await initAnother(live);
    },
    look: async () => {
      const { save_points: points } = await (await live.client()).history(undefined, 0, { all: true });
      return points.map(({ message }) => message);
    },
  };
});

replay("init, killed at any pass, can be repeated", async (live) => {
  makeFirst(live.folder);
  const next = async (): Promise<unknown> => (await live.client()).save();
  return { args: ["init", live.folder], look: () => readFolder(live.folder), next, isRepeated: true };
});

replay("init --self-contained, killed at any pass, can be repeated", async (live) => {
  const place = live.at("place");
  return {
    args: ["init", "--self-contained", place],
    isRepeated: true,
    next: async () => {
      const client = await (await live.library()).openOrInit(place, { selfContained: true });
      fs.writeFileSync(path.join(place, "main/f"), "x");
      await client.save();
      await client.close();
      await initAnother(live);
    },
    look: async () => {
      const client = await (await live.library()).open(path.join(place, "main"));
      const { problems } = await client.verifyAll();
      await client.close();
      return [fs.readdirSync(place).toSorted(), problems];
    },
  };
});

for (const name of ["exported", "exported.tar"])
  replay(`export --to ${name}, killed at any pass, leaves no export or a complete one`, async (live) => {
    await onePoint(live);
    const to = live.at(name);
    return {
      args: ["export", "head", "--to", to, "-C", live.folder],
      look: () => fs.existsSync(to),
      check: async (_live, isAfter) => {
        if (!isAfter) return;
        await (await live.library()).importDirectory(to, live.at("imported"), { isTar: name.endsWith(".tar") });
        fs.rmSync(live.at("imported"), { recursive: true });
      },
    };
  });

replay("import, killed at any pass, leaves no folder or a complete one", async (live) => {
  await onePoint(live);
  const [from, to] = [live.at("exported"), live.at("imported")];
  await (await live.client()).exportPoint("head", from);
  return {
    args: ["import", "--from", from, to],
    // Removed by the next import beside it.
    leaves: /^\/\.cairn-tmp-/,
    next: async () => {
      await (await live.client()).save({ skipUnchanged: true });
      // A kill after the rename leaves a folder that the next save makes a workspace.
      if (fs.existsSync(to)) await (await live.client(to)).save({ skipUnchanged: true });
      await initAnother(live);
    },
    look: async () => stateAt(live, to),
  };
});
