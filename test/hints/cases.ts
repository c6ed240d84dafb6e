import type { ErrorCode } from "../../src/errors.ts";
import { FOLDERS } from "./folders.ts";
import type { HintCase } from "./hint-case.ts";
import { POINTS } from "./points.ts";
import { REPOSITORIES } from "./repositories.ts";
import { ROOMS } from "./rooms.ts";

export const HINT_CASES: readonly HintCase[] = [...FOLDERS, ...POINTS, ...REPOSITORIES, ...ROOMS];

/** Reasons that no command of a fresh folder brings about. */
export interface NotWalked {
  code: ErrorCode;
  reason: string;
  why: string;
}

export const NOT_WALKED: readonly NotWalked[] = [
  {
    code: "internal",
    reason: "a defect of Cairn",
    why: "no command brings it about on purpose; `CAIRN_DEBUG=1` prints the place of the failure for a report",
  },
  {
    code: "incomplete",
    reason: "an entry of a point cannot be written into an export",
    why: "a file system has to refuse one of the entries",
  },
  {
    code: "overdue",
    reason: "the last save, backup or proof is older than its limit",
    why: "a daemon's schedule has to pass first; `test/flows/schedules.flow.test.ts` has one",
  },
  {
    code: "permission",
    reason: "root's daemon keeps the folder, or a token does not reach it",
    why: "it needs the daemon of root and a second user; `test/flows/tokens.flow.test.ts` and `test/flows/other-owners.flow.test.ts` have both",
  },
  {
    code: "busy",
    reason: "another daemon, server or restore is at work",
    why: "two processes have to meet; `test/concurrency/` makes them",
  },
  {
    code: "conflict",
    reason: "a program changes the folder in the middle of an operation",
    why: "only a program that writes at that moment causes it; `test/fuzz/` has some",
  },
  {
    code: "io",
    reason: "a disk, a network or a server fails",
    why: "it needs a failing device or server; `test/flows/io-errors.flow.test.ts` has them",
  },
  {
    code: "no_space",
    reason: "the disk is full",
    why: "it needs a full file system; `test/flows/full-disk.flow.test.ts` fills one",
  },
  {
    code: "refused",
    reason: "the disk of a folder is not mounted",
    why: "it needs a disk of its own; `test/flows/unmounted.flow.test.ts` has one",
  },
  {
    code: "unsupported",
    reason: "this Node, kernel or file system lacks something",
    why: "it needs another machine; `test/flows/weak-file-system.flow.test.ts` and `test/package/` imitate some",
  },
];
