import { randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { DatabaseSync } from "node:sqlite";
import type { Client } from "../../src/contract/index.ts";
import { walkDigests } from "../../src/workspace/store/testing-walk.ts";
import { readFolder } from "../fixtures/folder-state.ts";
import { makeFirst, makeSecond, makeUnsaved } from "../fixtures/two-states.ts";
import { type Live, replay } from "./replay.ts";
import { WITHOUT_RENAME_FLAGS } from "./rounds.ts";

/** Commands that make, mark and remove points, and those that change the folder: each is killed at every pass. */

/** Two points that differ in every way a restore has to handle, then edits that nobody saved. */
async function twoPoints(live: Live): Promise<{ client: Client; first: string; second: string }> {
  makeFirst(live.folder);
  const first = await live.save();
  makeSecond(live.folder);
  const second = await live.save();
  makeUnsaved(live.folder);
  return { client: await live.client(), first, second };
}

const folder = (live: Live): unknown => readFolder(live.folder);

/** Message, tags and pin of each point, without those that the next save makes. */
async function points(live: Live): Promise<unknown> {
  const { save_points: listed } = await (await live.client()).history(undefined, 0, { all: true });
  return listed
    .filter(({ message }) => message !== "next")
    .map(({ message, tags, pinned }) => ({ message, tags, pinned }));
}

/** The content of each open view. */
async function openViews(live: Live): Promise<unknown> {
  const views = await (await live.client()).listViews();
  return views.map(({ path: place }) => walkDigests(place).state);
}

replay("a first save, killed at any pass, can be repeated", async (live) => {
  makeFirst(live.folder);
  const next = async (): Promise<unknown> => (await live.client()).save({ skipUnchanged: true });
  return { args: ["save", live.folder], look: folder, isRepeated: true, next };
});

replay("save, killed at any pass, makes one complete point or none", async (live) => {
  await twoPoints(live);
  return { args: ["save", live.folder, "-m", "killed"], look: points };
});

replay("save, killed while it merges small packs, makes one complete point or none", async (live) => {
  const file = path.join(live.folder, "f");
  for (let i = 0; i < 23; i++) {
    fs.writeFileSync(file, `${i}\n`.repeat(20));
    await live.save();
  }
  fs.writeFileSync(file, "last\n");
  return { args: ["save", live.folder, "-m", "killed"], look: points, passes: ["compact.done"] };
});

replay("save of a database's changed pages, killed at any pass, makes one complete point or none", async (live) => {
  const database = new DatabaseSync(path.join(live.folder, "app.db"));
  database.exec("CREATE TABLE t (id INTEGER PRIMARY KEY, content BLOB); BEGIN");
  for (let id = 0; id < 200; id++) database.prepare("INSERT INTO t VALUES (?, ?)").run(id, randomBytes(3900));
  database.exec("COMMIT");
  await live.save();
  database.prepare("UPDATE t SET content = ? WHERE id = 1").run(randomBytes(3900));
  database.close();
  return { args: ["save", live.folder, "-m", "killed"], look: points, passes: ["stage.paged"] };
});

replay("restore, killed at any pass, leaves the old or the new state", async (live) => {
  const { first } = await twoPoints(live);
  return { args: ["restore", first, "-C", live.folder], look: folder };
});

replay(
  "restore, killed on a file system whose rename takes no flags, leaves the old or the new state",
  async (live) => {
    const { first } = await twoPoints(live);
    return {
      args: ["restore", first, "-C", live.folder],
      look: folder,
      run: WITHOUT_RENAME_FLAGS,
      passes: ["restore.moved-aside"],
    };
  },
);

replay("a restore of some paths, killed at any pass, restores all of them or none", async (live) => {
  const { first } = await twoPoints(live);
  const paths = ["goes", "was-file", "moded"].map((name) => path.join(live.folder, name));
  return {
    args: ["restore", first, ...paths, "-C", live.folder],
    look: () => readFolder(live.folder, { withoutRootTime: true }),
  };
});

replay("undo, killed at any pass, leaves the old or the new state", async (live) => {
  const { client, first } = await twoPoints(live);
  await client.restore({ target: first });
  return { args: ["undo", "-C", live.folder], look: folder };
});

replay("redo, killed at any pass, leaves the old or the new state", async (live) => {
  const { client, first } = await twoPoints(live);
  await client.restore({ target: first });
  await client.undo();
  return { args: ["redo", "-C", live.folder], look: folder };
});

replay("cleanup, killed at any pass, removes the planned points or none", async (live) => {
  makeFirst(live.folder);
  const client = await live.client();
  for (let i = 0; i < 4; i++) {
    fs.writeFileSync(path.join(live.folder, "big"), `${i}\n`.repeat(50_000));
    await client.save({ message: `${i}` });
  }
  makeSecond(live.folder);
  await live.save();
  return { args: ["cleanup", "--keep-last", "2", "-C", live.folder], look: points };
});

replay("purge, killed at any pass, removes the paths from all points or from none", async (live) => {
  makeFirst(live.folder);
  const client = await live.client();
  for (let i = 0; i < 2; i++) {
    fs.writeFileSync(path.join(live.folder, "key.secret"), `secret ${i}`);
    await client.save({ message: `${i}` });
  }
  fs.rmSync(path.join(live.folder, "key.secret"));
  await live.save();
  return {
    args: ["cleanup", "purge", "--path", "*.secret", "-C", live.folder],
    look: async () => (await (await live.client()).findNames("*.secret", { all: true })).found.length,
  };
});

replay("view, killed at any pass, leaves no view or an open one", async (live) => {
  const { first } = await twoPoints(live);
  return { args: ["view", first, "-C", live.folder], look: async () => openViews(live) };
});

replay("view --close, killed at any pass, leaves the view open and whole, or closed", async (live) => {
  const { client, first } = await twoPoints(live);
  const { view_id: id } = await client.view(first);
  return { args: ["view", "--close", id, "-C", live.folder], look: async () => openViews(live) };
});

replay("verify, killed at any pass, can be repeated", async (live) => {
  const { first } = await twoPoints(live);
  return { args: ["verify", first, "-C", live.folder], look: points, isRepeated: true };
});

replay("pin, killed at any pass, takes effect or not", async (live) => {
  const { first } = await twoPoints(live);
  return { args: ["pin", first, "-C", live.folder], look: points };
});

replay("tag, killed at any pass, takes effect or not", async (live) => {
  const { first } = await twoPoints(live);
  return { args: ["tag", first, "kept", "-C", live.folder], look: points };
});
