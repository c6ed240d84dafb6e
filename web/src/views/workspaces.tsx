import { useSignal } from "@preact/signals";
import type { StatusResult, VerbCalls, WorkspaceInfo } from "cairnstate/client";
import type { JSX } from "preact";
import { useEffect } from "preact/hooks";
import "../styles/workspaces.css";
import { call } from "../app/calls.ts";
import { onEvent } from "../app/events.ts";
import { useActions } from "../app/keys.ts";
import { useResource } from "../app/resource.ts";
import { href, nameOf } from "../app/address.ts";
import { go } from "../app/route.ts";
import { about } from "../app/session.ts";
import { Icon } from "../parts/icon.tsx";
import { Name, Words } from "../parts/name.tsx";
import { Empty, Late, Problem } from "../parts/problem.tsx";
import { count, Counts, plural, size, When } from "../parts/values.tsx";

/** All workspaces of the person, those with problems first. */

type Health = VerbCalls["daemon"]["answer"]["workspaces"][number];
interface Shown extends WorkspaceInfo {
  health: Health | undefined;
}

export function View(): JSX.Element {
  const { value, problem, isLate, reload } = useResource("workspaces", async (signal) => {
    const [infos, daemon] = await Promise.all([
      call("listWorkspaces", {}, { signal }),
      about.value?.daemon === true ? call("daemon", {}, { signal }).catch(() => null) : null,
    ]);
    const byPath = new Map(daemon?.workspaces.map((each) => [each.path, each]));
    return infos.map((each) => ({ ...each, health: byPath.get(each.path) })).toSorted(byNeed);
  });
  useEffect(
    () => onEvent(({ type }) => ["save", "registered", "released", "reset", "health"].includes(type) && reload()),
    [],
  );
  const chosen = useSignal(-1);
  const all = (value.value ?? []).filter(({ present, points }) => present || points > 0);
  const gone = (value.value ?? []).filter(({ present, points }) => !present && points === 0);
  const move = (by: number): void => {
    chosen.value = Math.max(0, Math.min(all.length - 1, chosen.value + by));
    document.querySelector<HTMLElement>(`#workspace-${chosen.value}`)?.focus();
  };
  useActions([
    { key: "j", title: "Select the next workspace", run: () => move(1) },
    { key: "k", title: "Select the previous workspace", run: () => move(-1) },
    ...all.map(({ path }) => ({
      title: `Open ${nameOf(path)}`,
      run: () => go({ view: "timeline", workspace: path }),
    })),
  ]);
  if (problem.value !== null && value.value === undefined) return <Problem problem={problem.value} again={reload} />;
  return (
    <section class="workspaces" aria-label="Workspaces">
      <Late isLate={isLate.value && value.value === undefined} />
      {value.value !== undefined && (
        <h1>
          Workspaces <span class="faint">{count(all.length)}</span>
        </h1>
      )}
      {value.value !== undefined && all.length === 0 && (
        <Empty title="No workspace yet">
          <p>A folder becomes a workspace with its first save point:</p>
          <pre>cairn save FOLDER</pre>
        </Empty>
      )}
      <ul>
        {all.map((each, i) => (
          <Workspace key={`${each.id} ${each.path}`} shown={each} index={i} />
        ))}
      </ul>
      {gone.length > 0 && (
        <details>
          <summary>{plural(gone.length, "folder")} whose save points are not there any more</summary>
          <ul class="workspaces-gone">
            {gone.map(({ path, problem: why }) => (
              <li key={path}>
                <Name text={path} /> <span class="faint">{why !== undefined && <Words text={why} />}</span>
              </li>
            ))}
          </ul>
        </details>
      )}
    </section>
  );
}

/** Orders workspaces: those with problems first, then by their latest save. */
function byNeed(a: Shown, b: Shown): number {
  return needOf(b) - needOf(a) || (b.last_save_at ?? "").localeCompare(a.last_save_at ?? "");
}

function needOf({ health, present, problem }: Shown): number {
  if (problem !== undefined || (health !== undefined && health.health !== "ok")) return 3;
  if (!present) return 2;
  return (health?.overdue.length ?? 0) > 0 ? 1 : 0;
}

function Workspace({ shown, index }: { shown: Shown; index: number }): JSX.Element {
  const { path, points, store_bytes, last_save_at, present } = shown;
  const details = useResource(`status ${path} ${last_save_at}`, (signal) => statusOf(path, present, signal));
  const status = details.value.value;
  const { value: kept } = useResource(`schedule ${path} ${last_save_at}`, (signal) =>
    call("schedule", { workspace: path }, { signal }).catch(() => null),
  );
  const schedule = kept.value;
  return (
    <li>
      <a id={`workspace-${index}`} class="workspace" href={href({ view: "timeline", workspace: path })}>
        <span class="workspace-head">
          <strong>
            <Name text={nameOf(path)} title={false} />
          </strong>
          <Badges shown={shown} status={status} />
        </span>
        <span class="faint workspace-path">
          <Name text={path} />
        </span>
        <dl>
          <Fact name="last save">{last_save_at === null ? "never" : <When at={last_save_at} />}</Fact>
          <Fact name="last backup">
            <Moment at={schedule?.last_backup_at} isKnown={schedule !== undefined} />
          </Fact>
          <Fact name="last proof">
            <Moment at={schedule?.last_proof_at} isKnown={schedule !== undefined} />
          </Fact>
          <Fact name="next run">
            <Moment at={schedule?.next_at} isKnown={schedule !== undefined} />
          </Fact>
          <Fact name="save points">{count(points)}</Fact>
          <Fact name="store">{size(store_bytes)}</Fact>
          <Fact name="not saved yet">
            {status === undefined || status === null ? (
              <span class="faint">–</span>
            ) : status.clean ? (
              <span class="faint">nothing</span>
            ) : (
              <Counts {...status.changes} />
            )}
          </Fact>
        </dl>
        {shown.problem !== undefined && (
          <span class="removed">
            <Words text={shown.problem} isWhole />
          </span>
        )}
        {schedule?.problems.map((each) => (
          <span key={each} class="removed">
            <Words text={each} isWhole />
          </span>
        ))}
        {shown.health?.detail !== undefined && shown.health.detail !== null && (
          <span class="removed">
            <Words
              text={`${shown.health.detail}${shown.health.remedy === null ? "" : `; ${shown.health.remedy}`}`}
              isWhole
            />
          </span>
        )}
      </a>
    </li>
  );
}

/** Null if the folder is missing or its status cannot be read. */
async function statusOf(path: string, present: boolean, signal: AbortSignal): Promise<StatusResult | null> {
  if (!present) return null;
  return call("status", { workspace: path }, { signal }).catch(() => null);
}

function Badges({ shown, status }: { shown: Shown; status: StatusResult | null | undefined }): JSX.Element {
  const { health, present, problem } = shown;
  return (
    <>
      {!present && <span class="badge warn">folder missing</span>}
      {(problem !== undefined || (health !== undefined && health.health !== "ok")) && (
        <span class="badge bad">
          <Icon name="warning" /> {health === undefined ? "unreadable" : health.health.replaceAll("_", " ")}
        </span>
      )}
      {health?.overdue.map((each) => (
        <span key={each} class="badge warn">
          {each} overdue
        </span>
      ))}
      {status?.watched === true && <span class="badge good">watched</span>}
      {status !== undefined && status !== null && status.missing.length > 0 && (
        <span class="badge bad">{plural(status.missing.length, "point")} missing</span>
      )}
    </>
  );
}

function Fact({ name, children }: { name: string; children: preact.ComponentChildren }): JSX.Element {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}

function Moment({ at, isKnown }: { at: string | null | undefined; isKnown: boolean }): JSX.Element {
  if (at !== undefined && at !== null) return <When at={at} />;
  return <span class="faint">{isKnown ? "never" : "–"}</span>;
}
