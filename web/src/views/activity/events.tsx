import { useSignal } from "@preact/signals";
import type { Operation, PastEvent, RunningCall } from "cairnstate/client";
import type { JSX } from "preact";
import { useEffect } from "preact/hooks";
import { href } from "../../app/address.ts";
import { call } from "../../app/calls.ts";
import { onCall, onEvent } from "../../app/events.ts";
import { useResource } from "../../app/resource.ts";
import { TextField } from "../../parts/fields.tsx";
import { Name, PathName, Words } from "../../parts/name.tsx";
import { plural, size } from "../../parts/numbers.ts";
import { Problem } from "../../parts/problem.tsx";
import { Counts, When, wholeTime } from "../../parts/values.tsx";
import { doneName } from "../../parts/operation-names.ts";
import { wordOf } from "./running.tsx";

/** Past events of a workspace, and calls that failed or were refused, as rows with a filter. */

type Save = { save_point_id: string; changes: { added: number; modified: number; removed: number } | null };

const MOST = 200;
/** The groups that a person can choose, with the types of their events. */
const GROUPS = {
  "failed and refused": ["call"],
  saves: ["save", "pin", "unpin", "tag"],
  "going back": ["restore", "undo"],
  care: ["cleanup", "policy", "health", "registered", "released", "recovered"],
} as const;
type Group = keyof typeof GROUPS;
const ALL = Object.values(GROUPS).flat();
/** Codes of calls that were not begun. */
const REFUSALS: ReadonlySet<string> = new Set(["permission", "refused", "unsupported", "usage", "stale_plan"]);

export function Events({
  workspace,
  operations,
}: {
  workspace: string;
  operations: readonly Operation[];
}): JSX.Element {
  const group = useSignal<Group | null>(null);
  const text = useSignal("");
  const types: readonly string[] = group.value === null ? ALL : GROUPS[group.value];
  const { value, problem, reload } = useResource(
    `events ${workspace} ${group.value}`,
    async (signal) =>
      (await call("pastEvents", { path: workspace, options: { types, limit: MOST } }, { signal })).events,
  );
  useEffect(() => {
    const again = (event: { type: string; data: object }): void => {
      const isEnd = event.type !== "call" || (event.data as RunningCall).state === "failed";
      if (isEnd && event.type !== "changed" && event.type !== "job") reload();
    };
    const ends = [onEvent(again), onCall(again)];
    return () => ends.forEach((end) => end());
  }, [workspace]);
  const words = text.value.toLowerCase();
  const shown = (value ?? []).filter((each) => JSON.stringify(each).toLowerCase().includes(words));
  return (
    <>
      <h2>Events</h2>
      <div class="activity-filter">
        <label>
          Show{" "}
          <select
            onChange={({ currentTarget: { value: chosen } }) =>
              (group.value = chosen === "" ? null : (chosen as Group))
            }
          >
            <option value="">all events</option>
            {Object.keys(GROUPS).map((each) => (
              <option key={each} value={each} selected={each === group.value}>
                {each}
              </option>
            ))}
          </select>
        </label>
        <TextField text={text} type="search" aria-label="Filter events" placeholder="Filter" />
      </div>
      {problem !== null && <Problem problem={problem} again={reload} />}
      {value !== undefined && shown.length === 0 && <p class="faint">No such event is known.</p>}
      <ul class="activity-list" aria-label="Events">
        {shown.map((each) => (
          <li key={JSON.stringify(each)}>
            <span class="activity-words">
              <When at={each.at} as={wholeTime} /> <What event={each} workspace={workspace} operations={operations} />
            </span>
          </li>
        ))}
      </ul>
    </>
  );
}

/** The words of an event. Its data is of another program's making, perhaps of a newer one. */
function What({
  event: { type, data },
  workspace,
  operations,
}: {
  event: PastEvent;
  workspace: string;
  operations: readonly Operation[];
}): JSX.Element {
  if (type === "call") return <Failed of={data as RunningCall} />;
  if (type === "save") {
    const { save_point_id: id, changes } = data as Save;
    return (
      <>
        <strong>Saved</strong> <a href={href({ view: "point", workspace, point: id })}>{id.slice(0, 8)}</a>{" "}
        {changes !== null && <Counts {...changes} />}
      </>
    );
  }
  if (type === "cleanup") {
    const { points, bytes_freed: bytes } = data as { points: number; bytes_freed: number };
    return (
      <>
        <strong>Cleanup</strong> {plural(points, "save point")} removed, {size(bytes)} freed
      </>
    );
  }
  if (type === "restore") {
    const { undo_id: id } = data as { undo_id?: string | null };
    const own = operations.find(({ undo_id: each }) => each !== null && each === id);
    return <strong>{own === undefined ? "Restored" : doneName(own)}</strong>;
  }
  const { detail } = data as { detail?: string | null };
  return (
    <>
      <strong>{WORDS[type] ?? <Name text={type} />}</strong>{" "}
      {typeof detail === "string" && <Words text={detail} isWhole />}
    </>
  );
}

const WORDS: Readonly<Record<string, string>> = {
  undo: "Undone",
  pin: "Pinned",
  unpin: "Unpinned",
  tag: "Tags changed",
  policy: "Rules changed",
  health: "Health changed",
  registered: "Became a workspace",
  released: "Released",
  recovered: "Became a plain folder again",
};

function Failed({ of }: { of: RunningCall }): JSX.Element {
  const { error, scheduled, token, uid, pid, repository } = of;
  const who = scheduled
    ? "the schedule"
    : token === null
      ? `user ${uid}${pid === null ? "" : `, process ${pid}`}`
      : `the token ${token}`;
  return (
    <>
      <strong>{wordOf(of)}</strong>{" "}
      <span class="badge bad">{REFUSALS.has(error?.code ?? "") ? "refused" : "failed"}</span>{" "}
      {repository !== null && <PathName path={repository} />} <Words text={error?.message ?? ""} isWhole />{" "}
      <span class="faint">for {who}</span>
    </>
  );
}
