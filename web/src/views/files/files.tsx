import { type Signal, useSignal } from "@preact/signals";
import type { ListedEntry } from "cairnstate/client";
import type { JSX } from "preact";
import { useMemo } from "preact/hooks";
import "./files.css";
import { call, download } from "../../app/calls.ts";
import { useActions } from "../../app/keys.ts";
import { useResource } from "../../app/resource.ts";
import {
  foldersOf,
  href,
  isBackup,
  nameOf,
  partsOf,
  type Route,
  snapshotOf,
  toInput,
  toText,
} from "../../app/address.ts";
import { go } from "../../app/route.ts";
import { isReadOnly } from "../../app/session.ts";
import { Icon } from "../../parts/icon.tsx";
import { Name, PathName, visible, Words } from "../../parts/name.tsx";
import { count, plural, size } from "../../parts/numbers.ts";
import { Late, Problem, waiting } from "../../parts/problem.tsx";
import { When, wholeTime } from "../../parts/values.tsx";
import { VirtualList } from "../../parts/virtual-list.tsx";
import { chooseNone, chosenIn, toggle } from "./chosen.ts";
import { Preview } from "./preview.tsx";

type FilesRoute = Extract<Route, { view: "files" }>;
type Column = "name" | "size" | "time" | "kind";
/** Height of a row in pixels, as in files.css. */
const ROW = 32;

/** Browses a save point or a backup, one folder at a time. */
export function View({ route }: { route: FilesRoute }): JSX.Element {
  const { workspace, point, at } = route;
  const [column, isReversed] = sortOf(route);
  const key = `folder ${workspace} ${point} ${toText(at)} ${column} ${isReversed}`;
  const { value, problem, isLate, isOld, reload } = useResource(
    key,
    (signal) => list(route, { sort: column, reverse: isReversed }, signal),
    { isFixed: /^(?:[0-9a-f]{32}|backup:[0-9a-f]{64})$/.test(point) },
  );
  return (
    <section class="files" aria-label="Files">
      <h1 class="spoken">Files of {nameOf(at.path === "" ? workspace : at.path)}</h1>
      <Path route={route} listed={value} />
      <Late isLate={isLate.value} />
      {problem !== null && <Problem problem={problem} again={reload} />}
      {value !== undefined && <Folder key={`${point} ${toText(at)}`} route={route} listed={value} isOld={isOld} />}
    </section>
  );
}

interface Listed {
  /** The point or the backup, by its whole id. */
  state: string;
  created_at: string;
  message: string;
  entries: readonly ListedEntry[];
}

async function list(
  { workspace, point, at }: FilesRoute,
  options: { sort: Column; reverse: boolean },
  signal: AbortSignal,
): Promise<Listed> {
  const path = toInput(at);
  if (!isBackup(point)) {
    const { save_point, entries } = await call("show", { workspace, target: point, path, options }, { signal });
    return { ...save_point, state: save_point.save_point_id, entries };
  }
  const asked = { workspace, snapshot: snapshotOf(point), path, options };
  const { snapshot, entries } = await call("showBackup", asked, { signal });
  const { snapshot_id: id, created_at } = snapshot;
  return { state: `backup:${id}`, created_at, message: `Backup ${id.slice(0, 8)}`, entries };
}

function sortOf({ sort = "name" }: FilesRoute): [Column, boolean] {
  const isReversed = sort.startsWith("-");
  return [(isReversed ? sort.slice(1) : sort) as Column, isReversed];
}

/** The parent folders as links, and the save point or the backup. */
function Path({ route, listed }: { route: FilesRoute; listed: Listed | undefined }): JSX.Element {
  const { workspace, at } = route;
  const parts = partsOf(at);
  return (
    <header class="files-head">
      <nav class="crumbs" aria-label="Folder">
        <a href={href({ ...route, at: { path: "" } })}>
          <Name text={nameOf(workspace)} />
        </a>
        {parts.map(({ name, at: folder }, i) => (
          <span key={i}>
            <span class="faint">/</span>
            {i === parts.length - 1 ? (
              <strong>
                <Name text={name} />
              </strong>
            ) : (
              <a href={href({ ...route, at: folder })}>
                <Name text={name} />
              </a>
            )}
          </span>
        ))}
      </nav>
      {listed !== undefined && (
        <a class="files-point faint" href={href({ view: "point", workspace, point: listed.state })}>
          <When at={listed.created_at} as={wholeTime} />
          <Words text={listed.message} />
        </a>
      )}
    </header>
  );
}

function Folder({ route, listed, isOld }: { route: FilesRoute; listed: Listed; isOld: boolean }): JSX.Element {
  const { workspace } = route;
  const point = listed.state;
  const entries = useMemo(() => foldersFirst(listed.entries), [listed]);
  const active = useSignal(0);
  const state = `${workspace} ${point}`;
  const chosen = chosenIn(state);
  const isWithFolder = partsOf(route.at).some(({ at }) => chosen.has(toText(at)));
  const previewed = useSignal<ListedEntry | null>(null);
  const entry = (index: number): ListedEntry | undefined => entries[index];
  const open = (each: ListedEntry | undefined): void => {
    if (each === undefined) return;
    if (each.kind === "directory") go({ ...route, at: each });
    else previewed.value = each;
  };
  const choose = (each: ListedEntry | undefined): void => {
    if (each !== undefined && !isWithFolder) toggle(state, each);
  };
  useFolderKeys(route, { entry, open, choose, active, previewed, count: entries.length });
  return (
    <div class="folder" data-preview={previewed.value !== null} {...waiting(isOld)}>
      <div class="folder-list">
        <FolderBar route={route} point={point} entries={entries} picked={[...chosen.values()]} />
        <ChosenList state={state} picked={[...chosen.values()]} />
        <div class="entries" role="grid" aria-label="Entries">
          <Columns route={route} />
          {entries.length === 0 ? (
            <p class="note faint" role="presentation">
              This folder is empty.
            </p>
          ) : (
            <VirtualList
              label="Entries"
              role="rowgroup"
              count={entries.length}
              rowHeight={ROW}
              active={active.value}
              row={(index) => {
                const each = entries[index]!;
                return (
                  <EntryRow
                    key={each.path}
                    route={route}
                    entry={each}
                    isActive={index === active.value}
                    isChosen={isWithFolder || chosen.has(toText(each))}
                    isWithFolder={isWithFolder}
                    choose={() => choose(each)}
                    open={() => {
                      active.value = index;
                      open(each);
                    }}
                  />
                );
              }}
            />
          )}
        </div>
      </div>
      {previewed.value !== null && (
        <Preview
          key={toText(previewed.value)}
          workspace={workspace}
          point={point}
          entry={previewed.value}
          close={() => (previewed.value = null)}
        />
      )}
    </div>
  );
}

function foldersFirst(entries: readonly ListedEntry[]): ListedEntry[] {
  return [true, false].flatMap((isFolder) => entries.filter(({ kind }) => (kind === "directory") === isFolder));
}

interface FolderState {
  entry(index: number): ListedEntry | undefined;
  open(each: ListedEntry | undefined): void;
  choose(each: ListedEntry | undefined): void;
  active: Signal<number>;
  previewed: Signal<ListedEntry | null>;
  count: number;
}

function useFolderKeys(
  route: FilesRoute,
  { entry, open, choose, active, previewed, count: entries }: FolderState,
): void {
  const { workspace } = route;
  const above = (): void => {
    if (route.at.path !== "") go({ ...route, at: partsOf(route.at).at(-2)?.at ?? { path: "" } });
  };
  const move = (by: number): void => {
    active.value = Math.max(0, Math.min(entries - 1, active.value + by));
    if (previewed.value !== null && entry(active.value)?.kind === "file") previewed.value = entry(active.value)!;
  };
  useActions([
    { key: "j", title: "Select the next entry", run: () => move(1) },
    { key: "k", title: "Select the previous entry", run: () => move(-1) },
    { key: "ArrowDown", title: "Select the next entry", run: () => move(1) },
    { key: "ArrowUp", title: "Select the previous entry", run: () => move(-1) },
    { key: "Enter", title: "Open the folder or preview the file", run: () => open(entry(active.value)) },
    { key: "x", title: "Choose the entry, or not", run: () => choose(entry(active.value)) },
    { key: "Backspace", title: "Go to the folder above", run: above },
    {
      key: "h",
      title: "Show the history of the entry",
      run: () => {
        const each = entry(active.value);
        if (each !== undefined) go({ view: "file-history", workspace, at: each });
      },
    },
    { key: "Escape", title: "Close the preview", run: () => (previewed.value = null) },
  ]);
}

/** The actions for the chosen entries of all folders, or for the whole folder. */
function FolderBar({
  route,
  point,
  entries,
  picked,
}: {
  route: FilesRoute;
  point: string;
  entries: readonly ListedEntry[];
  picked: readonly ListedEntry[];
}): JSX.Element {
  const { workspace, at } = route;
  const isWhole = picked.length === 0;
  const paths = isWhole ? [at] : picked;
  const name = archiveName(route, picked);
  const save = (as: "zip" | "tar"): void => {
    // A call without paths means the whole folder.
    const chosen = paths.filter(({ path }) => path !== "").map(toInput);
    const content = chosen.length === 0 ? {} : { paths: chosen };
    void download({ workspace, target: point, ...content, as, name: `${name}.${as}` });
  };
  return (
    <div class="folder-bar">
      <span class="faint">
        {plural(entries.length, "entry", "entries")}
        {sizeOf(entries)}
      </span>
      <span class="space" />
      <span class="faint">{isWhole ? "The whole folder:" : `${count(picked.length)} chosen:`}</span>
      <button type="button" onClick={() => save("zip")}>
        <Icon name="download" /> Zip
      </button>
      <button type="button" onClick={() => save("tar")}>
        <Icon name="download" /> Tar
      </button>
      {!isReadOnly() && (
        <a
          class="button strong"
          href={href({ view: "restore", workspace, point, paths: at.path === "" && isWhole ? [] : paths })}
        >
          <Icon name="restore" /> Restore…
        </a>
      )}
    </div>
  );
}

/** `, 12 KiB`; empty if a folder is among the entries, of which no size is known. */
function sizeOf(entries: readonly ListedEntry[]): string {
  const bytes = entries.reduce((sum, each) => sum + each.size, 0);
  return bytes === 0 || entries.some(({ kind }) => kind === "directory") ? "" : `, ${size(bytes)}`;
}

/** Returns the name of an archive: of the only chosen entry, else of the folder that has all entries. */
function archiveName({ workspace, at }: FilesRoute, picked: readonly ListedEntry[]): string {
  if (picked.length === 1) return nameOf(picked[0]!.path);
  const isHere = picked.every((each) => (foldersOf(each).at(-1) ?? "") === toText(at));
  return nameOf(isHere && at.path !== "" ? at.path : workspace);
}

/** Lists the chosen entries of all folders of a point or a backup. */
function ChosenList({ state, picked }: { state: string; picked: readonly ListedEntry[] }): JSX.Element | null {
  if (picked.length === 0) return null;
  return (
    <div class="chosen">
      <details>
        <summary>
          {count(picked.length)} chosen{sizeOf(picked)}
        </summary>
        <ul>
          {picked.map((each) => (
            <li key={toText(each)}>
              <PathName path={each.kind === "directory" ? `${each.path}/` : each.path} />
              <button
                type="button"
                class="quiet"
                aria-label={`Do not choose ${visible(each.path)}`}
                onClick={() => toggle(state, each)}
              >
                <Icon name="close" />
              </button>
            </li>
          ))}
        </ul>
      </details>
      <button type="button" class="quiet" onClick={() => chooseNone(state)}>
        Choose none
      </button>
    </div>
  );
}

const COLUMNS: readonly (readonly [Column, string])[] = [
  ["name", "Name"],
  ["size", "Size"],
  ["time", "Changed"],
];

function Columns({ route }: { route: FilesRoute }): JSX.Element {
  const [column, isReversed] = sortOf(route);
  return (
    <div class="entry-row columns" role="row">
      <span class="entry-check" />
      {COLUMNS.map(([each, title]) => (
        <span
          key={each}
          role="columnheader"
          class={`entry-${each}`}
          aria-sort={each !== column ? "none" : isReversed ? "descending" : "ascending"}
        >
          <a href={href({ ...route, sort: each === column && !isReversed ? `-${each}` : each })}>
            {title} {each === column ? (isReversed ? "▾" : "▴") : ""}
          </a>
        </span>
      ))}
    </div>
  );
}

function EntryRow({
  route,
  entry,
  isActive,
  isChosen,
  isWithFolder,
  choose,
  open,
}: {
  route: FilesRoute;
  entry: ListedEntry;
  isActive: boolean;
  isChosen: boolean;
  /** True if a folder above is chosen. */
  isWithFolder: boolean;
  choose(): void;
  open(): void;
}): JSX.Element {
  const { kind, target } = entry;
  const name = nameOf(entry.path);
  const isFolder = kind === "directory";
  return (
    <div class="entry-row" role="row" aria-selected={isChosen} data-active={isActive}>
      <span class="entry-check" role="gridcell">
        <input
          type="checkbox"
          aria-label={`choose ${name}`}
          tabIndex={-1}
          checked={isChosen}
          disabled={isWithFolder}
          onChange={choose}
          {...(isWithFolder ? { title: "Chosen with its folder" } : {})}
        />
      </span>
      <span class="entry-name" role="gridcell">
        <a
          href={isFolder ? href({ ...route, at: entry }) : "#"}
          tabIndex={-1}
          onClick={(event) => {
            if (event.ctrlKey || event.metaKey || event.shiftKey) return;
            event.preventDefault();
            open();
          }}
        >
          <Icon name={isFolder ? "folder" : kind === "symlink" ? "link" : "file"} />
          <Name text={name} />
        </a>
        {target !== undefined && (
          <span class="faint entry-target">
            → <Name text={target} />
          </span>
        )}
      </span>
      <span class="entry-size faint" role="gridcell">
        {kind === "file" ? size(entry.size) : isFolder ? "" : kind}
      </span>
      <span class="entry-time faint" role="gridcell">
        <When at={entry.modified_at} as={wholeTime} />
      </span>
    </div>
  );
}
