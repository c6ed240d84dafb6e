import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { backupScene, type BackupScene } from "./testing-far.ts";

/** What a manifest says of entries that were not at rest when they were saved. */

interface Node {
  name: string;
  subtree?: string;
  content?: string[];
}

async function manifestOf({ repository }: BackupScene, tree: string): Promise<Record<string, unknown>> {
  const nodes = async (id: string): Promise<Node[]> =>
    ((await repository.cat("tree", id)).content as { nodes: Node[] }).nodes;
  const folder = (await nodes(tree)).find(({ name }) => name === ".cairn")!.subtree!;
  const [file] = await nodes(folder);
  const { content } = await repository.cat("blob", file!.content![0]);
  return JSON.parse(Buffer.from((content as { content_b64: string }).content_b64, "base64").toString("utf8")) as never;
}

test("a file that changed during the save is labelled in the snapshot, whose restore gets no receipt", async (t) => {
  const scene = await backupScene(t, "local");
  const { client, repository, folder, root } = scene;
  const file = join(folder, "changing");
  writeFileSync(file, Buffer.alloc(20_000_000));
  const script = `const fs=require("fs");const f=fs.openSync(process.argv[1],"r+");fs.writeSync(1,"go");for(let i=0;;i++)fs.writeSync(f,String(i),19999000)`;
  const child = spawn(process.execPath, ["-e", script, file], { stdio: ["ignore", "pipe", "inherit"] });
  await once(child.stdout, "data");
  const { snapshot } = await client.createBackup(repository, { save: true });
  child.kill("SIGKILL");
  await once(child, "exit");
  const point = (await client.history()).save_points[0]!;
  if (point.complete) return t.skip("this file system gave the file as it was at one moment");
  const torn = await manifestOf(scene, snapshot!.tree);
  assert.deepEqual(torn["labels"], [{ label: "torn-possible", path: "changing", reason: "changed while it was read" }]);
  assert.equal(torn["complete"], false);
  assert.deepEqual((await repository.verify()).problems, []);
  const { proof } = await repository.restore("latest", join(root, "torn"));
  assert.deepEqual([proof?.receipt, typeof proof?.state_digest], [null, "string"]);
  // At rest it is whole again.
  truncateSync(file, 1000);
  const whole = await client.createBackup(repository, { save: true });
  const said = await manifestOf(scene, whole.snapshot!.tree);
  assert.deepEqual([said["labels"], said["complete"]], [[], true]);
  rmSync(join(root, "torn"), { recursive: true });
  assert.ok((await repository.restore("latest", join(root, "torn"))).proof?.receipt !== null);
});
