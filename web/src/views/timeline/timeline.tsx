import { type Signal, signal, useSignal } from "@preact/signals";
import type { SavePoint } from "cairnstate/client";
import type { JSX, RefObject } from "preact";
import { useEffect, useMemo, useRef } from "preact/hooks";
import "./timeline.css";
import { call } from "../../app/calls.ts";
import { onEvent } from "../../app/events.ts";
import { type Fork, forksOf } from "../../app/forks.ts";
import { useActions } from "../../app/keys.ts";
import { ownOperations, useResource } from "../../app/resource.ts";
import { isBackup, nameOf, type Route, snapshotOf } from "../../app/address.ts";
import { go } from "../../app/route.ts";
import { isReadOnly } from "../../app/session.ts";
import { Check } from "../../parts/fields.tsx";
import { Words } from "../../parts/name.tsx";
import { plural } from "../../parts/numbers.ts";
import { Empty, Late, Problem } from "../../parts/problem.tsx";
import { SearchField, useTyped } from "../../parts/search-field.tsx";
import { wholeTime, When } from "../../parts/values.tsx";
import { VirtualList } from "../../parts/virtual-list.tsx";
import { type Filter, TimelinePoints } from "./points.ts";
import { Filters } from "./filters.tsx";
import { mark, MarkBar, markOf } from "./mark.tsx";
import { NowRow } from "./now.tsx";
import { BackupRow, DayRow, PointRow, ROW } from "./row.tsx";
import { TurnRow } from "./turn-row.tsx";
import { UndoBar } from "./undo-bar.tsx";

/** Milliseconds without a key press after which a filter is applied. */
const TYPING_MS = 120;
/** Milliseconds between two looks at the agents' hooks. */
const HOOKS_MS = 30_000;
/** Most forks that are drawn as lines: more would leave too little space for the messages. */
const MOST_LANES = 6;
/** Events after which the list is loaded again. */
const CHANGING = ["save", "restore", "undo", "pin", "unpin", "tag", "cleanup", "reset"];

type TimelineRoute = Extract<Route, { view: "timeline" | "point" }>;

/** The points of a workspace by day, newest first. Marks the point that is open beside it. */
export function View({ route }: { route: TimelineRoute }): JSX.Element {
  const { workspace } = route;
  const opened = route.view === "point" ? route.point : null;
  const [withBackups, showBackups] = useBackupsShown(route);
  const { typed, asked } = useTyped(route.view === "timeline" ? (route.q ?? "") : undefined, {
    afterMs: TYPING_MS,
    write: (q) => go({ view: "timeline", workspace, q, backups: withBackups }, { replace: true }),
  });
  const withUndo = useSignal(false);
  const isUndoAsked = route.view === "timeline" && route.undo === true;
  useEffect(() => {
    if (isUndoAsked) withUndo.value = true;
  }, [isUndoAsked]);
  const filter = useRef<HTMLInputElement>(null);

  const points = usePoints(workspace, { all: withUndo.value, text: asked.value });
  const forks = useResource(`forks ${workspace}`, (signal) => forksOf(workspace, signal));
  const lanes = (forks.value ?? []).filter(({ present }) => present).slice(0, MOST_LANES);
  void points.version.value;

  const { at, openedAt, row, pick, open } = useSelection(route, points);
  const isNow = route.view === "point" && route.to === "now";
  useTimelineKeys(workspace, { points, at, open, filter });

  return (
    <section class="timeline" aria-label="Timeline">
      <h1 class="spoken">Timeline of {nameOf(workspace)}</h1>
      <Bar
        workspace={workspace}
        points={points}
        filter={filter}
        typed={typed}
        withUndo={withUndo}
        withBackups={withBackups}
        showBackups={showBackups}
      />
      <NowRow workspace={workspace} isActive={isNow} />
      {points.problem.value === null && <UndoBar workspace={workspace} undo={points.undo} />}
      <FailedHooks workspace={workspace} />
      {withBackups && <Backups workspace={workspace} points={points} />}
      <Late isLate={points.isLoading.value && points.rows === 0} />
      {points.damaged > 0 && (
        <p class="timeline-note removed">
          {plural(points.damaged, "save point")} cannot be read: <code>cairn doctor</code> in a terminal tells more.
        </p>
      )}
      {points.problem.value !== null ? (
        <Problem problem={points.problem.value} again={() => void points.load()} />
      ) : points.rows === 0 ? (
        !points.isLoading.value && <Nothing isFiltered={points.isFiltered} />
      ) : (
        <VirtualList
          label="Save points"
          count={points.rows}
          rowHeight={ROW}
          active={row}
          onRange={(first, end) => points.show(first, end)}
          row={(index) => (
            <TimelineRow
              key={points.keyOf(index)}
              index={index}
              points={points}
              lanes={lanes}
              workspace={workspace}
              // What is open beside the list may be no point: the folder now, or a backup.
              activeAt={opened === null ? at : openedAt}
              pick={pick}
            />
          )}
        />
      )}
      <MarkBar workspace={workspace} />
    </section>
  );
}

/** A point of a list; -1: none. Its page may not have been loaded then, so that its id is unknown. */
interface Selected {
  id: string | undefined;
  at: number;
}

/** The selected point, or the point below the backup that was open last, by workspace and number of operations. */
const selected = new Map<string, Signal<Selected>>();

/** After an operation of the page nothing is selected: the folder of now is shown beside the list. */
function selectedIn(workspace: string): Signal<Selected> {
  const key = `${ownOperations.value} ${workspace}`;
  const known = selected.get(key) ?? signal({ id: undefined, at: -1 });
  selected.set(key, known);
  return known;
}

/** Returns the present index of a selected point; -1 if the list does not have the point. */
function placeOf({ id, at }: Selected, points: TimelinePoints): number {
  const found = id === undefined ? -1 : points.indexOf(id);
  const isUnknown = id === undefined || (!points.isFiltered && points.point(at) === undefined);
  return found < 0 && isUnknown ? at : found;
}

/**
 * Returns the index of the selected point, that of the open point, the row to scroll to, and functions that select a point
 * and open the next or the previous one. After another view the list is scrolled to the row that was open last.
 */
function useSelection(
  route: TimelineRoute,
  points: TimelinePoints,
): { at: number; openedAt: number; row: number | undefined; pick(at: number): void; open(by: 1 | -1): void } {
  const { workspace } = route;
  const active = selectedIn(workspace);
  const opened = route.view === "point" ? route.point : null;
  const backup = opened === null || !isBackup(opened) ? null : points.placeOf(snapshotOf(opened));
  // The open point stays selected when newer points are added above it.
  const openedAt = route.view !== "point" || route.to === "now" ? -1 : points.indexOf(route.point);
  const shownAt = backup?.below ?? openedAt;
  const at = shownAt >= 0 ? shownAt : placeOf(active.value, points);
  const pick = (picked: number): void => {
    active.value = { id: points.point(picked)?.save_point_id, at: picked };
  };
  useEffect(() => {
    if (shownAt >= 0) pick(shownAt);
  }, [shownAt]);
  const open = (by: 1 | -1): void => {
    // The point below a backup is the next one.
    const to = backup !== null && by > 0 ? at : at + by;
    const next = Math.max(0, Math.min(points.total - 1, to));
    pick(next);
    const point = points.point(next);
    if (route.view === "point" && point !== undefined)
      go({ view: "point", workspace, point: point.save_point_id }, { replace: true });
  };
  return { at, openedAt, row: backup?.row ?? (at < 0 ? undefined : points.rowOf(at)), pick, open };
}

/** The workspaces whose timelines show backups, until the page is closed. */
const backupsShown = signal<ReadonlySet<string>>(new Set());

/**
 * Returns whether the timeline shows backups, and a function that changes this. Backups are shown if the address says so,
 * and when a backup is opened; the address of a timeline then says so too.
 */
function useBackupsShown(route: TimelineRoute): [isShown: boolean, show: (isWanted: boolean) => void] {
  const { workspace } = route;
  const isShown = backupsShown.value.has(workspace);
  const isAsked = route.view === "timeline" ? route.backups === true : isBackup(route.point);
  const show = (isWanted: boolean): void => {
    const next = new Set(backupsShown.value);
    if (isWanted) next.add(workspace);
    else next.delete(workspace);
    backupsShown.value = next;
    if (route.view === "timeline" && (route.backups === true) !== isWanted)
      go({ ...route, backups: isWanted }, { replace: true });
  };
  useEffect(() => {
    if (isAsked || isShown) show(true);
  }, [workspace, route.view, isAsked]);
  return [isShown, show];
}

/** Offers the keys that move through the points, and act on the selected one. */
function useTimelineKeys(
  workspace: string,
  {
    points,
    at,
    open,
    filter,
  }: { points: TimelinePoints; at: number; open(by: 1 | -1): void; filter: RefObject<HTMLInputElement | null> },
): void {
  const withCurrent = (run: (point: SavePoint) => void) => (): void => {
    const point = points.point(Math.max(0, at));
    if (point !== undefined) run(point);
  };
  useActions([
    { key: "j", title: "Select the next save point", run: () => open(1) },
    { key: "k", title: "Select the previous save point", run: () => open(-1) },
    { key: "ArrowDown", title: "Select the next save point", run: () => open(1) },
    { key: "ArrowUp", title: "Select the previous save point", run: () => open(-1) },
    { key: "/", title: "Filter the save points", run: () => filter.current!.focus() },
    {
      key: "Enter",
      title: "Open the selected save point",
      run: withCurrent(({ save_point_id: point }) => go({ view: "point", workspace, point })),
    },
    {
      key: "x",
      title: "Mark the selected save point, or compare it with the marked one",
      run: withCurrent((point) => mark(markOf(workspace, point))),
    },
  ]);
}

/** Returns the points that match a filter, loaded again after each event that changes them. */
function usePoints(workspace: string, { all, text }: Filter): TimelinePoints {
  const points = useMemo(() => new TimelinePoints(workspace, { all, text }), [workspace, all, text]);
  useEffect(() => {
    void points.load();
    const end = onEvent((event) => {
      const isOurs = event.workspace === workspace || event.workspace === null;
      // Another process changed the workspace's records, for example restored a point.
      const isOfRecords = event.type === "changed" && event.data.paths === 0;
      if (isOurs && (isOfRecords || CHANGING.includes(event.type))) void points.load();
    });
    return () => {
      end();
      points.stop();
    };
  }, [points]);
  return points;
}

/** Says which agents' hooks could not save the folder. Loaded again with the points, and while the page is looked at. */
function FailedHooks({ workspace }: { workspace: string }): JSX.Element {
  const { value, reload } = useResource(`hooks ${workspace}`, async (signal) => {
    const { agents } = await call("agentEvents", { workspace, options: { limit: 0 } }, { signal });
    return agents;
  });
  useEffect(() => {
    const end = onEvent(reload);
    // A hook that fails causes no event.
    const timer = setInterval(() => !document.hidden && reload(), HOOKS_MS);
    return () => {
      end();
      clearInterval(timer);
    };
  }, []);
  return (
    <>
      {value?.map(
        ({ agent, failed }) =>
          failed !== null && (
            <p key={agent} class={`timeline-note ${failed.over ? "faint" : "removed"}`}>
              {plural(failed.count, "hook")} of <Words text={agent} /> failed since{" "}
              <When at={failed.since} as={wholeTime} />: <Words text={failed.reason} />
              {failed.over && "; a later hook saved the folder"}
            </p>
          ),
      )}
    </>
  );
}

/** Loads the backups of the folder, shows them among the points, and says which cannot be read. */
function Backups({ workspace, points }: { workspace: string; points: TimelinePoints }): JSX.Element {
  const { value, problem, isLate, reload } = useResource(`backups ${workspace}`, (signal) =>
    call("listBackups", { workspace }, { signal }),
  );
  useEffect(() => {
    points.showBackups(value?.snapshots ?? []);
    return () => points.showBackups([]);
  }, [points, value]);
  return (
    <>
      <Late isLate={isLate.value} />
      {problem !== null && <Problem problem={problem} again={reload} />}
      {value !== undefined && value.snapshots.length + value.damaged.length === 0 && (
        <p class="timeline-note faint">The repository has no backup of this folder yet.</p>
      )}
      {value !== undefined && value.damaged.length > 0 && (
        <p class="timeline-note removed">
          {plural(value.damaged.length, "backup")} cannot be read: <code>cairn backup verify</code> in a terminal tells
          more.
        </p>
      )}
    </>
  );
}

function Bar({
  workspace,
  points,
  filter,
  typed,
  withUndo,
  withBackups,
  showBackups,
}: {
  workspace: string;
  points: TimelinePoints;
  filter: RefObject<HTMLInputElement | null>;
  typed: Signal<string>;
  withUndo: Signal<boolean>;
  withBackups: boolean;
  showBackups(isWanted: boolean): void;
}): JSX.Element {
  const kept = useResource(`kept ${workspace}`, (signal) => call("backupRepository", { workspace }, { signal }));
  return (
    <div class="view-bar">
      <SearchField
        field={filter}
        label="Filter"
        placeholder="Filter: text, tag:release, path:src/a.ts, since:yesterday"
        typed={typed}
        onKeyDown={(event) => event.key === "Escape" && event.currentTarget.blur()}
      />
      <Filters typed={typed} points={points} focus={() => filter.current!.focus()} />
      <Check is={withUndo}>undo points</Check>
      {kept.value?.repository !== undefined && (
        <label class="check">
          <input type="checkbox" checked={withBackups} onChange={(event) => showBackups(event.currentTarget.checked)} />
          {withBackups && points.backups > 0 ? `backups (${points.backups} shown)` : "backups"}
        </label>
      )}
    </div>
  );
}

function Nothing({ isFiltered }: { isFiltered: boolean }): JSX.Element {
  if (isFiltered) return <Empty title="Nothing fits this filter" />;
  return (
    <Empty title="No save point yet">
      {isReadOnly() ? (
        <p>
          <code>cairn save</code> in a terminal makes the first one.
        </p>
      ) : (
        <p>
          <em>Save…</em> above makes the first one.
        </p>
      )}
    </Empty>
  );
}

function TimelineRow({
  index,
  points,
  lanes,
  workspace,
  activeAt,
  pick,
}: {
  index: number;
  points: TimelinePoints;
  lanes: readonly Fork[];
  workspace: string;
  activeAt: number;
  pick(at: number): void;
}): JSX.Element {
  const row = points.row(index);
  if ("day" in row) return <DayRow {...row} />;
  if ("turn" in row) return <TurnRow workspace={workspace} {...row} />;
  if ("backup" in row) return <BackupRow workspace={workspace} backup={row.backup} />;
  const point = points.point(row.at);
  if (point === undefined) return <div class="point-row waiting" aria-hidden="true" />;
  return (
    <PointRow
      workspace={workspace}
      point={point}
      newer={points.point(row.at - 1)}
      older={points.point(row.at + 1)}
      changes={points.changes(point.save_point_id)}
      isHead={point.save_point_id === points.head}
      isInPart={points.isInPart}
      isActive={row.at === activeAt}
      lanes={lanes.map((lane) => {
        const start = points.indexOf(lane.origin.save_point_id);
        return { ...lane, isStart: start === row.at, isDrawn: start >= row.at };
      })}
      onPick={() => pick(row.at)}
    />
  );
}
