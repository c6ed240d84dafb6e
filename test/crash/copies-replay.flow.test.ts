import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { DatabaseSync } from "node:sqlite";
import { cairnOk } from "../fixtures/command.ts";
import { readFolder } from "../fixtures/folder-state.ts";
import { addMessages, filesIn, makeArchive, MsgvaultWriter } from "../fixtures/msgvault.ts";
import { makeFirst } from "../fixtures/two-states.ts";
import { type Live, replay } from "./replay.ts";

/** Commands that bring in content of others, or copy databases: each is killed at every pass. */

for (const [verb, file] of [
  ["import", "exported"],
  ["import", "exported.tar"],
  ["clone", "exported"],
] as const)
  replay(`${verb} from ${file}, killed at any pass, leaves no folder or a complete one`, async (live) => {
    makeFirst(live.folder);
    await live.save();
    await live.close();
    const from = live.at(file);
    cairnOk(["export", "head", "--to", from, "-C", live.folder], { own: true });
    const made = live.at("made");
    const wanted = readFolder(live.folder);
    return {
      args: [verb, "--from", from, made],
      // The next copy beside it removes the unfinished folder of a killed one. A complete one is saved like any folder.
      next: async () => {
        await (await live.client()).exportPoint("head", live.at("next"));
        fs.rmSync(live.at("next"), { recursive: true });
        if (!fs.existsSync(made)) return;
        const client = await live.client(made);
        await client.save({ skipUnchanged: true });
        assert.equal((await client.history(undefined, 0, { all: true })).save_points.length, 1);
      },
      look: () => {
        if (!fs.existsSync(made)) return null;
        const now = readFolder(made);
        assert.deepEqual(now, wanted);
        return now;
      },
    };
  });

/** A repository of msgvault with two snapshots, and the archive at the last one. */
function msgvault(live: Live): { root: string; home: string } {
  const home = live.at("archive");
  makeArchive(home);
  addMessages(home, 10);
  const writer = new MsgvaultWriter(live.at("vault"));
  writer.add({ home, createdAt: "2026-11-20T10:00:00Z", tag: "weekly" });
  addMessages(home, 5);
  writer.add({ home, createdAt: "2026-11-21T10:00:00Z", delta: true });
  return { root: writer.root, home };
}

replay("backup import-msgvault, killed at any pass, leaves no folder or a complete one", async (live) => {
  const { root, home } = msgvault(live);
  const to = live.at("to");
  return {
    args: ["backup", "import-msgvault", root, "--to", to],
    next: async () => {
      await (await live.library()).importMsgvault(root, live.at("next"));
      fs.rmSync(live.at("next"), { recursive: true });
    },
    look: () => {
      if (!fs.existsSync(to)) return false;
      assert.deepEqual(filesIn(to), filesIn(home));
      return true;
    },
  };
});

/** A bundle of two files. */
function makeBundle(live: Live): string {
  const file = live.at("docs.ovpack");
  fs.mkdirSync(live.at("docs"));
  for (const name of ["a.md", "b.md"]) fs.writeFileSync(live.at("docs", name), `${name}\n`);
  cairnOk(["context", "init", live.at("store"), "--embedding", "none"], { own: true });
  for (const words of [
    ["context", "add", "viking://resources/docs", live.at("docs")],
    ["bundle", "export", "viking://resources/docs", file],
  ])
    cairnOk([...words, "-C", live.at("store")], { own: true });
  return file;
}

replay("context init, killed at any pass, can be repeated", async (live) => {
  const store = live.at("store");
  fs.writeFileSync(live.at("a.md"), "a\n");
  return {
    args: ["context", "init", store, "--embedding", "none"],
    isRepeated: true,
    next: async () => {
      const library = await live.library();
      await library.initContext(store, { embedding: "none" }).catch((error: { code?: string }) => {
        assert.equal(error.code, "already_exists");
      });
      await library.addToContext(store, "viking://resources/a.md", live.at("a.md"));
    },
    look: () =>
      fs
        .readdirSync(path.join(store, ".context"))
        .filter((name) => !name.startsWith("lock"))
        .toSorted(),
  };
});

replay("bundle extract, killed at any pass, leaves no folder or a complete one", async (live) => {
  const bundle = makeBundle(live);
  const to = live.at("to");
  return {
    args: ["bundle", "extract", bundle, to],
    next: async () => {
      await (await live.library()).extractBundle(bundle, live.at("next"));
      fs.rmSync(live.at("next"), { recursive: true });
    },
    look: () => (fs.existsSync(to) ? filesIn(to) : null),
  };
});

replay("bundle convert, killed at any pass, leaves no bundle or a complete one", async (live) => {
  const bundle = makeBundle(live);
  const to = live.at("old.ovpack");
  return {
    args: ["bundle", "convert", bundle, to, "--layout", "B"],
    next: async () => {
      await (await live.library()).convertBundle(bundle, live.at("next"), { layout: "B" });
      fs.rmSync(live.at("next"));
    },
    look: async () => {
      if (!fs.existsSync(to)) return false;
      await (await live.library()).verifyBundle(to);
      return true;
    },
  };
});

const LOGS = ["-wal", "-journal"];

/** A database as a killed program leaves it: all of its content is in the log. */
function makeDatabase(file: string, word: string): void {
  for (const ending of ["", ...LOGS]) fs.rmSync(`${file}${ending}`, { force: true });
  const open = `${file}.open`;
  const database = new DatabaseSync(open);
  database.exec(`PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; CREATE TABLE t (word TEXT, more BLOB);
    WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40) INSERT INTO t SELECT '${word}', zeroblob(3000) FROM n`);
  for (const ending of ["", "-wal"]) fs.copyFileSync(`${open}${ending}`, `${file}${ending}`);
  database.close();
  fs.rmSync(open);
}

/** The words of a database's rows, read from a copy. SQLite finds the copy whole. */
function wordsIn(live: Live, file: string): string {
  const copy = live.at("copy.db");
  for (const ending of ["", ...LOGS])
    if (fs.existsSync(`${file}${ending}`)) fs.copyFileSync(`${file}${ending}`, `${copy}${ending}`);
  const database = new DatabaseSync(copy);
  const rows = database.prepare("SELECT word, count(*) AS count FROM t GROUP BY word").all();
  assert.deepEqual(
    database
      .prepare("PRAGMA integrity_check")
      .all()
      .map((row) => ({ ...row })),
    [{ integrity_check: "ok" }],
  );
  database.close();
  for (const ending of ["", ...LOGS, "-shm"]) fs.rmSync(`${copy}${ending}`, { force: true });
  return rows.map(({ word, count }) => `${word as string} ${count as number}`).join();
}

/** The next capture of the database, which recovers it. */
async function captureAgain(live: Live, file: string): Promise<void> {
  const to = path.join(path.dirname(file), "next.db");
  await (await live.library()).captureDatabase(file, { to });
  wordsIn(live, to);
  for (const ending of ["", ...LOGS]) fs.rmSync(`${to}${ending}`, { force: true });
}

for (const method of ["pinned", "backup"])
  replay(`database capture by ${method}, killed at any pass, leaves no image or a whole one`, async (live) => {
    const file = path.join(live.folder, "app.db");
    const image = path.join(live.folder, "image.db");
    makeDatabase(file, "one");
    return {
      args: ["database", "capture", file, "--to", image, "--method", method],
      next: async () => captureAgain(live, file),
      look: () => [wordsIn(live, file), fs.existsSync(image) ? wordsIn(live, image) : null],
    };
  });

for (const more of [[], ["--through-sqlite"]])
  replay(
    `database restore ${more.join("")}, killed at any pass, leaves the old or the new database`.replace(" ,", ","),
    async (live) => {
      const file = path.join(live.folder, "app.db");
      const image = live.at("image.db");
      makeDatabase(file, "new");
      await (await live.library()).captureDatabase(file, { to: image });
      makeDatabase(file, "old");
      return {
        args: ["database", "restore", image, "--to", file, ...more],
        next: async () => captureAgain(live, file),
        look: () => {
          const kept = fs.readdirSync(live.folder).filter((name) => name.includes(".before-"));
          for (const name of kept) assert.equal(wordsIn(live, path.join(live.folder, name, "app.db")), "old 40");
          return [wordsIn(live, file), kept.length];
        },
      };
    },
  );
