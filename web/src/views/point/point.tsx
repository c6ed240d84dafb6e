import { useSignal } from "@preact/signals";
import type { BackupSnapshot, DiffEntry, DiffResult, SavePoint } from "cairnstate/client";
import type { JSX } from "preact";
import { useEffect, useMemo, useRef } from "preact/hooks";
import "./point.css";
import { call } from "../../app/calls.ts";
import { useActions } from "../../app/keys.ts";
import { onEvent } from "../../app/events.ts";
import { type Fork, forksOf } from "../../app/forks.ts";
import { now } from "../../app/now.ts";
import { useResource } from "../../app/resource.ts";
import { href, isBackup, isFork, type PathRef, type Route, snapshotOf, toText } from "../../app/address.ts";
import { go, route as current } from "../../app/route.ts";
import { isReadOnly } from "../../app/session.ts";
import { TextField } from "../../parts/fields.tsx";
import { Icon } from "../../parts/icon.tsx";
import { Name, visible } from "../../parts/name.tsx";
import { plural, size } from "../../parts/numbers.ts";
import { Empty, Late, Problem, waiting } from "../../parts/problem.tsx";
import { Counts } from "../../parts/values.tsx";
import { VirtualList } from "../../parts/virtual-list.tsx";
import { type ChangedRow, ChangedTree, entriesText, firstOf, foldersText, pathsOf, sumsOf } from "./changed-tree.ts";
import { FileDiff } from "./file-diff.tsx";
import { ForkHead } from "./fork-head.tsx";
import { BackupHead, type Compare, NowHead, PointHead } from "./point-head.tsx";

type PointRoute = Extract<Route, { view: "point" }>;
/** Height of a row of the tree in pixels, as in point.css. */
const ROW = 28;

/** The two states that are compared. */
interface Comparison {
  from: string;
  /** Null: the present folder. */
  to: string | null;
}

interface Loaded {
  /** The point and the other state as the address names them. */
  of: string;
  to: string | undefined;
  state: SavePoint | BackupSnapshot | Fork;
  /** Null for the first point, which has no point before it. */
  comparison: Comparison | null;
  diff: DiffResult | null;
}

/**
 * A save point with its changes; a backup compared with another state, by default with the present folder; or a fork
 * compared with the point it was made from, or with the present folder.
 */
export function View({ route }: { route: PointRoute }): JSX.Element {
  const { workspace, point: id, to } = route;
  const { value, problem, isLate, isOld, reload } = useResource(
    `point ${workspace} ${id} ${to}`,
    (stop) => load(workspace, { id, to, stop }),
    { isOfNow: to === "now" || isFork(id) || isBackup(id) },
  );
  // The timeline beside this view looks at the folder again and again.
  const seen = useRef(now.value);
  useEffect(() => {
    if (to === "now" && now.value !== seen.current) reload();
    seen.current = now.value;
  }, [now.value]);
  useEffect(() => (isFork(id) ? onEvent((event) => event.workspace === id && reload()) : undefined), [id]);
  // Beside the timeline the keys are the timeline's.
  const isBeside = current.value.view !== "point";
  const compare = (wanted: string | undefined): void => go({ view: "point", workspace, point: id, to: wanted });
  useActions(
    isBeside
      ? []
      : [
          { key: "Escape", title: "Close the save point", run: () => go({ view: "timeline", workspace }) },
          {
            key: "d",
            title: "Compare with the folder as it is now",
            run: () => compare(to === "now" ? undefined : "now"),
          },
        ],
  );
  if (problem !== null) return <Problem problem={problem} again={reload} />;
  const isOther = value !== undefined && value.of !== id;
  return (
    <section class="point" aria-label="Save point">
      <Late isLate={isLate.value} />
      {value !== undefined && (
        <>
          <div {...waiting(isOther)}>
            <Head
              workspace={workspace}
              loaded={value}
              compare={compare}
              isShown={!isOther && !isBeside}
              changed={reload}
            />
          </div>
          {value.diff === null || value.comparison === null ? (
            <Empty title="This is the first save point: everything in it is new">
              <a class="button" href={href({ view: "files", workspace, point: id, at: { path: "" } })}>
                Look at its files
              </a>
            </Empty>
          ) : (
            <Changed
              key={`${value.of} ${value.to}`}
              route={route}
              diff={value.diff}
              comparison={value.comparison}
              isOld={isOld}
              reload={reload}
            />
          )}
        </>
      )}
    </section>
  );
}

/** The head of what is loaded: a point, a backup, a fork, or the folder now. */
function Head({
  workspace,
  loaded: { state, to },
  ...rest
}: {
  workspace: string;
  loaded: Loaded;
  compare: Compare;
  isShown: boolean;
  changed(): void;
}): JSX.Element {
  const { compare } = rest;
  if ("snapshot_id" in state) return <BackupHead workspace={workspace} backup={state} to={to} compare={compare} />;
  if ("origin" in state) return <ForkHead workspace={workspace} fork={state} to={to} />;
  if (to === "now") return <NowHead workspace={workspace} point={state} compare={compare} />;
  return <PointHead key={state.save_point_id} workspace={workspace} point={state} to={to} {...rest} />;
}

async function load(
  workspace: string,
  { id, to, stop }: { id: string; to: string | undefined; stop: AbortSignal },
): Promise<Loaded> {
  if (isFork(id)) {
    const state = (await forksOf(workspace, stop)).find(({ path }) => path === id);
    if (state === undefined)
      throw Object.assign(new Error(`${id} is no fork of this workspace`), { code: "not_found" });
    const a = to === "now" ? "." : state.origin.save_point_id;
    const diff = await call("diff", { workspace, a, b: id }, { signal: stop });
    return { of: id, to, state, comparison: diff, diff };
  }
  if (isBackup(id)) {
    const [a, b] = to === undefined || to === "now" ? [id, null] : [to, id];
    const asked = { workspace, snapshot: snapshotOf(id), options: { limit: 1 } };
    const [{ snapshot: state }, diff] = await Promise.all([
      call("showBackup", asked, { signal: stop }),
      call("diff", { workspace, a, b }, { signal: stop }),
    ]);
    return { of: id, to, state, comparison: diff, diff };
  }
  const { save_point: point } = await call("show", { workspace, target: id, options: { limit: 1 } }, { signal: stop });
  const own = point.save_point_id;
  const comparison = comparisonOf(point, to);
  if (comparison === null) return { of: id, to, state: point, comparison, diff: null };
  const diff = await call("diff", { workspace, a: comparison.from, b: comparison.to }, { signal: stop });
  return { of: id, to, state: point, comparison: { from: diff.from, to: comparison.to === null ? null : own }, diff };
}

function comparisonOf({ save_point_id: own, parent_id }: SavePoint, to: string | undefined): Comparison | null {
  if (to === "now") return { from: own, to: null };
  if (to !== undefined) return { from: to, to: own };
  return parent_id === null ? null : { from: parent_id, to: own };
}

function Changed({
  route,
  diff,
  comparison,
  isOld,
  reload,
}: {
  route: PointRoute;
  diff: DiffResult;
  comparison: Comparison;
  /** True while another comparison is loading. */
  isOld: boolean;
  reload(): void;
}): JSX.Element {
  const filter = useSignal("");
  const found = useMemo(() => {
    const text = filter.value.toLowerCase();
    return text === "" ? diff.entries : diff.entries.filter(({ path }) => path.toLowerCase().includes(text));
  }, [diff, filter.value]);
  const first = useMemo(() => firstOf(found), [found]);
  const chosen = chosenOf(route, found) ?? first;
  const { bytes, sums } = useMemo(() => ({ bytes: bytesOf(diff.entries), sums: sumsOf(diff.entries) }), [diff]);
  if (diff.entries.length === 0)
    return <Empty title={comparison.to === null ? "The folder is as this save point has it" : "Nothing differs"} />;
  return (
    <div class="changed" data-chosen={route.file !== undefined} {...waiting(isOld)}>
      <div class="changed-list">
        <p class="changed-sums">
          <strong>{entriesText(diff.entries)}</strong> <Counts {...sums} />
          <span class="faint">{bytes}</span>
        </p>
        <TextField text={filter} type="search" aria-label="Filter the changed names" placeholder="Filter names" />
        {found.length === 0 ? (
          <p class="note">
            Nothing fits the filter.{" "}
            <button type="button" onClick={() => (filter.value = "")}>
              Clear the filter
            </button>
          </p>
        ) : (
          <Tree route={route} entries={found} chosen={chosen} />
        )}
        {!isReadOnly() && !isPart(comparison.from) && !isFork(route.point) && (
          <TakeBack route={route} from={comparison.from} entries={found} chosen={chosen} />
        )}
      </div>
      <div class="changed-file">
        {route.file !== undefined && (
          <a class="button quiet changed-back" href={href({ ...route, file: undefined })}>
            All changes
          </a>
        )}
        {chosen !== undefined && (
          <FileDiff
            workspace={route.workspace}
            from={comparison.from}
            to={comparison.to}
            entry={chosen}
            gone={isOld ? undefined : reload}
          />
        )}
      </div>
    </div>
  );
}

/** True for a folder inside a backup, as in a snapshot of another program. Paths in that folder do not begin at the backup's root. */
function isPart(state: string): boolean {
  return isBackup(state) && snapshotOf(state).includes(":");
}

/** An address has at most this many paths. */
const MOST_PATHS = 300;

/** Links to a restore of all shown changes, or of the open file, to the state before. */
function TakeBack({
  route,
  from,
  entries,
  chosen,
}: {
  route: PointRoute;
  from: string;
  entries: readonly DiffEntry[];
  chosen: DiffEntry | undefined;
}): JSX.Element | null {
  const { workspace } = route;
  const to = (paths: readonly PathRef[]): string =>
    href({ view: "restore", workspace, point: from, paths, back: true });
  // A backup does not have the new paths of added and renamed entries, and a restore of it cannot name them.
  const isNew = ({ change }: DiffEntry): boolean => isBackup(from) && (change === "added" || change === "renamed");
  const known = (list: readonly DiffEntry[]): PathRef[] =>
    list.flatMap((each) => pathsOf([each]).slice(isNew(each) ? 1 : 0));
  const all = known(entries);
  const folders = foldersText(entries);
  const stay = entries.filter(isNew).length;
  const changed = entries.filter((each) => known([each]).length > 0).length;
  const own = chosen === undefined ? [] : known([chosen]);
  // A restore without paths would restore everything.
  if (all.length === 0) return null;
  return (
    <div class="take-back">
      <span class="faint">Take back:</span>
      {all.length <= MOST_PATHS && (
        <a class="button" href={to(all)}>
          <Icon name="undo" /> {plural(changed, "entry", "entries")}…
        </a>
      )}
      {own.length > 0 && (
        <a class="button" href={to(own)}>
          <Icon name="undo" /> This file…
        </a>
      )}
      {stay > 0 && <span class="faint">{plural(stay, "new entry", "new entries")} stay</span>}
      {folders !== null && <span class="faint">{folders} stay</span>}
    </div>
  );
}

/** Returns the entry in the address, if it is one of the changes. */
function chosenOf({ file }: PointRoute, entries: readonly DiffEntry[]): DiffEntry | undefined {
  return file === undefined ? undefined : entries.find((each) => toText(each) === toText(file));
}

function bytesOf(entries: readonly DiffEntry[]): string {
  let sum = 0;
  for (const { size_before = 0, size_after = 0, change } of entries)
    if (change !== "renamed") sum += size_after - size_before;
  return sum === 0 ? "" : `${sum > 0 ? "+" : "−"}${size(Math.abs(sum))}`;
}

const SIGNS = { added: "A", removed: "D", modified: "M", renamed: "R", not_kept: "I" } as const;

function Tree({
  route,
  entries,
  chosen,
}: {
  route: PointRoute;
  entries: readonly DiffEntry[];
  chosen: DiffEntry | undefined;
}): JSX.Element {
  const closed = useSignal<ReadonlySet<string>>(new Set());
  const tree = useMemo(() => new ChangedTree(entries), [entries]);
  const rows = useMemo(() => tree.rows(closed.value), [tree, closed.value]);
  const own = useRef(rows);
  own.current = rows;
  const toggle = (path: string): void => {
    const next = new Set(closed.value);
    if (!next.delete(path)) next.add(path);
    closed.value = next;
  };
  const at = rows.findIndex((row) => row.kind === "entry" && row.entry === chosen);
  const step = (by: 1 | -1): void => {
    for (let to = at + by; to >= 0 && to < own.current.length; to += by) {
      const row = own.current[to]!;
      if (row.kind === "entry") return go({ ...route, file: row.entry }, { replace: true });
    }
  };
  useActions([
    { key: "n", title: "Show the next changed file", run: () => step(1) },
    { key: "N", title: "Show the previous changed file", run: () => step(-1) },
  ]);
  return (
    <VirtualList
      label="Changed entries"
      role="tree"
      count={rows.length}
      rowHeight={ROW}
      active={at < 0 ? undefined : at}
      row={(index) => <TreeRow key={index} row={rows[index]!} route={route} isChosen={index === at} toggle={toggle} />}
    />
  );
}

/** Describes the change of a folder itself. */
function describe({ change, aspects }: DiffEntry): string {
  return change === "modified" ? aspects.join(", ") : change;
}

function TreeRow({
  row,
  route,
  isChosen,
  toggle,
}: {
  row: ChangedRow;
  route: PointRoute;
  isChosen: boolean;
  toggle(path: string): void;
}): JSX.Element {
  const indent = { paddingLeft: `${10 + row.depth * 16}px` };
  if (row.kind === "folder")
    return (
      <div
        class="tree-row"
        role="treeitem"
        aria-level={row.depth + 1}
        aria-expanded={row.isOpen}
        style={indent}
        onClick={() => toggle(row.path)}
      >
        <span class="tree-sign faint">{row.isOpen ? "▾" : "▸"}</span>
        <Name text={`${row.name}/`} />
        {row.own !== undefined && <span class="faint tree-own">{describe(row.own)}</span>}
        <span class="space" />
        <Counts {...row} />
      </div>
    );
  const { change } = row.entry;
  return (
    <a
      class="tree-row"
      role="treeitem"
      aria-level={row.depth + 1}
      aria-selected={isChosen}
      style={indent}
      tabIndex={-1}
      href={href({ ...route, file: row.entry })}
    >
      <span class={`tree-sign ${change}`} title={visible(change)}>
        {SIGNS[change]}
      </span>
      <Name text={row.entry.kind === "directory" ? `${row.name}/` : row.name} />
    </a>
  );
}
