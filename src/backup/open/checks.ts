import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { isAbsolute, join } from "node:path";
import type { CheckedProbe } from "../../contract/snapshots.ts";
import { CairnError, toCairnError } from "../../errors.ts";
import {
  decodeChecks,
  encodeChecks,
  MOST_OUTPUT,
  MOST_PROBES,
  type ProbeRecord,
  type SnapshotChecks,
} from "../../formats/records/checks.ts";
import { durableMkdir, durableWrite } from "../../fs/durable.ts";
import { runShell, type ShellEnd } from "../../fs/shell-command.ts";
import { userStateDirectory } from "../../fs/users.ts";
import { DATA_BLOB } from "../../repository/index/blob-index.ts";
import type { ListedSnapshot } from "../../repository/repository.ts";
import type { BlobSource } from "../../repository/read/blob-source.ts";
import { ownerBesidesUs, requireOwnHome } from "../../workspace/place/owners.ts";
import { CHECKS_NAME } from "../../archive/write/made-nodes.ts";
import { manifestPieces } from "../../workspace/store/snapshot-tree.ts";
import { nameOf, readBlob, readNodes } from "../../archive/databases/nodes.ts";
import { isMadeByUs } from "./snapshots.ts";

export type { ProbeRecord, SnapshotChecks };

const MOST_BYTES = 64 << 20;
const TIME_LIMIT_MS = 10 * 60_000;

/** Cuts the file of a snapshot's checks into blobs. */
export function piecesOfChecks(checks: SnapshotChecks): ReturnType<typeof manifestPieces> {
  return manifestPieces(encodeChecks(checks));
}

/**
 * Reads the checks of a snapshot that Cairn made; null if it has none. Throws `damaged`, `newer_version`; with
 * `onWarning` warns instead, because the content may be sound.
 */
export async function readChecks(
  reader: BlobSource,
  { snapshot }: ListedSnapshot,
  onWarning?: (message: string) => void,
): Promise<SnapshotChecks | null> {
  if (!isMadeByUs(snapshot)) return null;
  try {
    const nodes = await readNodes(reader, Buffer.from(snapshot.tree, "hex"));
    const folder = nodes.find((node) => nameOf(node) === ".cairn")?.subtree;
    const own = folder === undefined ? [] : await readNodes(reader, folder);
    const file = own.find((node) => nameOf(node) === CHECKS_NAME);
    if (file?.content === undefined) return null;
    if (file.size > MOST_BYTES) throw new CairnError("damaged", "the snapshot's checks are larger than they can be");
    const parts: Uint8Array[] = [];
    let size = 0;
    for (let at = 0; at < file.content.length; at += 32) {
      const part = await readBlob(reader, file.content.subarray(at, at + 32), DATA_BLOB);
      size += part.length;
      if (size > file.size) throw new CairnError("damaged", "the snapshot's checks are longer than their size");
      parts.push(part);
    }
    return decodeChecks(Buffer.concat(parts));
  } catch (error) {
    const { code, message } = toCairnError(error);
    if (onWarning === undefined || (code !== "damaged" && code !== "newer_version")) throw error;
    onWarning(`the restored copy is not asked what the snapshot's probes and queries asked: ${message}`);
    return null;
  }
}

/** Says whether a restored copy gives a probe's answer; null: it was not asked. */
export function checkedProbe({ command, output_b64: output }: ProbeRecord, equal: boolean | null): CheckedProbe {
  const sha256 = createHash("sha256").update(Buffer.from(output, "base64")).digest("hex");
  return { command, output_sha256: sha256, equal };
}

/** Throws `usage` for an empty probe, and for too many. */
export function checkProbes(probes: readonly string[]): void {
  if (probes.length > MOST_PROBES)
    throw new CairnError("usage", `a backup has at most ${MOST_PROBES} probes; found ${probes.length}`);
  if (probes.some((probe) => probe.trim() === "" || probe.includes("\0")))
    throw new CairnError("usage", "a probe is a command for the shell, and not empty");
}

/** Runs probes one after the other on a copy of a saved folder, which the probes may change. Throws `interrupted`. */
export async function runProbes(
  probes: readonly string[],
  folder: string,
  signal: AbortSignal | undefined,
): Promise<RanProbe[]> {
  const ran: RanProbe[] = [];
  const path = (process.env["PATH"] ?? "").split(":").filter(isAbsolute).join(":");
  const { HOME, USER, LOGNAME, TMPDIR, LD_LIBRARY_PATH } = process.env;
  // Answers must not depend on the machine's language and time, nor get this process's passwords.
  const env = { HOME, USER, LOGNAME, TMPDIR, LD_LIBRARY_PATH, LC_ALL: "C.UTF-8", TZ: "UTC", DIR: folder };
  const onlyEnv = { ...env, PATH: path || "/usr/local/bin:/usr/bin:/bin" };
  const limits = { timeoutMs: TIME_LIMIT_MS, mostBytes: MOST_OUTPUT, isAnswer: true };
  for (const command of new Set(probes)) {
    const end = await runShell(command, { ...limits, onlyEnv, signal });
    const { exitCode: status, output, said } = end;
    const isStopped = end.isTimedOut || end.isTooLong;
    const text = Buffer.from(output).toString("latin1").replaceAll(Buffer.from(folder).toString("latin1"), "$DIR");
    const output_b64 = isStopped ? "" : Buffer.from(text, "latin1").toString("base64");
    ran.push({ record: { command, status, output_b64 }, failure: failureOf(end, said.trim()) });
  }
  return ran;
}

function failureOf({ exitCode, isTimedOut, isTooLong }: ShellEnd, said: string): string | null {
  if (exitCode === 0) return null;
  const reason = said === "" ? "" : `: ${said}`;
  if (isTimedOut) return `did not end within ${TIME_LIMIT_MS / 60_000} minutes${reason}`;
  if (isTooLong) return `printed more than ${MOST_OUTPUT / 1024} KiB`;
  return `${exitCode === null ? "was ended by a signal" : `ended with status ${exitCode}`}${reason}`;
}

export interface RanProbe {
  record: ProbeRecord;
  /** The failure of the command; null if its exit status is 0. */
  failure: string | null;
}

/**
 * Remembers commands that this user gave on this machine. A check of a snapshot runs only remembered commands, because
 * everybody who can write to a repository could put a command there. A failure is a warning.
 */
export function rememberProbes(probes: readonly string[], onWarning: ((message: string) => void) | undefined): void {
  try {
    for (const probe of probes) {
      const place = placeOf(probe);
      if (existsSync(place)) continue;
      requireOwnHome(place);
      durableMkdir(folder());
      durableWrite(place, Buffer.from(probe), { mode: 0o600 });
    }
  } catch (error) {
    onWarning?.(`probes are not remembered, so later checks must name them: ${toCairnError(error).message}`);
  }
}

/** True if this user gave the command on this machine. In another user's home, as with `sudo -E`, that user may have. */
export function isOwnProbe(command: string): boolean {
  const place = placeOf(command);
  return existsSync(place) && [folder(), place].every((each) => ownerBesidesUs(each) === null);
}

function folder(): string {
  return join(userStateDirectory(), "probes");
}

function placeOf(command: string): string {
  return join(folder(), createHash("sha256").update(command).digest("hex"));
}
