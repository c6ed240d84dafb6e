import { useSignal } from "@preact/signals";
import type { StatusResult } from "cairnstate/client";
import type { ComponentChildren, JSX } from "preact";
import { href, nameOf } from "../../app/address.ts";
import { useActions } from "../../app/keys.ts";
import { isReadOnly, unrun } from "../../app/session.ts";
import { Icon } from "../../parts/icon.tsx";
import { Name } from "../../parts/name.tsx";
import { count, plural } from "../../parts/numbers.ts";
import { Counts, When } from "../../parts/values.tsx";
import { AgentsDialog } from "./agents-dialog.tsx";
import { Charts } from "./charts.tsx";
import { agentsWithoutHooks, isDamaged, isOverdue, PROVEN, provenAt, type Shown } from "./facts.ts";
import { RepositoryDialog } from "./repository-dialog.tsx";

/** A workspace in the overview. The whole card leads to the timeline; some facts lead to their own views. */
export function Card({ shown, index, changed }: { shown: Shown; index: number; changed(): void }): JSX.Element {
  const { path, points, store_bytes, last_save_at, status, schedule, sizes } = shown;
  const timeline = href({ view: "timeline", workspace: path });
  const backup = status?.last_backup ?? null;
  return (
    <li class="workspace">
      <h2 class="workspace-head">
        <a id={`workspace-${index}`} class="workspace-open" href={timeline}>
          <Name text={nameOf(path)} title={false} />
        </a>
        <Badges shown={shown} />
      </h2>
      <p class="faint workspace-path">
        <Name text={path} />
      </p>
      <dl>
        <Fact name="not saved">
          <Unsaved path={path} status={status} />
        </Fact>
        <Fact name="last save">{last_save_at === null ? "never" : <When at={last_save_at} />}</Fact>
        <Fact name="backed up">
          {backup === null ? (
            <Moment at={schedule?.last_backup_at} isKnown={schedule !== undefined} />
          ) : (
            <a href={href({ view: "files", workspace: path, point: `backup:${backup.snapshot_id}`, at: { path: "" } })}>
              <Moment at={schedule?.last_backup_at ?? backup.at} isKnown />
            </a>
          )}
        </Fact>
        <Fact name="proven" title={PROVEN}>
          <Moment at={provenAt(shown)} isKnown={schedule !== undefined} />
        </Fact>
        <Fact name="next run">
          {schedule?.next_at ? (
            <Due at={schedule.next_at} isRun={unrun() === null} />
          ) : (
            <Moment at={null} isKnown={schedule !== undefined} none="none" />
          )}
        </Fact>
        <Fact name="save points">
          {count(sizes?.total ?? points)}
          {sizes !== undefined && sizes !== null && points > sizes.total && (
            <span class="faint"> and {plural(points - sizes.total, "undo point")}</span>
          )}
        </Fact>
      </dl>
      <Charts sizes={sizes} stored={store_bytes} />
      {!isReadOnly() && shown.present && <Buttons shown={shown} changed={changed} />}
    </li>
  );
}

/** What a new workspace still lacks: hooks of agents, and a repository if none is kept. */
function Buttons({ shown, changed }: { shown: Shown; changed(): void }): JSX.Element {
  const { path, schedule } = shown;
  const opened = useSignal<"agents" | "repository" | null>(null);
  const close = (): void => void (opened.value = null);
  useActions([{ title: `Agents of ${nameOf(path)}: install or remove hooks`, run: () => (opened.value = "agents") }]);
  const closeAgents = (): void => {
    close();
    changed();
  };
  const hasRepository = schedule === undefined || (schedule?.runs ?? []).some(({ kind }) => kind === "backup");
  const without = agentsWithoutHooks(shown);
  return (
    <div class="workspace-buttons">
      <button type="button" onClick={() => (opened.value = "agents")}>
        Agents…
      </button>
      {!hasRepository && (
        <button type="button" onClick={() => (opened.value = "repository")}>
          Back up…
        </button>
      )}
      {without.length > 0 && <span class="modified">{without.join(", ")} without hooks</span>}
      {opened.value === "agents" && <AgentsDialog workspace={path} close={closeAgents} />}
      {opened.value === "repository" && <RepositoryDialog workspace={path} close={close} kept={changed} />}
    </div>
  );
}

/** Counts the entries that the last save does not have, with a link to them. */
function Unsaved({ path, status }: { path: string; status: StatusResult | null | undefined }): JSX.Element {
  if (status === undefined || status === null) return <span class="faint">–</span>;
  const { clean, head, changes, not_kept: left } = status;
  if (clean) return <span class="faint">nothing</span>;
  const isCounted = changes.added + changes.modified + changes.removed > 0;
  const counts = isCounted ? <Counts {...changes} /> : `${count(left.count)} no longer kept`;
  if (head === null) return <>{counts}</>;
  return <a href={href({ view: "point", workspace: path, point: head, to: "now" })}>{counts}</a>;
}

function Badges({ shown }: { shown: Shown }): JSX.Element {
  const { health, present, status, schedule } = shown;
  const failures = schedule?.problems.length ?? 0;
  return (
    <>
      {!present && <span class="badge warn">folder missing</span>}
      {isDamaged(shown) && (
        <span class="badge bad">
          <Icon name="warning" />{" "}
          {health === undefined || health.health === "ok" ? "damaged" : health.health.replaceAll("_", " ")}
        </span>
      )}
      {health?.overdue.map((each) => (
        <span key={each} class="badge warn">
          {each} overdue
        </span>
      ))}
      {failures > 0 && <span class="badge warn">{plural(failures, "alarm")}</span>}
      {status?.watched === true && <span class="badge good">watched</span>}
    </>
  );
}

function Fact({ name, title, children }: { name: string; title?: string; children: ComponentChildren }): JSX.Element {
  return (
    <div title={title}>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}

/** A time, or `none` if there is none; a dash until the answer has come. */
export function Moment({
  at,
  isKnown,
  none = "never",
}: {
  at: string | null | undefined;
  isKnown: boolean;
  none?: string;
}): JSX.Element {
  if (at !== undefined && at !== null) return <When at={at} />;
  return <span class="faint">{isKnown ? none : "–"}</span>;
}

/** When a run is due; and whether a run that is due is overdue. `isRun`: something runs it. */
export function Due({ at, isRun }: { at: string; isRun: boolean }): JSX.Element {
  if (!isRun && !isOverdue(at))
    return (
      <span class="modified">
        due <When at={at} />, but nothing runs it
      </span>
    );
  if (Date.parse(at) > Date.now()) return <When at={at} />;
  if (!isOverdue(at)) return <>due now, not overdue</>;
  return (
    <span class="removed">
      overdue, due <When at={at} />
    </span>
  );
}
