import { append } from "../../append.ts";
import type { PointToVerify, StoreFinding } from "../store/store-care.ts";
import { type CairnError, cannotBeWritten, throwIfAborted, toCairnError } from "../../errors.ts";
import type { VerificationFile, VerificationProblem } from "../../formats/records/control.ts";
import { acquireLock } from "../../fs/lock.ts";
import { displayPath } from "../../fs/paths/safe-path.ts";
import type { SavePointId } from "../../ids.ts";
import { neverRead, type Point } from "../points/point-files.ts";
import { allPoints, Points } from "../points/points.ts";
import { MISREAD_TREE } from "../points/held-trees.ts";
import { isAboutThePoint, type SealProblem, whyUnsealed } from "../save/seal.ts";
import type { UnverifiedPoint, VerifyProblem } from "../../contract/looking.ts";
import type { Workspace, WorkspaceCall } from "../open/workspace.ts";
import { type ExaminedStore, verifyStore } from "../store/verify-store.ts";
import { descriptorFinding, type RecordFinding, unreadableState, workspaceFindings } from "./doctor-points.ts";
import { type HeldPoint, verifyTrees } from "./verify-trees.ts";

export interface VerifyInput extends WorkspaceCall {
  /** Also hashes large files as a whole, and reads the trees of sealed points. */
  deep?: boolean | undefined;
  /** Reasons why points could not be sealed just now, by workspace name. */
  unsealed?: ReadonlyMap<string, readonly SealProblem[]> | undefined;
  /**
   * The number of each workspace's newest point at the beginning of the verification, by name. Later points are left
   * out. Absent: every point is verified.
   */
  newest?: ReadonlyMap<string, number> | undefined;
  /** The caller holds the lock of its workspace already. */
  lockHeld?: boolean | undefined;
}

/** The result of a verification. Damage is a result, not an exception. */
export interface Verified {
  checked: { points: number; files: number; bytes: number };
  problems: VerifyProblem[];
  unverified: UnverifiedPoint[];
}

/** Reads a whole point: its descriptor and content, and computes its digests again. */
export async function verifyPoint(workspace: Workspace, target: string, input: VerifyInput): Promise<Verified> {
  let point: Point;
  try {
    point = workspace.resolveOwn(target);
  } catch (error) {
    const problem = toCairnError(error);
    if (problem.code !== "damaged") throw problem;
    return { ...NOTHING_CHECKED, problems: [verifyProblem(descriptorFinding({ id: null, problem }))] };
  }
  if (!point.sealed) {
    const problem = whyUnsealed(workspace.points, point, input.unsealed?.get(workspace.found.workspace.name) ?? []);
    if (problem === null) throw neverRead(point);
    if (cannotBeWritten(problem)) throw problem;
  }
  return verifyHeld(workspace, [{ point, paths: workspace.found.paths }], input);
}

/** Verifies points of any workspaces of the control directory. */
export async function verifyHeld(
  workspace: Workspace,
  held: readonly HeldPoint[],
  input: VerifyInput,
): Promise<Verified> {
  return new Verification(workspace, input).run(held, false);
}

/** Verifies every point of every workspace of the control directory, and the store itself. */
export async function verifyAll(workspace: Workspace, input: VerifyInput): Promise<Verified> {
  const held: HeldPoint[] = [];
  const { control } = workspace.found;
  const records: RecordFinding[] = [...workspaceFindings(control)];
  for (const { name, workspace: each, paths, points } of allPoints(control)) {
    const list = points.list();
    const newest = input.newest === undefined ? Infinity : (input.newest.get(name) ?? 0);
    const asked = list.points.filter(({ sequence }) => sequence <= newest);
    append(
      held,
      asked.map((point) => ({ point, paths })),
    );
    if (each !== null) append(records, Array.from(unreadableState(paths), ofWorkspace));
    append(records, list.damaged.map(descriptorFinding));
  }
  const verified = await new Verification(workspace, input).run(held, true);
  return { ...verified, problems: [...records.map(verifyProblem), ...verified.problems] };
}

/** Throws if the state file is not damaged: a newer version wrote it, or this user may not read it. */
function ofWorkspace(finding: RecordFinding): RecordFinding {
  if (finding.problem.code !== "damaged") throw finding.problem;
  return { ...finding, kind: "workspace" };
}

function hintOf(error: CairnError): string {
  return error.hint ?? SEE_DOCTOR;
}

class Verification {
  readonly #workspace: Workspace;
  readonly #input: VerifyInput;

  constructor(workspace: Workspace, input: VerifyInput) {
    this.#workspace = workspace;
    this.#input = input;
  }

  async run(held: readonly HeldPoint[], everything: boolean): Promise<Verified> {
    const { signal, deep } = this.#input;
    throwIfAborted(signal);
    let verification: ExaminedStore;
    try {
      verification = await verifyStore(this.#workspace.found.control.root, {
        points: held.filter(({ point }) => point.sealed).map(({ point }) => pointToVerify(point)),
        everything,
        deep,
        signal,
        onProgress: (progress) => this.#input.onProgress?.({ phase: "verifying", ...progress }),
      });
    } catch (error) {
      const problem = toCairnError(error);
      if (problem.code !== "damaged" && problem.code !== "not_found") throw problem;
      return {
        ...NOTHING_CHECKED,
        problems: [{ point: null, kind: "store", detail: problem.message, hint: hintOf(problem) }],
      };
    }
    const unsealed = held.filter(({ point }) => !point.sealed).map((each) => this.#unsealed(each));
    const problems: VerifyProblem[] = deep === true ? await verifyTrees(this.#workspace, held, this.#input) : [];
    append(problems, verification.findings.map(verifyProblem));
    append(
      problems,
      unsealed.flatMap(({ problem }) => problem ?? []),
    );
    await this.#record(held, problems);
    if (verification.more > 0) {
      problems.push({
        point: null,
        kind: "store",
        detail: `${verification.more} further problems are not listed`,
        hint: "repair the listed problems, then verify again",
      });
    }
    const sum = (of: "files" | "bytes"): number =>
      verification.verdicts.reduce((total, verdict) => total + verdict[of], 0);
    return {
      checked: { points: verification.verdicts.length, files: sum("files"), bytes: sum("bytes") },
      problems,
      unverified: unsealed.flatMap(({ unverified }) => unverified ?? []),
    };
  }

  /**
   * Judges an unsealed point, whose content cannot be verified. A problem of its tree is a problem of the point.
   * Waiting for a lock or for a writable file system is no problem.
   */
  #unsealed({ point, paths }: HeldPoint): { problem?: VerifyProblem; unverified?: UnverifiedPoint } {
    const { save_point_id: id, workspace_name: name } = point.descriptor;
    const problem = whyUnsealed(new Points(paths), point, this.#input.unsealed?.get(name) ?? []);
    if (problem === null) {
      const detail = `the point ${id} is not sealed, so its content was not verified`;
      return { unverified: { point: id, workspace_name: name, detail, hint: "run `cairn seal`, then verify again" } };
    }
    const found = { point: id, detail: problem.message, hint: hintOf(problem) };
    return isAboutThePoint(problem)
      ? { problem: { ...found, kind: "tree" } }
      : { unverified: { ...found, workspace_name: name } };
  }

  /** Records the findings beside each point. A failure is a warning only: the findings stay. */
  async #record(held: readonly HeldPoint[], problems: readonly VerifyProblem[]): Promise<void> {
    try {
      this.#workspace.requireNotOthers();
    } catch (error) {
      return this.#input.onWarning?.(`the result of the verification is not recorded: ${toCairnError(error).message}`);
    }
    const byPoint = Map.groupBy(problems, (problem) => problem.point);
    const at = new Date().toISOString();
    for (const [paths, group] of Map.groupBy(held, (each) => each.paths)) {
      try {
        const held = this.#input.lockHeld === true && paths.lock === this.#workspace.found.paths.lock;
        using _lock = held ? null : await acquireLock(paths.lock, { purpose: "verify", timeoutMs: RECORD_WAIT_MS });
        const points = new Points(paths);
        const present = new Set(points.committed());
        for (const { point } of group) {
          if (!point.sealed && !byPoint.has(point.descriptor.save_point_id)) continue;
          // Problems of a held tree are recorded beside the tree: the store still has the point.
          const own = (byPoint.get(point.descriptor.save_point_id) ?? []).filter(({ kind }) => kind !== MISREAD_TREE);
          const record: VerificationFile = { at, ok: own.length === 0, problems: own.slice(0, RECORDED).map(recorded) };
          if (present.has(point.sequence)) points.writeVerification(point.sequence, record);
        }
      } catch (error) {
        this.#input.onWarning?.(`the result of the verification could not be recorded: ${toCairnError(error).message}`);
      }
    }
  }
}

const NOTHING_CHECKED = { checked: { points: 0, files: 0, bytes: 0 }, unverified: [] };
const SEE_DOCTOR = "run `cairn doctor` to see which damage can be repaired";
/** Milliseconds to wait for another process's lock before the record is skipped. */
const RECORD_WAIT_MS = 1000;
/** The most problems in a point's record. */
const RECORDED = 1000;

/** Returns a sealed point as the store knows it. */
export function pointToVerify({ descriptor }: Pick<Point, "descriptor">): PointToVerify & { createdAt: string } {
  return {
    id: descriptor.save_point_id,
    createdAt: descriptor.created_at,
    content: descriptor.content as unknown as PointToVerify["content"],
    stateDigest: descriptor.state_digest,
    metadataDigest: descriptor.metadata_digest,
  };
}

function verifyProblem({
  point,
  path,
  kind,
  detail,
  hint,
  problem,
}: StoreFinding & { problem?: CairnError }): VerifyProblem {
  const shown = path === undefined || path.length === 0 ? {} : displayPath(path);
  return {
    point: (point as SavePointId | undefined) ?? null,
    ...shown,
    kind,
    detail,
    hint: hint ?? problem?.hint ?? SEE_DOCTOR,
  };
}

function recorded({ point: _point, hint: _hint, ...problem }: VerifyProblem): VerificationProblem {
  return problem;
}
