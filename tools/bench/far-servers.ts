import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { startRadosgw } from "../../test/fixtures/radosgw.ts";
import { startSshServer } from "../../test/fixtures/ssh-server.ts";
import type { Line } from "./line.ts";
import type { Place } from "./stores.ts";

/** A real server of this machine that repositories can be on. */
export interface FarServer {
  /** On 127.0.0.1. */
  readonly port: number;
  readonly isHttp: boolean;
  /** The repository of that name for each program, over a line. */
  places(line: Line, name: string): { cairn: Place; restic: Place };
  /** How many requests there were, and how many of them write, since the last call that forgot them. */
  requests(line: Line): { all: number; writing: number };
  forgetRequests(line: Line): void;
  close(): Promise<void>;
}

/** Debian's radosgw with one bucket; or why there can be none here. */
export async function startS3(): Promise<FarServer | { reason: string }> {
  const server = await startRadosgw();
  if ("reason" in server) return server;
  await server.makeBucket("bench");
  const { env } = server;
  return {
    port: Number(new URL(server.endpoint).port),
    isHttp: true,
    places: ({ host, port }, name) => {
      const place = { location: `s3:http://${host}:${port}/bench/${name}`, env };
      return { cairn: place, restic: place };
    },
    requests: (line) => {
      const lines = line.requests();
      if (lines.some((each) => each.startsWith("UNCOUNTED"))) return { all: Number.NaN, writing: Number.NaN };
      return { all: lines.length, writing: lines.filter((each) => /^(PUT|POST|DELETE) /.test(each)).length };
    },
    forgetRequests: (line) => line.forgetRequests(),
    close: () => server.close(),
  };
}

const SFTP_SERVER = "/usr/lib/openssh/sftp-server";
const WRITING =
  /request \d+: (write|remove|rename|mkdir|rmdir|setstat|fsetstat|symlink|posix-rename|link|fsync|hardlink)/;

/** Debian's OpenSSH server; its SFTP part writes down what it was asked. */
export async function startSftp(folder: string): Promise<FarServer | { reason: string }> {
  mkdirSync(folder, { recursive: true });
  const log = path.join(folder, "sftp-requests");
  writeFileSync(log, "");
  const server = await startSshServer({ settings: [`ForceCommand exec ${SFTP_SERVER} -e -l DEBUG3 2>>${log}`] });
  if ("reason" in server) return server;
  const key = path.join(server.home, ".ssh/id_ed25519");
  const known = path.join(folder, "known_hosts");
  return {
    port: server.port,
    isHttp: false,
    places: ({ host, port }, name) => {
      const hostKey = server.knownHosts().split(" ").slice(1).join(" ");
      writeFileSync(known, `[${host}]:${port} ${hostKey}`);
      const at = path.join(server.folder, name);
      const ssh = `ssh -i ${key} -o UserKnownHostsFile=${known} -o IdentitiesOnly=yes`;
      return {
        cairn: {
          location: `sftp://${server.user}@${host}:${port}/${at}`,
          env: { CAIRN_SSH_COMMAND: ssh },
        },
        restic: {
          location: `sftp:${server.user}@${host}:${at}`,
          args: ["-o", `sftp.command=${ssh} -p ${port} ${server.user}@${host} -s sftp`],
        },
      };
    },
    requests: () => {
      const lines = readFileSync(log, "latin1")
        .split("\n")
        .filter((line) => /request \d+: /.test(line));
      return { all: lines.length, writing: lines.filter((line) => WRITING.test(line)).length };
    },
    forgetRequests: () => writeFileSync(log, ""),
    close: () => server.close(),
  };
}
