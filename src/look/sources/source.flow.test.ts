import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { describe, type TestContext } from "node:test";
import { heldPlace, type HoldingEngine } from "../../../test/fixtures/held-place.ts";
import type { LoopKind } from "../../../test/fixtures/loop-file-system.ts";
import { sshServer } from "../../../test/fixtures/ssh-server.ts";
import { serve } from "../../api/repository-server/testing-server.ts";
import { backupScene, SCHEMES } from "../../backup/testing-far.ts";
import { makeRepository } from "../../backup/testing-repository.ts";
import { testFolder } from "../../keep/testing-folder.ts";
import { TestingS3Server } from "../../repository/storage/s3/testing-s3-server.ts";
import { fillSource, sourceContract, type SourceScene } from "./source.contract.ts";

/** Every kind of source keeps the contract of all sources. */

describe("folders", () => {
  sourceContract("the present folder", async (t) => {
    const { folder, client } = await testFolder(t);
    fillSource(folder);
    return { client, folder, now: ".", operand: "." };
  });

  sourceContract("the folder of another workspace", async (t) => {
    const { root, library, client } = await testFolder(t);
    const folder = join(root, "other");
    mkdirSync(folder);
    fillSource(folder);
    await library.init(folder);
    return { client, folder, now: folder, operand: folder };
  });
});

describe("points", () => {
  sourceContract("a point of the engine copy", async (t) => {
    const { folder, client } = await testFolder(t);
    fillSource(folder);
    await client.save();
    return { client, folder, now: ".", operand: "latest" };
  });

  sourceContract("a point of another workspace", async (t) => {
    const { root, folder, library, client } = await testFolder(t);
    fillSource(folder);
    await client.save();
    const fork = join(root, "fork");
    await client.fork("latest", fork);
    const operand = `${client.workspace.name}:latest`;
    return { client: await library.open(fork), folder, now: folder, operand };
  });

  for (const [engine, kind] of [
    ["btrfs-snapshot", "btrfs"],
    ["reflink-copy", "xfs"],
    ["reflink-copy", "btrfs"],
  ] as const)
    sourceContract(`a point of the engine ${engine} on ${kind}`, async (t) => heldPoint(t, engine, kind));
});

async function heldPoint(t: TestContext, engine: HoldingEngine, kind: LoopKind): Promise<SourceScene | null> {
  const place = await heldPlace(t, { engine, kind, fill: fillSource });
  if (place === null) return null;
  const { client, folder } = place;
  await client.save();
  return { client, folder, now: ".", operand: "latest" };
}

describe("snapshots", () => {
  for (const scheme of SCHEMES)
    sourceContract(`a snapshot on a storage that is ${scheme}`, async (t) => {
      const { root, library, repository } = await backupScene(t, scheme);
      const folder = join(root, "filled");
      mkdirSync(folder);
      fillSource(folder);
      const client = await library.init(folder);
      await client.createBackup(repository, { save: true });
      return { client, folder, now: ".", operand: "backup:latest", options: { repository } };
    });

  sourceContract("a snapshot on a REST server", async (t) => {
    const { server } = await serve(t, { maximumFileBytes: 1 << 30 });
    return snapshotAt(t, `rest:${server.url}r/`);
  });

  sourceContract("a snapshot on an SFTP server", async (t) => {
    const server = await sshServer(t);
    return server === null
      ? null
      : snapshotAt(t, `sftp:${server.location("repository")}`, { CAIRN_SSH_COMMAND: server.command() });
  });

  sourceContract("a snapshot on an S3 server", async (t) => {
    const server = await TestingS3Server.start({ accessKeyId: "AKIDTEST", secretAccessKey: "secret" });
    t.after(() => server.stop());
    const env = { AWS_ACCESS_KEY_ID: "AKIDTEST", AWS_SECRET_ACCESS_KEY: "secret" };
    return snapshotAt(t, `s3:${server.address}/repository`, env);
  });
});

/** A snapshot of a filled folder in a new repository. */
async function snapshotAt(
  t: TestContext,
  location: string,
  more: Readonly<Record<string, string>> = {},
): Promise<SourceScene> {
  const { root, folder, library, client } = await testFolder(t);
  fillSource(folder);
  const env = { ...process.env, ...more, XDG_CACHE_HOME: join(root, "cache") };
  const given = { repository: location, password: "correct horse", env };
  await makeRepository(given);
  const repository = await library.openRepository(given);
  t.after(async () => repository.close());
  await client.createBackup(repository, { save: true });
  return { client, folder, now: ".", operand: "backup:latest", options: { repository } };
}
