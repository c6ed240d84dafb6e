import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { startRadosgw } from "../../test/fixtures/radosgw.ts";
import { startSshServer } from "../../test/fixtures/ssh-server.ts";
import type { Line } from "./line.ts";
import type { Place } from "./stores.ts";

/** A real server on this machine that can hold repositories. */
export interface FarServer {
  /** On 127.0.0.1. */
  readonly port: number;
  readonly isHttp: boolean;
  /** Returns the places of a repository for both programs, over a line. */
  places(line: Line, name: string): { cairn: Place; restic: Place };
  /** Counts all requests and the writing requests since the last `forgetRequests()`. */
  requests(line: Line): { all: number; writing: number };
  forgetRequests(line: Line): void;
  close(): Promise<void>;
}

/** Starts Debian's radosgw with one bucket, or returns the reason why that is impossible. */
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

/** Starts Debian's OpenSSH server, whose SFTP part logs its requests. */
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
