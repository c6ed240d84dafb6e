import { useSignal } from "@preact/signals";
import type { VerbCalls } from "cairnstate/client";
import type { JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import "../styles/search.css";
import { call } from "../app/calls.ts";
import { useActions } from "../app/keys.ts";
import { useResource } from "../app/resource.ts";
import { href, type Route } from "../app/address.ts";
import { go } from "../app/route.ts";
import { Icon } from "../parts/icon.tsx";
import { PathName } from "../parts/name.tsx";
import { plural } from "../parts/numbers.ts";
import { Late, Problem } from "../parts/problem.tsx";
import { SearchField, useTyped } from "../parts/search-field.tsx";
import { VirtualList } from "../parts/virtual-list.tsx";

type SearchRoute = Extract<Route, { view: "search" }>;
type Found = VerbCalls["findNames"]["answer"]["found"][number];

const TYPING_MS = 200;
const MOST = 2_000;
/** Height of a row in pixels, as in search.css. */
const ROW = 44;

/** Searches names in all save points of the workspace, also names of removed files. */
export function View({ route }: { route: SearchRoute }): JSX.Element {
  const { workspace, q } = route;
  const { typed } = useTyped(q, {
    afterMs: TYPING_MS,
    write: (text) => go({ ...route, q: text }, { replace: true }),
  });
  const input = useRef<HTMLInputElement>(null);
  const active = useSignal(0);
  useEffect(() => input.current!.focus(), []);
  const { value, problem, isLate, reload } = useResource(`search ${workspace} ${q}`, async (signal) =>
    q.trim() === ""
      ? null
      : call("findNames", { workspace, pattern: q.trim(), options: { ignoreCase: true, limit: MOST } }, { signal }),
  );
  const found = value ?? null;
  const rows = found?.found ?? [];
  const open = (each: Found | undefined): void => {
    if (each !== undefined) location.hash = hrefOf(workspace, each);
  };
  useActions([
    { key: "/", title: "Search names", run: () => input.current!.focus() },
    {
      key: "j",
      title: "Select the next name",
      run: () => (active.value = Math.min(rows.length - 1, active.value + 1)),
    },
    { key: "k", title: "Select the previous name", run: () => (active.value = Math.max(0, active.value - 1)) },
    { key: "Enter", title: "Open the selected name", run: () => open(rows[active.value]) },
  ]);
  return (
    <section class="search" aria-label="Search">
      <h1 class="spoken">Search in all save points</h1>
      <div class="view-bar">
        <SearchField
          field={input}
          label="Names in all save points"
          placeholder="Part of a name, or *.ts: in all save points"
          typed={typed}
          onKeyDown={(event) => {
            if (event.key !== "Enter" && event.key !== "Escape") return;
            event.currentTarget.blur();
            if (event.key === "Enter" && typed.value === q) open(rows[active.value]);
          }}
        />
        {found !== null && (
          <span class="faint">
            {plural(rows.length, "name")}
            {found.truncated && " and more: type more of the name"}
          </span>
        )}
      </div>
      <Late isLate={isLate.value} />
      {problem !== null && <Problem problem={problem} again={reload} />}
      {found !== null && rows.length === 0 && <p class="note">No save point has such a name.</p>}
      {rows.length > 0 && (
        <VirtualList
          label="Names"
          role="listbox"
          count={rows.length}
          rowHeight={ROW}
          active={active.value}
          row={(index) => (
            <FoundRow
              key={rows[index]!.path}
              workspace={workspace}
              found={rows[index]!}
              isActive={index === active.value}
            />
          )}
        />
      )}
    </section>
  );
}

function hrefOf(workspace: string, found: Found): string {
  if (found.kind === "directory") return href({ view: "files", workspace, point: found.newest, at: found });
  return href({ view: "file-history", workspace, at: found });
}

function FoundRow({ workspace, found, isActive }: { workspace: string; found: Found; isActive: boolean }): JSX.Element {
  const { kind, path, points, in_latest } = found;
  return (
    <a class="found" role="option" aria-selected={isActive} tabIndex={-1} href={hrefOf(workspace, found)}>
      <Icon name={kind === "directory" ? "folder" : kind === "symlink" ? "link" : "file"} />
      <PathName path={path} />
      <span class="space" />
      {!in_latest && <span class="badge warn">gone</span>}
      <span class="faint found-points">{plural(points, "save point has it", "save points have it")}</span>
    </a>
  );
}
