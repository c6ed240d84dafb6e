import { useSignal } from "@preact/signals";
import type { CancelResult, RunningCall } from "cairnstate/client";
import type { JSX } from "preact";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { call } from "../../app/calls.ts";
import { onCall } from "../../app/events.ts";
import { problemOf, useResource } from "../../app/resource.ts";
import { about, isReadOnly } from "../../app/session.ts";
import { PathName, visible, Words } from "../../parts/name.tsx";
import { count, size } from "../../parts/numbers.ts";
import { type Found, Problem } from "../../parts/problem.tsx";
import { When, wholeTime } from "../../parts/values.tsx";
import { RunningRows } from "./running-rows.ts";

/** Calls and scheduled work that run now, with their progress. A person can cancel them. */

const WORDS: Readonly<Record<string, string>> = {
  save: "Save",
  restore: "Restore",
  undo: "Undo",
  redo: "Redo",
  rewind: "Rewind",
  due: "What is due",
  backup: "Backup",
  verify: "Verification",
  verifyAll: "Verification of all save points",
  "restore-check": "Proof of a restore",
  prune: "Prune",
  cleanup: "Cleanup",
  runCleanup: "Cleanup",
  fork: "Fork",
  adoptFork: "Adoption of a fork",
  planAdoptFork: "Plan of an adoption",
  removeFork: "Removal of a fork",
  forgetBackups: "Removal of backups",
  pruneBackups: "Prune",
};

export function wordOf({ verb }: Pick<RunningCall, "verb">): string {
  return WORDS[verb] ?? verb;
}

/** Lists what runs, also in other workspaces. `workspace`: the shown one, which is not named again. */
export function RunningCalls({ workspace }: { workspace: string }): JSX.Element {
  const rows = useRef(new RunningRows()).current;
  const shown = useSignal<readonly RunningCall[]>([]);
  const { problem, reload } = useResource(
    "running",
    async (signal) => {
      const listed = await rows.replace(async () => (await call("running", {}, { signal })).calls);
      if (!signal.aborted) shown.value = listed;
    },
    { isFresh: true },
  );
  const heading = useRef<HTMLHeadingElement>(null);
  const cancelled = useSignal<CancelResult | Found | null>(null);
  useEffect(
    () =>
      onCall((event) => {
        if (event.type === "call") shown.value = rows.take(event.data);
        else reload();
      }),
    [],
  );
  const running = problem === null ? shown.value : [];
  const cancel = async ({ running_id: id }: RunningCall): Promise<void> => {
    cancelled.value = await call("cancel", { id }).catch(problemOf);
  };
  const told = cancelled.value;
  return (
    <>
      <h2 ref={heading} tabIndex={-1}>
        Now
      </h2>
      {problem !== null && <Problem problem={problem} again={reload} />}
      {problem === null && running.length === 0 && <p class="faint">Nothing runs.</p>}
      <ul class="activity-list" aria-label="Running">
        {running.map((each) => (
          <Running
            key={each.running_id}
            of={each}
            workspace={workspace}
            cancel={() => void cancel(each)}
            leave={() => heading.current?.focus()}
          />
        ))}
      </ul>
      <div role="status">
        {told !== null &&
          ("code" in told ? (
            <Problem problem={told} />
          ) : (
            <p>
              {wordOf(told)} {ENDS[told.state]}. <Words text={told.stays} isWhole />
            </p>
          ))}
      </div>
    </>
  );
}

const ENDS: Readonly<Record<RunningCall["state"], string>> = {
  waiting: "waits for its turn",
  running: "runs",
  stopping: "is stopping",
  done: "is done",
  failed: "failed",
  cancelled: "was cancelled",
};

interface RunningProps {
  of: RunningCall;
  workspace: string;
  cancel(): void;
  /** Takes the focus, if the row has it and goes. */
  leave(): void;
}

function Running({ of, workspace, cancel, leave }: RunningProps): JSX.Element {
  const { state, since, progress, workspace: folder, repository } = of;
  const row = useRef<HTMLLIElement>(null);
  useLayoutEffect(() => {
    const own = row.current!;
    return () => own.contains(document.activeElement) && leave();
  }, []);
  const { done = 0, total, bytes, total_bytes: all, phase, current } = progress ?? {};
  const [part, whole] = all === undefined ? [done, total] : [bytes ?? 0, all];
  return (
    <li ref={row}>
      <span class="activity-words">
        <strong>{wordOf(of)}</strong> {folder !== null && folder !== workspace && <PathName path={folder} />}{" "}
        {repository !== null && <PathName path={repository} />} <span class="badge">{ENDS[state]}</span>{" "}
        <span class="faint">
          since <When at={since} />, for {whoAsked(of)}
        </span>
      </span>
      {state !== "waiting" && (
        <span class="activity-progress">
          <progress
            aria-label={`progress of ${wordOf(of)}`}
            {...(whole === undefined ? {} : { value: part, max: Math.max(1, whole) })}
          />
          {progress !== null && (
            <span class="faint">
              {phase}: {count(done)}
              {total !== undefined && ` of ${count(total)}`}
              {bytes !== undefined && `, ${size(bytes)}`}
              {all !== undefined && ` of ${size(all)}`} {current !== undefined && <PathName path={current} />}
            </span>
          )}
        </span>
      )}
      {!isReadOnly() && (
        <button
          type="button"
          aria-label={`Cancel ${wordOf(of)} of ${visible(folder ?? repository ?? "all")} since ${wholeTime(since)}`}
          aria-disabled={state === "stopping"}
          onClick={() => state !== "stopping" && cancel()}
        >
          Cancel
        </button>
      )}
    </li>
  );
}

function whoAsked({ scheduled, pid, uid, token }: RunningCall): string {
  if (scheduled) return "the schedule";
  if (pid !== null && pid === about.value?.pid) return "this page";
  if (token !== null) return `the token ${token}`;
  return pid === null ? `user ${uid}` : `process ${pid} of user ${uid}`;
}
