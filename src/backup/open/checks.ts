import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { isAbsolute, join } from "node:path";
import type { CheckedProbe } from "../../contract/snapshots.ts";
import { CairnError, toCairnError } from "../../errors.ts";
import { latin1 } from "../../formats/bytes.ts";
import {
  decodeChecks,
  MOST_COMMAND,
  MOST_OUTPUT,
  MOST_PROBES,
  type ProbeRecord,
  type SnapshotChecks,
} from "../../formats/records/checks.ts";
import { durableMkdir, durableWrite } from "../../fs/durable.ts";
import { runShell, type ShellEnd } from "../../fs/shell-command.ts";
import { userStateDirectory } from "../../fs/users.ts";
import type { ListedSnapshot } from "../../repository/repository.ts";
import type { BlobSource } from "../../repository/read/blob-source.ts";
import { ownerBesidesUs, requireOwnHome } from "../../workspace/place/owners.ts";
import { CHECKS_NAME } from "../../formats/records/manifest.ts";
import { nodeAt, readFile } from "../../archive/databases/nodes.ts";
import { isMadeByUs } from "./snapshots.ts";

const MOST_BYTES = 64 << 20;
const TIME_LIMIT_MS = 10 * 60_000;

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
    const file = await nodeAt(reader, Buffer.from(snapshot.tree, "hex"), [".cairn", CHECKS_NAME]);
    if (file === undefined) return null;
    return decodeChecks(await readFile(reader, file, { title: "the file of the snapshot's checks", most: MOST_BYTES }));
  } catch (error) {
    const { code, message } = toCairnError(error);
    if (onWarning === undefined || (code !== "damaged" && code !== "newer_version")) throw error;
    onWarning(
      `the probes and queries of the snapshot cannot be read, so the restored copy is not asked them: ${message}`,
    );
    return null;
  }
}

/** Says whether a restored copy gives a probe's answer; null: it was not asked. */
export function checkedProbe({ command, output_b64: output }: ProbeRecord, equal: boolean | null): CheckedProbe {
  const sha256 = createHash("sha256").update(Buffer.from(output, "base64")).digest("hex");
  return { command, output_sha256: sha256, equal };
}

/** Throws `usage` for too many probes, and for an empty or too long one. */
export function checkProbes(probes: readonly string[]): void {
  if (probes.length > MOST_PROBES)
    throw new CairnError("usage", `a backup has at most ${MOST_PROBES} probes; found ${probes.length}`);
  if (probes.some((probe) => probe.length > MOST_COMMAND))
    throw new CairnError("usage", `a probe has at most ${MOST_COMMAND} characters; put a longer one into a script`);
  if (probes.some((probe) => probe.trim() === "" || probe.includes("\0")))
    throw new CairnError("usage", "a probe is a command for the shell, and not empty");
}

export interface RanProbe {
  record: ProbeRecord;
  /** The failure of the command; null if its exit status is 0. */
  failure: string | null;
}

/** Runs a probe on a copy of a saved folder, which the probe may change. Throws `interrupted`. */
export async function runProbe(command: string, folder: string, signal: AbortSignal | undefined): Promise<RanProbe> {
  const path = (process.env["PATH"] ?? "").split(":").filter(isAbsolute).join(":");
  const { HOME, USER, LOGNAME, TMPDIR, LD_LIBRARY_PATH } = process.env;
  // Answers must not depend on the machine's language and time, nor get this process's passwords.
  const env = { HOME, USER, LOGNAME, TMPDIR, LD_LIBRARY_PATH, LC_ALL: "C.UTF-8", TZ: "UTC", DIR: folder };
  const onlyEnv = { ...env, PATH: path || "/usr/local/bin:/usr/bin:/bin" };
  const limits = { timeoutMs: TIME_LIMIT_MS, mostBytes: MOST_OUTPUT, isAnswer: true, awaitsChildren: true };
  const end = await runShell(command, { ...limits, onlyEnv, signal });
  const isStopped = end.isTimedOut || end.isTooLong;
  const text = latin1(end.output).replaceAll(latin1(Buffer.from(folder)), "$DIR");
  const output_b64 = isStopped ? "" : Buffer.from(text, "latin1").toString("base64");
  return { record: { command, status: end.exitCode, output_b64 }, failure: failureOf(end) };
}

function failureOf({ exitCode, isTimedOut, child, isTooLong, said }: ShellEnd): string | null {
  if (exitCode === 0) return null;
  const reason = said.trim() === "" ? "" : `: ${said.trim()}`;
  const still = child === null ? "" : `: its child ${child} still ran`;
  if (isTimedOut) return `did not end within ${TIME_LIMIT_MS / 60_000} minutes${still}${reason}`;
  if (isTooLong) return `printed more than ${MOST_OUTPUT / 1024} KiB`;
  return `${exitCode === null ? "was ended by a signal" : `ended with status ${exitCode}`}${reason}`;
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
