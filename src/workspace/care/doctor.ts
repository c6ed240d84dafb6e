import { throwIfAborted, toCairnError } from "../../errors.ts";
import type { DoctorOptions, DoctorResult, Finding } from "../../contract/care.ts";
import { describeOwner, livenessOf } from "../../fs/lock-owner.ts";
import { breakLock, type Lock, lockHolder } from "../../fs/lock.ts";
import { latin1 } from "../../formats/bytes.ts";
import { filesystemKind } from "../../fs/linux/mounts.ts";
import { printablePath } from "../../fs/paths/safe-path.ts";
import type { ControlPaths } from "../place/control-layout.ts";
import { allPoints } from "../points/points.ts";
import { examineAccess } from "../store/store-access.ts";
import type { StoreFinding } from "../store/store-care.ts";
import { type DoctorRequest, doctorStore, RECORDED } from "../store/store-doctor.ts";
import { controlFindings, missingFolderFindings } from "./doctor-control.ts";
import { journalFindings } from "./doctor-journal.ts";
import { heldFindings, hookFindings, recordFindings, stateFindings } from "./doctor-points.ts";
import { descriptorFindings } from "./lost-descriptors.ts";
import { needsRecovery, recoverWorkspace } from "../open/recovery.ts";
import { pointToVerify, verifyHeld } from "./verify.ts";
import type { Workspace } from "../open/workspace.ts";

type Doctored = Pick<DoctorResult, "healthy" | "findings">;

/** Kinds of findings that prevent reading the store. */
const CLOSED = ["store", "key", "config"];

/**
 * Checks everything that belongs to a control directory, except for the packs' content, which `verify` reads. With
 * `repair` the findings of each part are repaired before the next part is checked.
 */
export async function examineWorkspace(workspace: Workspace, input: DoctorOptions): Promise<Doctored> {
  throwIfAborted(input.signal);
  return new Doctor(workspace, input).run();
}

class Doctor {
  readonly #workspace: Workspace;
  readonly #input: DoctorOptions;
  readonly #findings = new Map<string, Finding>();

  constructor(workspace: Workspace, input: DoctorOptions) {
    this.#workspace = workspace;
    this.#input = input;
  }

  async run(): Promise<Doctored> {
    const workspace = this.#workspace;
    await this.#take(lockFindings(workspace, this.#input.breakLocks === true));
    let lock: Lock | null = null;
    if (this.#input.repair === true) lock = await workspace.lock("doctor", this.#input);
    try {
      await this.#take(missingFolderFindings(workspace));
      if (this.#has("missing")) return this.#result();
      await this.#take(controlFindings(workspace));
      await this.#take(await examineAccess(workspace.found.control.root));
      const opens = !this.#unmended().some(({ kind, severity }) => CLOSED.includes(kind) && severity === "damage");
      await this.#take(stateFindings(workspace));
      await this.#take(journalFindings(workspace));
      // A damaged journal cannot be finished.
      if (opens && !this.#has("journal")) await this.#take(this.#interrupted());
      await this.#take(recordFindings(workspace));
      await this.#take(hookFindings(workspace));
      await this.#take(heldFindings(workspace));
      await this.#take(await descriptorFindings(workspace, { opens, signal: this.#input.signal }));
      if (opens) await this.#store();
    } finally {
      lock?.release();
    }
    return this.#result();
  }

  #result(): Doctored {
    const healthy = !this.#unmended().some(({ severity }) => severity === "damage");
    return { healthy, findings: [...this.#findings.values()] };
  }

  #unmended(): Finding[] {
    return [...this.#findings.values()].filter(({ repaired }) => repaired !== true);
  }

  #has(wanted: string): boolean {
    return this.#unmended().some(({ kind }) => kind === wanted);
  }

  /** Lists findings and, with `repair`, repairs them one after the other. */
  async #take(found: Iterable<StoreFinding>): Promise<void> {
    // A part is checked completely before its repairs begin.
    const all = Array.from(found);
    for (const each of all) {
      const { kind, mend } = each;
      throwIfAborted(this.#input.signal);
      const finding = publicFinding(each);
      const { detail } = finding;
      this.#findings.set(keyOf(each), finding);
      if (this.#input.repair !== true || mend === undefined) continue;
      this.#input.onProgress?.({ phase: "repairing", done: this.#findings.size, current: kind });
      try {
        await mend();
        finding.repaired = true;
      } catch (error) {
        const problem = toCairnError(error);
        if (problem.code === "interrupted") throw problem;
        finding.repaired = false;
        finding.detail = `${detail}; the repair failed: ${problem.message}`;
      }
    }
  }

  #interrupted(): StoreFinding[] {
    // A working process needs no recovery.
    const isAtWork = this.#input.repair !== true && lockHolder(this.#workspace.found.paths.lock) !== null;
    if (isAtWork || !needsRecovery(this.#workspace)) return [];
    return [
      {
        kind: "interrupted",
        severity: "info",
        detail:
          "an earlier command was interrupted; the next command that changes the workspace finishes it or takes it back",
        repair: "the interrupted command is finished or taken back",
        mend: () => recoverWorkspace(this.#workspace, this.#input),
      },
    ];
  }

  async #store(): Promise<void> {
    const { engine, found } = this.#workspace;
    const store = await engine.store(this.#input);
    const first = await doctorStore(store, this.#request());
    await this.#take(first);
    if (!first.some((each) => this.#findings.get(keyOf(each))?.repaired === true)) return;
    // Points whose last verification found damage are verified again.
    const damaged = allPoints(found.control).flatMap(({ paths, points }) =>
      points
        .list()
        .points.flatMap((point) => (point.sealed && point.verification?.ok === false ? { point, paths } : [])),
    );
    if (damaged.length > 0) await verifyHeld(this.#workspace, damaged, { ...this.#input, lockHeld: true });
    // Remaining findings were there before, or are new.
    const left = new Map((await doctorStore(store, this.#request())).map((each) => [keyOf(each), each]));
    left.delete(RECORDED);
    for (const each of first) {
      const key = keyOf(each);
      const finding = this.#findings.get(key)!;
      if (!left.has(key)) finding.repaired = true;
      else if (finding.repaired === true) finding.repaired = false;
      left.delete(key);
    }
    for (const [key, { repair: _repair, ...each }] of left) this.#findings.set(key, publicFinding(each));
  }

  #request(): DoctorRequest {
    const { control } = this.#workspace.found;
    const lists = allPoints(control).map(({ points }) => points.list());
    const sealed = lists.flatMap(({ points }) => points.filter((point) => point.sealed));
    return {
      points: sealed.map(pointToVerify),
      known: knownIds(control),
      nameless: lists.flatMap(({ damaged }) => damaged).filter(({ id }) => id === null).length,
      recordedDamage: sealed.flatMap(({ descriptor, verification }) =>
        verification?.ok === false
          ? [{ id: descriptor.save_point_id, paths: verification.problems.map(({ path }) => path ?? "") }]
          : [],
      ),
      signal: this.#input.signal,
      onProgress: (progress) =>
        this.#input.onProgress?.({ phase: this.#input.repair === true ? "repairing" : "verifying", ...progress }),
    };
  }
}

function publicFinding({ kind, severity, point, path, detail, repair }: StoreFinding): Finding {
  const lost =
    path === undefined ? "" : `${path.length === 0 ? "the root folder" : printablePath(path)} cannot be restored: `;
  const who = point === undefined ? "" : `save point ${point.slice(0, 8)}: `;
  return { kind, severity, detail: `${who}${lost}${detail}`, ...(repair === undefined ? {} : { repair }) };
}

function keyOf({ key, kind, point, path, detail }: StoreFinding): string {
  return key ?? `${kind} ${point} ${path === undefined ? detail : latin1(path)}`;
}

/**
 * Returns a function that tells if an id belongs to a point, also a damaged one, or an unfinished save. The ids are
 * read at the first call.
 */
function knownIds(control: ControlPaths): (id: string) => boolean {
  let ids: Set<string | null> | undefined;
  return (id) => {
    ids ??= new Set(
      allPoints(control).flatMap(({ points }) => {
        const { points: healthy, damaged } = points.list();
        const known = healthy.map(({ descriptor }) => descriptor.save_point_id);
        return [...known, ...[...damaged, ...points.unfinished()].map((each) => each.id)];
      }),
    );
    return ids.has(id);
  };
}

/** Finds a lock whose holder cannot be checked. With `breakLocks` the repair removes the lock. */
function* lockFindings({ found }: Workspace, breakLocks: boolean): Iterable<StoreFinding> {
  const { lock } = found.paths;
  const holder = lockHolder(lock);
  const { place } = filesystemKind(found.control.root);
  if (holder === null || livenessOf(holder, place === "local" || place === "memory") !== "unknown") return;
  const kind = "lock";
  const severity = "warning";
  const detail = `the workspace is locked by ${describeOwner(holder)}, and this machine cannot tell if that process still runs`;
  if (breakLocks) yield { kind, severity, detail, repair: "the lock is removed", mend: () => breakLock(lock) };
  else yield { kind, severity, detail: `${detail}; if you know that it has ended: doctor --repair --force` };
}
