import type { ExamineRequest, StoreFinding as Checkup } from "../engines/store-care.ts";
import { throwIfAborted, toCairnError } from "../errors.ts";
import { type Lock, lockHolder } from "../fs/lock.ts";
import { listWorkspaces } from "./control-directory.ts";
import { workspacePaths } from "./control-layout.ts";
import { controlFindings, lockFindings, missingFolderFindings } from "./doctor-control.ts";
import { descriptorFindings, heldFindings, recordFindings, stateFindings } from "./doctor-points.ts";
import { journalFindings } from "./doctor-journal.ts";
import { Points } from "./points.ts";
import { needsRecovery, recoverWorkspace } from "./recovery.ts";
import { type HeldPoint, verifyHeld } from "./verify.ts";
import type { Workspace, WorkspaceCall } from "./workspace.ts";

export interface DoctorInput extends WorkspaceCall {
  /** Do what the findings say; without it nothing is changed. */
  repair?: boolean | undefined;
  /** Take over another host's lock whose holder cannot be judged. */
  breakLocks?: boolean | undefined;
}

export interface Finding {
  kind: string;
  severity: "info" | "warning" | "damage";
  detail: string;
  /** what a repairing run does about it */
  repair?: string;
  /** set by a repairing run */
  repaired?: boolean;
}

export interface Doctored {
  /** No damage is left. */
  healthy: boolean;
  findings: Finding[];
}

/** Kinds without which the store cannot be looked into. */
const CLOSED = new Set(["store", "key", "config"]);

/**
 * Looks at everything that belongs to a control directory, but does not read the packs' content, which `verify` does.
 * With `repair` each finding's repair is done as soon as its part was looked at, so that later parts see it.
 */
export async function examineWorkspace(workspace: Workspace, input: DoctorInput): Promise<Doctored> {
  throwIfAborted(input.signal);
  return new Doctor(workspace, input).run();
}

class Doctor {
  readonly #workspace: Workspace;
  readonly #input: DoctorInput;
  readonly #findings = new Map<string, Finding>();

  constructor(workspace: Workspace, input: DoctorInput) {
    this.#workspace = workspace;
    this.#input = input;
  }

  async run(): Promise<Doctored> {
    await this.#take(lockFindings(this.#workspace, this.#input.breakLocks === true));
    let lock: Lock | null = null;
    if (this.#input.repair === true) lock = await this.#workspace.lock("doctor", this.#input);
    try {
      await this.#take(missingFolderFindings(this.#workspace));
      if (this.#has("missing")) return this.#result();
      await this.#take(controlFindings(this.#workspace));
      await this.#take(await this.#workspace.engine.examineAccess());
      const opens = ![...this.#findings.values()].some(
        (finding) => CLOSED.has(finding.kind) && finding.severity === "damage" && finding.repaired !== true,
      );
      await this.#take(stateFindings(this.#workspace));
      await this.#take(journalFindings(this.#workspace));
      // What says how to finish it cannot be read.
      if (opens && !this.#has("journal")) await this.#take(this.#interrupted());
      await this.#take(recordFindings(this.#workspace));
      await this.#take(heldFindings(this.#workspace));
      await this.#take(await descriptorFindings(this.#workspace, { opens, signal: this.#input.signal }));
      if (opens) await this.#store();
    } finally {
      lock?.release();
    }
    return this.#result();
  }

  #result(): Doctored {
    const findings = [...this.#findings.values()];
    return {
      healthy: !findings.some(({ severity, repaired }) => severity === "damage" && repaired !== true),
      findings,
    };
  }

  /** Whether something of a kind was found and is not mended. */
  #has(kind: string): boolean {
    return [...this.#findings.values()].some((finding) => finding.kind === kind && finding.repaired !== true);
  }

  /** Lists findings and, in a repairing run, mends them one after the other. */
  async #take(checkups: readonly Checkup[]): Promise<void> {
    for (const checkup of checkups) {
      const { kind, severity, detail, repair, mend } = checkup;
      throwIfAborted(this.#input.signal);
      const finding: Finding = { kind, severity, detail, ...(repair === undefined ? {} : { repair }) };
      this.#findings.set(keyOf(checkup), finding);
      if (this.#input.repair !== true || mend === undefined) continue;
      this.#input.onProgress?.({ phase: "repairing", done: this.#findings.size, current: kind });
      try {
        await mend();
        finding.repaired = true;
      } catch (error) {
        const problem = toCairnError(error);
        if (problem.code === "interrupted") throw problem;
        finding.repaired = false;
        finding.detail = `${detail}; this could not be mended: ${problem.message}`;
      }
    }
  }

  #interrupted(): Checkup[] {
    if (!needsRecovery(this.#workspace) || this.#isAtWork()) return [];
    return [
      {
        kind: "interrupted",
        severity: "info",
        detail: "an earlier command was interrupted; the next one that changes something finishes it",
        repair: "it is finished or taken back",
        mend: async () => recoverWorkspace(this.#workspace, this.#input),
      },
    ];
  }

  /** Whether another process is under way here, which then needs no recovery. */
  #isAtWork(): boolean {
    return this.#input.repair !== true && lockHolder(this.#workspace.found.paths.lock) !== null;
  }

  async #store(): Promise<void> {
    const { engine } = this.#workspace;
    const first = await engine.examine(this.#request());
    await this.#take(first);
    const mended = first.filter((checkup) => this.#findings.get(keyOf(checkup))?.repaired === true);
    if (mended.length === 0) return;
    await this.#verifyAgain();
    // What is left was there before and stays, or came to light.
    const left = new Map((await engine.examine(this.#request())).map((checkup) => [keyOf(checkup), checkup]));
    left.delete(RECORDED);
    for (const checkup of first) {
      const key = keyOf(checkup);
      const finding = this.#findings.get(key)!;
      if (!left.has(key)) finding.repaired = true;
      else if (finding.repaired === true) finding.repaired = false;
      left.delete(key);
    }
    for (const [key, { kind, severity, detail }] of left) this.#findings.set(key, { kind, severity, detail });
  }

  #held(): HeldPoint[] {
    return listWorkspaces(this.#workspace.found.control).flatMap(({ name }) => {
      const paths = workspacePaths(this.#workspace.found.control, name);
      return new Points(paths).list().points.map((point) => ({ point, paths }));
    });
  }

  /** Points whose last verification found damage are verified again. */
  async #verifyAgain(): Promise<void> {
    const damaged = this.#held().filter(({ point }) => point.sealed && point.verification?.ok === false);
    if (damaged.length > 0) await verifyHeld(this.#workspace, damaged, { ...this.#input, lockHeld: true });
  }

  #request(): ExamineRequest {
    const held = this.#held();
    const { control } = this.#workspace.found;
    let nameless = 0;
    for (const { name } of listWorkspaces(control)) {
      for (const { id } of new Points(workspacePaths(control, name)).list().damaged) if (id === null) nameless++;
    }
    return {
      points: held
        .filter(({ point }) => point.sealed)
        .map(({ point: { descriptor } }) => ({
          id: descriptor.save_point_id,
          createdAt: descriptor.created_at,
          content: descriptor.content as unknown as ExamineRequest["points"][number]["content"],
        })),
      known: knownIds(control),
      nameless,
      recordedDamage: held.filter(({ point }) => point.sealed && point.verification?.ok === false).length,
      signal: this.#input.signal,
      onProgress: (progress) =>
        this.#input.onProgress?.({ phase: this.#input.repair === true ? "repairing" : "verifying", ...progress }),
    };
  }
}

/** Key of the finding about damage that only a full read can name; after one it is named. */
const RECORDED = "recorded";

function keyOf({ key, kind, detail }: Checkup): string {
  return key ?? `${kind} ${detail}`;
}

/** Whether an id belongs to a point, a damaged one too, or to a save that is not finished; looked up when first asked. */
function knownIds(control: Workspace["found"]["control"]): (id: string) => boolean {
  let ids: Set<string> | undefined;
  return (id) => {
    if (ids === undefined) {
      ids = new Set();
      for (const { name } of listWorkspaces(control)) {
        const points = new Points(workspacePaths(control, name));
        const { points: healthy, damaged } = points.list();
        for (const each of [
          ...healthy.map(({ descriptor }) => descriptor.save_point_id),
          ...damaged.map((point) => point.id),
          ...points.unfinished().map((claim) => claim.id),
        ]) {
          if (each !== null) ids.add(each);
        }
      }
    }
    return ids.has(id);
  };
}
