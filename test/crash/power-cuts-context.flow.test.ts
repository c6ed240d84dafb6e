import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { checkConsistency } from "../../src/context/consistency.ts";
import { ContextStore } from "../../src/context/store.ts";
import { cairnOk } from "../fixtures/command.ts";
import { cutPower } from "./power-cuts.ts";
import type { Live } from "./replay.ts";

/** Changes of a context store and exports of one; the power is cut at any time. */

function makeStore(live: Live): void {
  fs.mkdirSync(live.at("docs"));
  for (const name of ["a.md", "b.md"]) fs.writeFileSync(live.at("docs", name), `${name}\n`);
  cairnOk(["context", "init", live.at("store"), "--embedding", "none"], { own: true });
  cairnOk(["context", "add", "viking://resources/docs", live.at("docs"), "-C", live.at("store")], { own: true });
}

cutPower("a power cut during a bundle export leaves no bundle or a whole one", async (live) => {
  makeStore(live);
  const file = live.at("docs.ovpack");
  return {
    isCheap: true,
    args: ["bundle", "export", "viking://resources/docs", file, "-C", live.at("store")],
    next: async () =>
      (await live.library()).exportBundle(live.at("store"), "viking://resources/docs", live.at("next.ovpack")),
    look: () => fs.existsSync(file),
    check: async (_, isAfter) => {
      if (isAfter) await (await live.library()).verifyBundle(file);
    },
  };
});

cutPower("a power cut during context rm removes all of the files or none", async (live) => {
  makeStore(live);
  fs.writeFileSync(live.at("tea.md"), "tea\n");
  cairnOk(["context", "add", "viking://user/u/memories/tea.md", live.at("tea.md"), "-C", live.at("store")], {
    own: true,
  });
  return {
    isCheap: true,
    args: ["context", "rm", "viking://resources/docs", "-C", live.at("store")],
    next: async () => (await live.library()).removeFromContext(live.at("store"), "viking://user/u/memories/tea.md"),
    look: async () => {
      const { hits } = await (await live.library()).findInContext(live.at("store"), "a b", { limit: 50 });
      return hits.length;
    },
  };
});

/** The files of the store, and what a search finds. */
async function filesAndHits(live: Live): Promise<unknown> {
  const store = live.at("store");
  const { hits } = await (await live.library()).findInContext(store, "new a b c", { limit: 50 });
  await using open = await ContextStore.open(store);
  // Written states have new times of files, by which the index is stale.
  const { missing_records: unlisted, missing_files: gone, expected, indexed } = checkConsistency(open, "");
  assert.deepEqual([unlisted, gone, indexed], [[], [], expected]);
  const names = (fs.readdirSync(store, { recursive: true }) as string[]).filter((name) => !name.startsWith(".context"));
  const files = names.filter((name) => fs.statSync(path.join(store, name)).isFile()).toSorted();
  const contents = files.map((name) => [name, fs.readFileSync(path.join(store, name), "utf8")]);
  return [contents, hits.map(({ uri, level }) => `${uri} ${level}`).toSorted()];
}

/** Two stores: `live.at("store")`, and bundles of one with other content. */
function makeBundles(live: Live): void {
  makeStore(live);
  cairnOk(["context", "add", "viking://user/u/memories/tea.md", live.at("docs/a.md"), "-C", live.at("store")], {
    own: true,
  });
  fs.mkdirSync(live.at("new"));
  for (const name of ["b.md", "c.md"]) fs.writeFileSync(live.at("new", name), `new ${name}\n`);
  fs.cpSync(live.at("store"), live.at("other"), { recursive: true });
  const other = (...words: string[]): unknown => cairnOk([...words, "-C", live.at("other")], { own: true });
  other("context", "add", "viking://resources/docs", live.at("new"), "--overwrite");
  other("bundle", "export", "viking://resources/docs", live.at("docs.ovpack"));
  other("bundle", "backup", live.at("all.ovpack"));
  fs.rmSync(live.at("other"), { recursive: true });
}

for (const [title, words] of [
  ["context add --overwrite", ["context", "add", "viking://resources/docs", "new", "--overwrite"]],
  ["bundle import", ["bundle", "import", "docs.ovpack", "viking://resources", "--on-conflict", "overwrite"]],
  ["bundle restore --exact", ["bundle", "restore", "all.ovpack", "--on-conflict", "overwrite", "--exact"]],
] as const)
  cutPower(`a power cut during ${title} leaves all of the old files or all of the new ones`, async (live) => {
    makeBundles(live);
    const args = words.map((word) => (/^new$|\.ovpack$/.test(word) ? live.at(word) : word));
    return {
      isCheap: true,
      args: [...args, "-C", live.at("store")],
      next: async () => (await live.library()).removeFromContext(live.at("store"), "viking://user/u/memories/tea.md"),
      look: async () => filesAndHits(live),
    };
  });
