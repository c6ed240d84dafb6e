import assert from "node:assert/strict";
import type { Client } from "../../contract/index.ts";
import { hasCode, testFolder } from "../../keep/testing-folder.ts";
import type { FindNamesOptions } from "./find-names.ts";
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";

async function pathsOf(client: Client, pattern: string, options: FindNamesOptions = {}): Promise<string[]> {
  return (await client.findNames(pattern, options)).found.map(({ path }) => path);
}

test("find lists each path with the name in any point, with its newest and oldest point", async (t) => {
  const { client, folder, write } = await testFolder(t, { "a/report.txt": "1", "b/Reporter": "", other: "" });
  const first = await client.save();
  rmSync(join(folder, "a/report.txt"));
  write("a/x/report.txt/inside", "");
  const second = await client.save();
  rmSync(join(folder, "a/x/report.txt"), { recursive: true });
  write("a/x/report.txt", "now a file");
  const third = await client.save();
  const [one, two, three] = [first, second, third].map((point) => point.save_point_id);
  assert.deepEqual(await client.findNames("report"), {
    found: [
      {
        path: "a/report.txt",
        workspace_name: "main",
        kind: "file",
        newest: one,
        oldest: one,
        points: 1,
        versions: 1,
        in_latest: false,
      },
      {
        path: "a/x/report.txt",
        workspace_name: "main",
        kind: "file",
        newest: three,
        oldest: two,
        points: 2,
        versions: 2,
        in_latest: true,
      },
    ],
    truncated: false,
  });
  assert.deepEqual(await pathsOf(client, "REPORTER"), []);
  assert.deepEqual(await pathsOf(client, "REPORTER", { ignoreCase: true }), ["b/Reporter"]);
});

test("find accepts patterns for names and paths, and stops at its limit", async (t) => {
  const { client, folder } = await testFolder(t, {
    "src/deep/main.ts": "",
    "src/main.js": "",
    "main.ts": "",
    "[x]": "",
  });
  writeFileSync(Buffer.concat([Buffer.from(join(folder, "odd-")), Buffer.of(0xff)]), "");
  writeFileSync(join(folder, "größe"), "");
  await client.save();
  assert.deepEqual(await pathsOf(client, "*.ts"), ["main.ts", "src/deep/main.ts"]);
  assert.deepEqual(await pathsOf(client, "main.??"), ["main.ts", "src/deep/main.ts", "src/main.js"]);
  assert.deepEqual(await pathsOf(client, "src/**/main.ts"), ["src/deep/main.ts"]);
  assert.deepEqual(await pathsOf(client, "GRÖSSE", { ignoreCase: true }), []);
  assert.deepEqual(await pathsOf(client, "GRÖ", { ignoreCase: true }), ["größe"]);
  assert.deepEqual(await pathsOf(client, "röß"), ["größe"]);
  const [odd] = (await client.findNames("odd")).found;
  assert.deepEqual([odd?.path, odd?.path_b64], ["odd-\\xff", Buffer.from("odd-\xff", "latin1").toString("base64")]);
  const cut = await client.findNames("main", { limit: 2 });
  assert.deepEqual([cut.found.length, cut.truncated], [2, true]);
  assert.equal((await client.findNames("main", { limit: 3 })).truncated, false);
  await assert.rejects(client.findNames(""), hasCode("usage"));
  await assert.rejects(client.findNames("main", { limit: 0 }), hasCode("usage"));
});

test("find searches undo points only with all, and warns of unreadable points", async (t) => {
  const { client, write } = await testFolder(t, { a: "" });
  const first = await client.save();
  write("never-saved", "");
  await client.restore({ target: first.save_point_id });
  assert.deepEqual(await pathsOf(client, "never"), []);
  assert.deepEqual(await pathsOf(client, "never", { all: true }), ["never-saved"]);
  write("b", "");
  const last = await client.save();
  const points = join(client.controlDirectory, "workspaces/main/points");
  writeFileSync(join(points, String(last.sequence).padStart(10, "0"), "descriptor.json"), "damaged");
  const warnings: string[] = [];
  assert.deepEqual(await pathsOf(client, "a", { onWarning: (each) => warnings.push(each) }), ["a"]);
  assert.match(warnings.join(), /^1 save point could not be read and searched: /);
});

test("find with all searches the other workspaces of the control directory, up to the limit", async (t) => {
  const { client, root, write } = await testFolder(t, { "key.pem": "1" });
  await client.save();
  write("key.pem", "2");
  await client.save();
  await client.fork("head", join(root, "fork"));
  const { found, truncated } = await client.findNames("key", { all: true });
  assert.deepEqual(
    found.map((each) => [each.workspace_name, each.points, each.versions]),
    [
      ["main", 2, 2],
      ["fork", 1, 1],
    ],
  );
  assert.equal(truncated, false);
  const cut = await client.findNames("key", { all: true, limit: 1 });
  assert.deepEqual([cut.found.length, cut.truncated], [1, true]);
  assert.equal((await client.findNames("key", { all: true, limit: 2 })).truncated, false);
});
