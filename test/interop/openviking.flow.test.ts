import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { after, test, type TestContext } from "node:test";
import { ContextServer } from "../../src/api/context-server/server.ts";
import { Bundle } from "../../src/bundle/bundle.ts";
import { convertBundle } from "../../src/bundle/convert.ts";
import { listOf } from "../../src/bundle/testing-bundle.ts";
import { backupStore, exportBundle } from "../../src/context/export-bundle.ts";
import { checkConsistency } from "../../src/context/consistency.ts";
import { find } from "../../src/context/search.ts";
import type { ContextStore } from "../../src/context/store.ts";
import { importFile, restoreFile, Scratch } from "../../src/context/testing-store.ts";
import { findOpenViking, startModels, startOpenViking, type Version, withClient } from "../fixtures/openviking.ts";

/** OpenViking's own clients at our server, and bundles that go both ways with its own servers. */

const scratch = new Scratch();
after(() => scratch[Symbol.dispose]());

const LAYOUTS = { "0.3": "B", "0.4": "C", "0.5": "C" } as const;
const FILES = {
  "resources/docs/alpha.md": "# Alpha\n\nThe lighthouse keeper writes letters.\n",
  "resources/docs/deep/ü – beta.txt": "Grüße, 你好\u2028line\n",
  "resources/docs/.abstract.md": "Letters of a\u2028keeper",
  "resources/docs/.overview.md": "All that was written.",
  "user/alice/memories/preferences/tea.md": "Green tea without sugar.\n",
};

function folderOf(t: TestContext, version: Version): string | null {
  const found = findOpenViking(version);
  if ("folder" in found) return found.folder;
  t.skip(found.reason);
  return null;
}

async function serve(store: ContextStore, version: Version): Promise<ContextServer> {
  const address = { host: "127.0.0.1", port: 0 };
  return await ContextServer.start({
    store,
    layout: LAYOUTS[version],
    uploadBytes: 1 << 24,
    address,
    apiKey: "secret",
    version: "0",
    onProblem: () => undefined,
  });
}

for (const version of ["0.3", "0.4", "0.5"] as const) {
  test(`the client of OpenViking ${version} works with Cairn's server as with OpenViking's own`, async (t) => {
    const folder = folderOf(t, version);
    if (folder === null) return;
    await using store = await scratch.store(FILES);
    const server = await serve(store, version);
    const [docs, all] = [scratch.place("docs.ovpack"), scratch.place("all.ovpack")];
    const said = await withClient(
      folder,
      { url: server.url, key: "secret" },
      `
attempt(lambda: c.health())
attempt(lambda: c.export_ovpack("viking://resources/docs/", ${JSON.stringify(docs)}, include_vectors=True))
attempt(lambda: c.import_ovpack(${JSON.stringify(docs)}, "viking://resources/"))
attempt(lambda: c.import_ovpack(${JSON.stringify(docs)}, "viking://resources/", on_conflict="skip"))
attempt(lambda: c.import_ovpack(${JSON.stringify(docs)}, "viking://resources/copies", vector_mode="require"))
attempt(lambda: c.import_ovpack(${JSON.stringify(docs)}, "viking://user/alice"))
attempt(lambda: c.export_ovpack("viking://resources/none", ${JSON.stringify(docs)}))
attempt(lambda: c.backup_ovpack(${JSON.stringify(all)}))
attempt(lambda: c.restore_ovpack(${JSON.stringify(all)}))
attempt(lambda: c.restore_ovpack(${JSON.stringify(all)}, on_conflict="overwrite", vector_mode="recompute"))
attempt(lambda: c.import_ovpack(${JSON.stringify(all)}, "viking://"))
attempt(lambda: c.wait_processed()["Embedding"]["error_count"])
attempt(lambda: c.check_consistency("viking://resources")["ok"])
`,
    );
    const codes = said.map((each) =>
      typeof each === "object" && each !== null ? ((each as { code?: string }).code ?? each) : each,
    );
    assert.deepEqual(codes, [
      true,
      docs,
      "CONFLICT",
      "viking://resources/docs",
      "viking://resources/copies/docs",
      "INVALID_ARGUMENT",
      "NOT_FOUND",
      all,
      "CONFLICT",
      "viking://",
      "INVALID_ARGUMENT",
      0,
      true,
    ]);
    assert.equal(checkConsistency(store, "").ok, true);
    const wrong = await withClient(
      folder,
      { url: server.url, key: "wrong" },
      `attempt(lambda: c.backup_ovpack(${JSON.stringify(all)}))`,
    );
    assert.equal((wrong[0] as { code: string }).code, "UNAUTHENTICATED");
    await server.stop();
  });

  test(`Cairn and a server of OpenViking ${version} import each other's bundles`, async (t) => {
    const folder = folderOf(t, version);
    if (folder === null) return;
    const layout = LAYOUTS[version];
    const models = await startModels();
    const real = await startOpenViking(folder, models.base);
    try {
      // Ours, with vectors of the model that it has too.
      const embedding = { provider: "openai" as const, model: "fake-embed", dimensions: 64, base_url: models.base };
      await using store = await scratch.store(FILES, embedding);
      const [ours, theirs, theirBackup, ourBackup] = ["ours", "theirs", "their-backup", "our-backup"].map((name) =>
        scratch.place(`${name}.ovpack`),
      ) as [string, string, string, string];
      const memories = scratch.place("memories.ovpack");
      await exportBundle(store, { uri: "viking://resources/docs", to: ours, layout, includeVectors: true });
      await exportBundle(store, { uri: "viking://user/alice/memories/preferences", to: memories, layout });
      await backupStore(store, { to: ourBackup, layout });
      const key = await real.newUser("acme", "alice");
      const said = await withClient(
        folder,
        { url: real.url, key },
        `
attempt(lambda: c.import_ovpack(${JSON.stringify(ours)}, "viking://resources/"))
attempt(lambda: c.import_ovpack(${JSON.stringify(memories)}, "viking://user/alice/memories/", on_conflict="overwrite"))
c.wait_processed()
attempt(lambda: c.read("viking://resources/docs/alpha.md").rstrip())
attempt(lambda: c.export_ovpack("viking://resources/docs", ${JSON.stringify(theirs)}, include_vectors=True))
attempt(lambda: c.import_ovpack(${JSON.stringify(ours)}, "viking://resources/again", vector_mode="require"))
attempt(lambda: c.backup_ovpack(${JSON.stringify(theirBackup)}))
`,
      );
      assert.deepEqual(
        said.slice(0, 3),
        [
          "viking://resources/docs",
          "viking://user/alice/memories/preferences",
          FILES["resources/docs/alpha.md"].trimEnd(),
        ],
        JSON.stringify(said),
      );
      // What it gives back has the content that we gave.
      await using gave = await Bundle.open(ours);
      await using got = await Bundle.open(theirs);
      assert.equal(got.manifest.layout, layout);
      const contentOf = (bundle: Bundle): object =>
        Object.fromEntries(
          bundle.manifest.files
            .filter((each) => !each.path.endsWith("view.md") && !each.path.endsWith("abstract.md"))
            .map((each) => [each.path, each.sha256]),
        );
      assert.deepEqual(contentOf(got), contentOf(gave));
      const [first] = await listOf(got.records());
      assert.equal(first!.path, "");
      await using other = await scratch.store();
      await importFile(other, theirs, { parent: "viking://resources/back" });
      await other.fill();
      assert.equal(checkConsistency(other, "").ok, true);
      assert.ok(
        (await find(other, "lighthouse letters")).some(({ uri }) => uri === "viking://resources/back/docs/alpha.md"),
      );
      // Vectors of the same model go both ways.
      assert.equal(said[4], "viking://resources/again/docs", JSON.stringify(said));
      await using same = await scratch.store({}, embedding);
      const { vectors } = await importFile(same, theirs, { parent: "viking://resources/back" });
      assert.equal(vectors, "bundle");
      // Its backup comes back here, ours there.
      await using restored = await scratch.store();
      await restoreFile(restored, theirBackup);
      assert.ok(fs.existsSync(path.join(restored.folder, "user/alice/memories/preferences/tea.md")));
      const second = await real.newUser("other", "alice");
      const after = await withClient(
        folder,
        { url: real.url, key: second },
        `
attempt(lambda: c.restore_ovpack(${JSON.stringify(ourBackup)}, on_conflict="overwrite"))
attempt(lambda: c.read("viking://user/alice/memories/preferences/tea.md"))
`,
      );
      assert.equal(after[0], "viking://", JSON.stringify(after));
      assert.match(String(after[1]), /Green tea/);
    } finally {
      await real.stop();
      models.server.close();
    }
  });
}

test("OpenViking 0.5 restores a backup with agents and sessions after bundle convert", async (t) => {
  const folder = folderOf(t, "0.5");
  if (folder === null) return;
  await using store = await scratch.store({
    ...FILES,
    "agent/default/skills/x.md": "A skill",
    "session/s1/messages.jsonl": '{"id":"m1"}\n',
  });
  const [all, converted] = [scratch.place("all.ovpack"), scratch.place("converted.ovpack")];
  await backupStore(store, { to: all });
  await using bundle = await Bundle.open(all);
  await convertBundle(bundle, { to: converted, layout: "C", sessionsTo: "alice", leaveOut: ["agent"] });
  const models = await startModels();
  const real = await startOpenViking(folder, models.base);
  try {
    const said = await withClient(
      folder,
      { url: real.url, key: await real.newUser("acme", "alice") },
      `
attempt(lambda: c.restore_ovpack(${JSON.stringify(all)}, on_conflict="overwrite"))
attempt(lambda: c.restore_ovpack(${JSON.stringify(converted)}, on_conflict="overwrite"))
attempt(lambda: c.read("viking://user/alice/sessions/s1/messages.jsonl").strip())
attempt(lambda: c.read("viking://user/alice/memories/preferences/tea.md").strip())
`,
    );
    assert.equal((said[0] as { code: string }).code, "INVALID_ARGUMENT");
    assert.deepEqual(said.slice(1), ["viking://", '{"id":"m1"}', "Green tea without sugar."]);
  } finally {
    await real.stop();
    models.server.close();
  }
});
