import fs from "node:fs";
import { probeNewSubvolume } from "../engines/tree/probe.ts";
import { STAGING_NAME } from "../engines/scan/task.ts";
import { findObstacles } from "../engines/tree/walk-entries.ts";
import type { GuardName } from "../contract/index.ts";
import { CairnError, toCairnError } from "../errors.ts";
import { isSubvolume } from "../fs/btrfs.ts";
import { parentOf } from "../fs/exchange-folders.ts";
import { boundSockets, mountedElsewhere, swapFiles } from "../fs/folder-ties.ts";
import { findHolders, WHY_UNKNOWN } from "../fs/holders.ts";
import { filesystemKind, isMountPoint, mountsInside, readMounts } from "../fs/mounts.ts";
import { listedNames, printablePath } from "../fs/safe-path.ts";
import { checkSpace, controlDirectoriesInside } from "./guards.ts";

/** What keeps a folder from being converted in place, each named with what would help. */

export interface ConvertChecks {
  /** a folder on the way to where the points are or will be */
  place: string;
  allow?: readonly GuardName[] | undefined;
  signal?: AbortSignal | undefined;
}

const HOLDERS_BUDGET_MS = 2000;

/** True for a folder that lies on btrfs and is no subvolume: what a conversion is for. */
export function isPlainOnBtrfs(folder: Buffer): boolean {
  return filesystemKind(folder).name === "btrfs" && !isSubvolume(folder);
}

/**
 * Looks at everything that speaks against converting a folder (its real path). Changes nothing but for a probe beside
 * the points. Throws `refused`, `permission`, `unsupported`, `no_space`.
 */
export async function requireConvertible(folder: Buffer, checks: ConvertChecks): Promise<void> {
  requirePlace(folder);
  requireRights(folder);
  checkSpace(parentOf(folder).toString("utf8"), 0, { allow: checks.allow });
  const answer = await probeNewSubvolume({ folder, place: checks.place, signal: checks.signal });
  if (answer !== null)
    throw new CairnError("unsupported", `${shown(folder)} cannot be held by snapshots: ${answer.reason}`, {
      hint: answer.hint ?? "keep it with another engine: `cairn engine show` says which work there",
    });
  requireNoHolders(folder, checks.allow);
  const { subvolumes, fixed } = await findObstacles(folder, checks.signal);
  if (subvolumes.length > 0)
    throw refusal(folder, `there are subvolumes inside: ${listed(subvolumes)}`, {
      hint: "a snapshot does not hold them: make plain folders of them, move them out, or keep the folder with another engine",
    });
  if (fixed.length > 0)
    throw refusal(folder, `nobody may change ${listed(fixed)} (immutable or append-only)`, {
      hint: "take the attribute away (chattr -i -a), convert, and give it back",
    });
}

/** What lies there, is mounted there, or shows the folder elsewhere. */
function requirePlace(folder: Buffer): void {
  const mounts = readMounts();
  if (isMountPoint(folder, mounts))
    throw refusal(folder, "something is mounted at it", {
      hint: "convert the folder where it lies itself, with nothing mounted at it",
    });
  const inside = mountsInside(folder, mounts).map(({ mountPoint }) => mountPoint);
  if (inside.length > 0)
    throw refusal(folder, `something is mounted inside: ${listed(inside)}`, { hint: "unmount it first" });
  const shownElsewhere = mountedElsewhere(folder, mounts);
  if (shownElsewhere.length > 0)
    throw refusal(
      folder,
      `it is mounted a second time, at ${listed(shownElsewhere)}, where the old folder would stay`,
      {
        hint: "unmount that first, and mount it again afterwards",
      },
    );
  const sockets = boundSockets(folder);
  if (sockets.length > 0)
    throw refusal(folder, `a program listens on ${listed(sockets)}, and nobody would reach it any more`, {
      hint: "end that program, and start it again afterwards",
    });
  const swap = swapFiles(folder);
  if (swap.length > 0)
    throw refusal(folder, `the system swaps to ${listed(swap)}`, { hint: "turn that off with swapoff first" });
  const [control] = controlDirectoriesInside(folder);
  if (control !== undefined)
    throw refusal(folder, `the control directory ${control} lies inside`, {
      hint: "keep the points outside the folder: --control-dir",
    });
  const [staging] = fs.readdirSync(folder).filter((name) => STAGING_NAME.test(name));
  if (staging !== undefined)
    throw refusal(folder, `${staging} lies in it, which an interrupted restore of another workspace left`, {
      hint: "look what it is and move it away",
    });
}

function requireRights(folder: Buffer): void {
  const parent = parentOf(folder);
  try {
    fs.accessSync(parent, fs.constants.W_OK | fs.constants.X_OK);
  } catch (error) {
    throw new CairnError(
      "permission",
      `${shown(parent)} cannot be written to, and the subvolume has to be made there`,
      {
        hint: "convert as root, or as a user who may write to that folder",
        cause: toCairnError(error),
      },
    );
  }
  const { uid } = fs.lstatSync(folder);
  const user = process.geteuid?.() ?? 0;
  if (user === 0 || uid === user) return;
  throw new CairnError(
    "permission",
    `${shown(folder)} belongs to the user ${uid}, and only its owner and root may snapshot it`,
    {
      hint: "convert as its owner or as root",
    },
  );
}

/** Whoever has the folder or something in it open would go on in the original; what cannot be known is refused unless allowed. */
export function requireNoHolders(folder: Buffer, allow: readonly GuardName[] | undefined): void {
  const { holders, unknown } = findHolders(folder, { budgetMs: HOLDERS_BUDGET_MS });
  if (holders.length > 0) {
    const processes = [...new Map(holders.map((each) => [each.pid, each])).values()];
    const named = processes.map(({ pid, command, kind, path }) => {
      const what = kind === "cwd" ? "works in" : "has open";
      return `process ${pid} (${command}) ${what} ${path.length === 0 ? "it" : printablePath(path)}`;
    });
    throw refusal(folder, listedNames(named, "; "), {
      hint: "end these processes, or have them leave the folder (a shell: cd), and try again",
      details: { holders: processes.map(({ pid, command }) => ({ pid, command })) },
    });
  }
  if (unknown.length === 0 || allow?.includes("holders") === true) return;
  const why = unknown.map((each) => WHY_UNKNOWN[each]).join("; ");
  throw refusal(folder, `whether a process has something in it open cannot be known: ${why}`, {
    hint: "when you know that nobody works in it, go on with --allow holders",
    details: { guard: "holders" },
  });
}

function refusal(
  folder: Buffer,
  reason: string,
  options: { hint: string; details?: Record<string, unknown> },
): CairnError {
  return new CairnError("refused", `${shown(folder)} is not converted: ${reason}`, options);
}

function shown(path: Buffer): string {
  return printablePath(path);
}

function listed(paths: readonly Buffer[]): string {
  return listedNames(paths.map(shown));
}
