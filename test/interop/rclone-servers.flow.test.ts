import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import net, { type AddressInfo } from "node:net";
import os from "node:os";
import path from "node:path";
import { after, test } from "node:test";
import { setTimeout } from "node:timers/promises";
import { RestStorage } from "../../src/repository/storage/rest/rest.ts";
import { parseS3Location } from "../../src/repository/storage/s3/location.ts";
import { S3Storage } from "../../src/repository/storage/s3/s3.ts";
import { openSftpStorage } from "../../src/repository/storage/sftp/sftp.ts";
import { storageContract } from "../../src/repository/storage/storage.contract.ts";
import type { Storage } from "../../src/repository/storage/storage.ts";
import { findPeer } from "../fixtures/peers.ts";
import { makeKey } from "../fixtures/ssh-server.ts";

/** The storages on servers that are neither OpenSSH, nor Ceph, nor our own: rclone has one of each kind. */

const CREDENTIALS = { accessKeyId: "ALICE", secretAccessKey: "very/secret+key" };
const BUCKET = "bucket";

/** Debian's 1.60 takes a missing folder for an empty one, and has no `serve s3`. */
const rclone = findPeer("rclone", "1.75.0");
const scratch = fs.mkdtempSync(path.join(fs.realpathSync(os.tmpdir()), "cairn-rclone-"));
const running: ChildProcess[] = [];
const opened: Storage[] = [];
after(async () => {
  for (const storage of opened) await storage.close?.();
  for (const server of running) server.kill();
  fs.rmSync(scratch, { recursive: true, force: true });
});

if ("reason" in rclone) test("storages on rclone's servers", (t) => t.skip(rclone.reason));
else {
  const { program } = rclone;
  const rest = await serve(program, "restic", []);
  storageContract(
    "rest, rclone's server",
    async (folder) =>
      kept(await RestStorage.create(`rest:http://127.0.0.1:${rest.port}/${path.basename(folder)}/`, {})),
    (folder) => path.join(rest.folder, path.basename(folder)),
  );

  const s3 = await serve(program, "s3", ["--auth-key", `${CREDENTIALS.accessKeyId},${CREDENTIALS.secretAccessKey}`]);
  fs.mkdirSync(path.join(s3.folder, BUCKET));
  storageContract(
    "s3, rclone's server",
    async (folder) => {
      const place = parseS3Location(`http://127.0.0.1:${s3.port}/${BUCKET}/${path.basename(folder)}`);
      return kept(await S3Storage.open({ place, credentials: CREDENTIALS }));
    },
    (folder) => path.join(s3.folder, BUCKET, path.basename(folder)),
  );

  const key = path.join(scratch, "key");
  makeKey(key);
  const sftp = await serve(program, "sftp", ["--authorized-keys", `${key}.pub`]);
  const home = path.join(scratch, "home");
  fs.mkdirSync(path.join(home, ".ssh"), { recursive: true });
  const known = spawnSync("ssh-keyscan", ["-p", String(sftp.port), "127.0.0.1"], { encoding: "utf8" }).stdout;
  fs.writeFileSync(path.join(home, ".ssh/known_hosts"), known);
  storageContract(
    "sftp, rclone's server",
    async (folder) => {
      const ssh = `ssh -F none -i ${key} -o IdentitiesOnly=yes -o UserKnownHostsFile=${home}/.ssh/known_hosts`;
      const env = { ...process.env, CAIRN_SSH_COMMAND: ssh };
      const where = `//alice@127.0.0.1:${sftp.port}//${path.basename(folder)}`;
      return kept(await openSftpStorage(where, { create: true, env }));
    },
    (folder) => path.join(sftp.folder, path.basename(folder)),
  );
}

function kept<T extends Storage>(storage: T): T {
  opened.push(storage);
  return storage;
}

async function serve(
  program: string,
  kind: "restic" | "s3" | "sftp",
  more: readonly string[],
): Promise<{ port: number; folder: string }> {
  const folder = path.join(scratch, kind);
  fs.mkdirSync(folder);
  const port = await freePort();
  // Without this mode its servers write only from the beginning on.
  const mode = ["--vfs-cache-mode", "writes", "--vfs-write-back", "0", "--cache-dir", path.join(scratch, "cache")];
  const places = ["--config", "", "--addr", `127.0.0.1:${port}`];
  const args = ["serve", kind, folder, ...places, ...(kind === "restic" ? [] : mode), ...more];
  running.push(spawn(program, args, { stdio: "ignore" }));
  for (let tries = 0; !(await answers(port)); tries++) {
    if (tries > 100) throw new Error(`rclone serve ${kind} does not answer`);
    await setTimeout(100);
  }
  return { port, folder };
}

async function freePort(): Promise<number> {
  const server = net.createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  return port;
}

async function answers(port: number): Promise<boolean> {
  const socket = net.connect(port, "127.0.0.1");
  try {
    await once(socket, "connect");
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}
