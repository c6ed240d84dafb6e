import { signal, useSignal } from "@preact/signals";
import type { WorkspaceInfo } from "cairnstate/client";
import type { JSX } from "preact";
import { useEffect } from "preact/hooks";
import "../../styles/overview.css";
import { nameOf } from "../../app/address.ts";
import { call } from "../../app/calls.ts";
import { onEvent } from "../../app/events.ts";
import { useActions } from "../../app/keys.ts";
import { SILENT_MS, useResource } from "../../app/resource.ts";
import { go } from "../../app/route.ts";
import { about, client, isReadOnly } from "../../app/session.ts";
import { Icon } from "../../parts/icon.tsx";
import { Empty, Late, Problem } from "../../parts/problem.tsx";
import { AddFolder, AddFolderDialog } from "./add-folder.tsx";
import { Card } from "./card.tsx";
import { FactLines } from "./fact-lines.tsx";
import { alarmsOf, type Daemon, type Facts, nextRuns, repositoriesOf, shownOf } from "./facts.ts";
import { Alarms, Gone, Repositories, Runs } from "./lists.tsx";
import { Sentence } from "./sentence.tsx";

/** The home of the page: the state of all workspaces and repositories, those with problems first. */

/** Facts by the path of the workspace. Another visit begins with the facts of the last one. */
/** Milliseconds after which the server asks the agents again. */
const KEPT_MS = 61_000;
const known = signal<ReadonlyMap<string, Facts>>(new Map());

async function listed(signal: AbortSignal): Promise<{ infos: WorkspaceInfo[]; daemon: Daemon | null }> {
  const [infos, found] = await Promise.all([call("listWorkspaces", {}, { signal }), client().about()]);
  about.value = found;
  return { infos, daemon: found.daemon ? await call("daemon", {}, { signal }).catch(() => null) : null };
}

export function View(): JSX.Element {
  const { value, problem, isLate, reload } = useResource("workspaces", listed, { isOfNow: true });
  useEffect(
    () => onEvent(({ type }) => ["save", "registered", "released", "reset", "health"].includes(type) && reload()),
    [],
  );
  useEffect(() => {
    // A workspace that another process has made is reported by no event.
    const look = (): void => void (document.hidden || reload());
    document.addEventListener("visibilitychange", look);
    return () => document.removeEventListener("visibilitychange", look);
  }, []);
  useFacts(value?.infos);
  if (problem !== null) return <Problem problem={problem} again={reload} />;
  if (value === undefined) return <Late isLate={isLate.value} />;
  const { infos, daemon } = value;
  const all = shownOf(
    infos.filter(({ present, points }) => present || points > 0),
    daemon,
    known.value,
  );
  const gone = infos.filter(({ present, points }) => !present && points === 0);
  return (
    <section class="overview" aria-label="Overview">
      {all.length === 0 ? <FirstUse saved={reload} /> : <Head all={all} />}
      <FactLines all={all} daemon={daemon} />
      <Alarms alarms={alarmsOf(all, daemon)} />
      <Cards all={all} changed={reload} />
      <Repositories repositories={repositoriesOf(all)} />
      <Runs runs={nextRuns(all)} />
      <Gone gone={gone} />
    </section>
  );
}

/** What a page without any workspace offers: to choose a folder and save it, or the command that does so. */
function FirstUse({ saved }: { saved(): void }): JSX.Element {
  const inTerminal = (
    <>
      <p>{isReadOnly() ? "A folder becomes a workspace with its first save point:" : "Or in a terminal:"}</p>
      <pre>cairn save FOLDER</pre>
    </>
  );
  if (isReadOnly()) return <Empty title="No workspace yet">{inTerminal}</Empty>;
  return (
    <div class="first-use">
      <h1>No workspace yet</h1>
      <p>Choose a folder. Its first save makes it a workspace, of which each later save keeps a whole state.</p>
      <AddFolder done={saved} />
      {inTerminal}
    </div>
  );
}

function Head({ all }: { all: ReturnType<typeof shownOf> }): JSX.Element {
  const isAdding = useSignal(false);
  const add = (): void => void (isAdding.value = true);
  useActions(isReadOnly() ? [] : [{ title: "Add a folder", run: add }]);
  return (
    <header class="overview-head">
      <Sentence all={all} />
      {!isReadOnly() && (
        <button type="button" onClick={add}>
          <Icon name="folder" /> Add a folder…
        </button>
      )}
      {isAdding.value && <AddFolderDialog close={() => (isAdding.value = false)} />}
    </header>
  );
}

/** Asks for the facts of each workspace whenever the list is loaded. The folder is looked at last, because that takes the longest. */
function useFacts(infos: readonly WorkspaceInfo[] | undefined): void {
  useEffect(() => {
    const stopped = new AbortController();
    for (const info of infos ?? []) void learn(info, stopped.signal);
    if (infos !== undefined) void learnAgents(infos);
    // The server keeps its answer for a minute, in which a command in a terminal may change it.
    const again = setTimeout(() => void learnAgents(infos ?? []), KEPT_MS);
    return () => {
      stopped.abort();
      clearTimeout(again);
    };
  }, [infos]);
  useEffect(
    () =>
      onEvent(({ type, workspace }) => {
        const changed = type === "changed" ? infos?.find(({ path }) => path === workspace) : undefined;
        if (changed !== undefined) void learnStatus(changed);
      }),
    [infos],
  );
}

async function learn(info: WorkspaceInfo, stopped: AbortSignal): Promise<void> {
  const { path: workspace } = info;
  const note = (facts: Facts): void => void (stopped.aborted || noteFacts(workspace, facts));
  const [schedule, hooks, sizes, debt] = await Promise.all([
    call("schedule", { workspace }, { signal: stopped }).catch(() => null),
    call("agentEvents", { workspace, options: { limit: 0 } }, { signal: stopped }).catch(() => null),
    call("historyDays", { workspace }, { signal: stopped }).catch(() => null),
    // The machine's own records: no repository is asked.
    call("receipts", { workspace }, { signal: stopped })
      .then((found) => found.debt)
      .catch(() => null),
  ]);
  note({ schedule, hooks: hooks?.agents ?? null, sizes, debt });
  if (!stopped.aborted) await learnStatus(info, stopped);
}

async function learnStatus({ path: workspace, present }: WorkspaceInfo, stopped?: AbortSignal): Promise<void> {
  const options = stopped === undefined ? {} : { signal: stopped };
  // A look that takes long is no answer.
  const silent = setTimeout(() => noteFacts(workspace, { status: undefined }), SILENT_MS);
  const status = present ? await call("status", { workspace }, options).catch(() => null) : null;
  clearTimeout(silent);
  if (stopped?.aborted !== true) noteFacts(workspace, { status });
}

/** Asks which agents work without hooks. The answer needs a process of its own, and the page waits for it nowhere. */
async function learnAgents(infos: readonly WorkspaceInfo[]): Promise<void> {
  const found = await client()
    .agents()
    .catch(() => null);
  for (const { path } of infos) {
    const agents = found?.find((each) => each.path === path)?.agents;
    noteFacts(path, { agents: agents ?? [] });
  }
}

function noteFacts(path: string, facts: Facts): void {
  known.value = new Map(known.value).set(path, { ...known.value.get(path), ...facts });
}

function Cards({ all, changed }: { all: ReturnType<typeof shownOf>; changed(): void }): JSX.Element {
  const chosen = useSignal(-1);
  const move = (by: number): void => {
    chosen.value = Math.max(0, Math.min(all.length - 1, chosen.value + by));
    document.querySelector<HTMLElement>(`#workspace-${chosen.value}`)?.focus();
  };
  useActions([
    { key: "j", title: "Select the next workspace", run: () => move(1) },
    { key: "k", title: "Select the previous workspace", run: () => move(-1) },
    ...all.flatMap(({ path: workspace }) => [
      { title: `Open ${nameOf(workspace)}`, run: () => go({ view: "timeline", workspace }) },
      {
        title: `Clean up ${nameOf(workspace)}: what a cleanup would remove`,
        run: () => go({ view: "activity", workspace, part: "cleanup" }),
      },
      {
        title: `Backups of ${nameOf(workspace)}: forget, prune, receipts`,
        run: () => go({ view: "activity", workspace, part: "backups" }),
      },
    ]),
  ]);
  return (
    <ul class="workspaces" aria-label="Workspaces">
      {all.map((each, i) => (
        <Card key={`${each.id} ${each.path}`} shown={each} index={i} changed={changed} />
      ))}
    </ul>
  );
}
