import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { checkConsistency } from "../../src/context/consistency.ts";
import { ContextStore } from "../../src/context/store.ts";
import { cairnOk } from "../fixtures/command.ts";
import { type Live, replay, type Scene } from "./replay.ts";

/** Changes of a context store and exports of one: each is killed at every pass. */

function write(folder: string, files: readonly string[], word: string): void {
  for (const name of files) {
    fs.mkdirSync(path.dirname(path.join(folder, name)), { recursive: true });
    fs.writeFileSync(path.join(folder, name), `${word} ${name}\n`);
  }
}

function context(live: Live, ...words: string[]): void {
  cairnOk([...words, "-C", live.at("store")], { own: true });
}

/** A store with something in the way of what comes. */
function makeStore(live: Live): void {
  write(live.at("old"), ["a.md", "old.md", "deep/b.md"], "old");
  write(live.at("new"), ["a.md", "deep/b.md", "deep/c.md", ".abstract.md"], "new");
  cairnOk(["context", "init", live.at("store"), "--embedding", "none"], { own: true });
  context(live, "context", "add", "viking://resources/docs", live.at("old"));
  context(live, "context", "add", "viking://user/u/memories/tea.md", live.at("old/a.md"));
}

function filesOf(store: string): Record<string, string> {
  const files: Record<string, string> = {};
  for (const name of (fs.readdirSync(store, { recursive: true }) as string[]).toSorted()) {
    const at = path.join(store, name);
    if (!name.startsWith(".context"))
      files[name] = fs.statSync(at).isFile() ? fs.readFileSync(at, "utf8") : "directory";
  }
  return files;
}

/** The files, and what a search finds, after the store was opened and another file removed from it. */
function changed(live: Live, args: readonly string[]): Scene {
  return {
    args: [...args, "-C", live.at("store")],
    next: async () => {
      const library = await live.library();
      await library.removeFromContext(live.at("store"), "viking://user/u/memories/tea.md");
    },
    look: async () => {
      // A search reads the files that a change brought.
      const { hits } = await (await live.library()).findInContext(live.at("store"), "new old", { limit: 50 });
      await using open = await ContextStore.open(live.at("store"));
      assert.equal(checkConsistency(open, "").ok, true);
      return [filesOf(live.at("store")), hits.map(({ uri, level }) => `${uri} ${level}`).toSorted()];
    },
  };
}

replay("context add --overwrite, killed at any pass, takes effect completely or not at all", async (live) => {
  makeStore(live);
  return changed(live, ["context", "add", "viking://resources/docs", live.at("new"), "--overwrite"]);
});

replay("context rm, killed at any pass, takes effect completely or not at all", async (live) => {
  makeStore(live);
  return changed(live, ["context", "rm", "viking://resources/docs"]);
});

for (const [title, words] of [
  ["bundle import", ["bundle", "import", "docs.ovpack", "viking://resources", "--on-conflict", "overwrite"]],
  ["bundle restore --exact", ["bundle", "restore", "all.ovpack", "--on-conflict", "overwrite", "--exact"]],
] as const)
  replay(`${title}, killed at any pass, takes effect completely or not at all`, async (live) => {
    makeStore(live);
    fs.renameSync(live.at("store"), live.at("first"));
    makeStore(live);
    context(live, "context", "add", "viking://resources/docs", live.at("new"), "--overwrite");
    context(live, "bundle", "export", "viking://resources/docs", live.at("docs.ovpack"));
    context(live, "bundle", "backup", live.at("all.ovpack"));
    fs.rmSync(live.at("store"), { recursive: true });
    fs.renameSync(live.at("first"), live.at("store"));
    return changed(
      live,
      words.map((word) => (word.endsWith(".ovpack") ? live.at(word) : word)),
    );
  });

replay("bundle export, killed at any pass, leaves no bundle or a complete one", async (live) => {
  makeStore(live);
  const file = live.at("docs.ovpack");
  return {
    args: ["bundle", "export", "viking://resources/docs", file, "-C", live.at("store")],
    next: async () =>
      (await live.library()).exportBundle(live.at("store"), "viking://resources/docs", live.at("next.ovpack")),
    look: () => fs.existsSync(file),
    check: async (_live, isAfter) => {
      if (isAfter) await (await live.library()).verifyBundle(file);
    },
  };
});
