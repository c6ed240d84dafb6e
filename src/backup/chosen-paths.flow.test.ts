import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { linkSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import type { PathChoice, Progress } from "../contract/index.ts";
import { encodeTree, type TreeNode } from "../formats/restic/tree.ts";
import { hasCode } from "../keep/testing-folder.ts";
import type { BlobSource } from "../repository/read/blob-source.ts";
import { chosenPaths } from "./open/paths.ts";
import { backupScene } from "./testing-far.ts";

const FILES = {
  "README.md": "read me\n",
  "src/main.ts": "main\n",
  "src/main.test.ts": "test\n",
  "src/deep/Notes.MD": "notes\n",
  "docs/guide.md": "guide\n",
  "docs/drafts/first.md": "first\n",
  "logs/only.log": "log\n",
};

test("restore patterns choose matching entries with everything below, as restic's patterns do", async (t) => {
  const { client, repository, root, folder, write } = await backupScene(t, "far");
  for (const [name, text] of Object.entries(FILES)) write(name, text);
  linkSync(join(folder, "src/main.ts"), join(folder, "src/deep/linked"));
  await client.createBackup(repository, { save: true });
  let round = 0;
  const restored = async (choice: PathChoice): Promise<string[]> => {
    const target = join(root, `restored-${round++}`);
    const planned = await repository.restore("latest", target, { ...choice, dryRun: true });
    const { proof, entries, bytes } = await repository.restore("latest", target, choice);
    assert.deepEqual([planned.entries, planned.bytes], [entries, bytes], JSON.stringify(choice));
    assert.equal(proof, null);
    return readdirSync(target, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name).slice(target.length + 1))
      .toSorted();
  };
  const cases: [PathChoice, string[]][] = [
    [{ include: ["*.md"] }, ["README.md", "docs/drafts/first.md", "docs/guide.md"]],
    [{ include: ["*.md"], exclude: ["drafts"] }, ["README.md", "docs/guide.md"]],
    [{ include: ["docs"], exclude: ["/docs/drafts"] }, ["docs/guide.md"]],
    [{ include: ["drafts/*.md"] }, ["docs/drafts/first.md"]],
    [{ include: ["/*.md"] }, ["README.md"]],
    [{ include: ["/src/**/[mN]*"], exclude: ["./main.ts/", "ma\\in.test.ts"] }, ["src/deep/Notes.MD"]],
    [{ include: ["deep/"] }, ["deep/b.txt", "src/deep/Notes.MD", "src/deep/linked"]],
    [{ include: [{ pattern: "notes.*", ignoreCase: true }] }, ["src/deep/Notes.MD"]],
    [{ paths: ["src"], exclude: ["*.test.ts"] }, ["src/deep/Notes.MD", "src/deep/linked", "src/main.ts"]],
    [{ include: ["linked"] }, ["src/deep/linked"]],
    [{ paths: ["a.txt"], include: ["guide.md"] }, ["a.txt", "docs/guide.md"]],
    [
      { exclude: ["many", "*.log", "src/**"] },
      ["README.md", "a.txt", "deep/b.txt", "docs/drafts/first.md", "docs/guide.md"],
    ],
  ];
  for (const [choice, wanted] of cases) assert.deepEqual(await restored(choice), wanted, JSON.stringify(choice));
  const whole = [`${folder}/src/deep`, `${folder}//docs/../docs/guide.md`];
  assert.deepEqual(await restored({ paths: whole }), ["docs/guide.md", "src/deep/Notes.MD", "src/deep/linked"]);
  for (const path of [`${folder}-other/src`, "/", `${folder}/../src`])
    await assert.rejects(repository.restore("latest", join(root, "no"), { paths: [path] }), hasCode("usage"));
  const slashless = repository.restore("latest", join(root, "no"), { paths: [`${folder.slice(1)}/src`] });
  await assert.rejects(slashless, { code: "not_found", hint: `begin an absolute path with a slash: ${folder}/src` });
  const asForBorg = [{ exclude: ["sh:**/*.md"] }, { include: ["pp:/guide.md"] }];
  for (const choice of [{ exclude: ["*.md", "!guide.md"] }, { include: ["guide[.md"] }, ...asForBorg])
    await assert.rejects(repository.restore("latest", join(root, "no"), choice), hasCode("usage"));
  const none = repository.restore("latest", join(root, "none"), { include: ["nothing-like-this"] });
  await assert.rejects(none, hasCode("not_found"));
  const all = { exclude: ["nothing-like-this"] };
  const planned = await repository.restore("latest", join(root, "all"), { ...all, dryRun: true });
  const { proof, entries, bytes } = await repository.restore("latest", join(root, "all"), all);
  assert.deepEqual([planned.entries, planned.bytes], [entries, bytes]);
  assert.notEqual(proof, null);
});

test("restore of a chosen file fetches only the file and the folders that lead to it", async (t) => {
  const { client, repository, root, write } = await backupScene(t, "far");
  write("many/large", randomBytes(200_000).toString("hex"));
  await client.createBackup(repository, { save: true });
  let round = 0;
  const fetched = async (choice: PathChoice): Promise<number> => {
    let total = 0;
    const onProgress = ({ phase, total_bytes: bytes = 0 }: Progress): void => {
      if (phase === "downloading") total = bytes;
    };
    await repository.restore("latest", join(root, `fetched-${round++}`), { ...choice, onProgress });
    return total;
  };
  const [atTop, beside, all] = [
    await fetched({ paths: ["a.txt"] }),
    await fetched({ paths: ["many/3"] }),
    await fetched({}),
  ];
  assert.ok(all > 200_000 && atTop < 10_000 && beside < 30_000, `${all} ${atTop} ${beside}`);
});

test("restore writes the same entries with any number of threads", async (t) => {
  const { client, repository, root } = await backupScene(t, "local");
  await client.createBackup(repository, { save: true });
  for (const jobs of [1, 3]) {
    const { proof } = await repository.restore("latest", join(root, `jobs-${jobs}`), { jobs });
    assert.equal(proof?.metadata_equal, true);
  }
  await assert.rejects(repository.restore("latest", join(root, "none"), { jobs: 0 }), hasCode("usage"));
});

test("chosenPaths stops on a signal in the middle of a large folder", async () => {
  const made = { mode: 0o644, mtimeSec: 1, mtimeNs: 0, uid: 0, gid: 0, user: "", group: "", inode: 0n, deviceId: 0n };
  const file = {
    ...made,
    type: "file",
    links: 1,
    size: 0,
    xattrs: [],
    device: 0n,
    content: new Uint8Array(0),
  } as const;
  const nodeAt = (i: number): TreeNode => ({ ...file, name: Buffer.from(`file ${100_000 + i}`) });
  const tree = encodeTree(Array.from({ length: 60_000 }, (_, i) => nodeAt(i)));
  const reader = {
    index: { lookup: () => 0 },
    lent: () => undefined,
    readTree: async () => tree,
  } as unknown as BlobSource;
  const saved = { root: Buffer.alloc(32), only: null, node: null };
  const stop = new AbortController();
  setImmediate(() => stop.abort());
  const choice = { include: ["none like this"], savedPaths: ["/saved"], signal: stop.signal };
  await assert.rejects(chosenPaths(reader, saved, choice), hasCode("interrupted"));
});

test("an error about a relative path in a snapshot with absolute paths names the path from the root", async (t) => {
  const { repository, root, folder, write } = await backupScene(t, "local");
  for (const name of ["docs/d7.txt", "other/b"]) write(name, name);
  await repository.createFromPaths([join(folder, "docs"), join(folder, "other")]);
  const restore = async (path: string): Promise<unknown> =>
    repository.restore("latest", join(root, "absolute"), { paths: [path] });
  const message = '"docs/d7.txt" is not in the snapshot';
  const hint = `this snapshot has absolute paths: name ${folder}/docs/d7.txt`;
  await assert.rejects(restore("docs/d7.txt"), { message, hint });
  await assert.rejects(repository.show("latest", "docs/d7.txt"), { message, hint });
  await assert.rejects(restore("nope"), (error: Error & { hint?: string }) =>
    error.hint!.startsWith(`this snapshot has absolute paths, for example ${folder}/docs; `),
  );
  await restore(`${folder}/docs/d7.txt`);
});
