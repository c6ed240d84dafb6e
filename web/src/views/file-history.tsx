import { useSignal } from "@preact/signals";
import type { DiffEntry, Turn, WhyResult } from "cairnstate/client";
import type { JSX } from "preact";
import "../styles/file-history.css";
import { call, download } from "../app/calls.ts";
import { useActions } from "../app/keys.ts";
import { useResource } from "../app/resource.ts";
import { href, nameOf, type Route, toInput, toText } from "../app/address.ts";
import { go } from "../app/route.ts";
import { isReadOnly } from "../app/session.ts";
import { turnsIn, turnThatMade } from "../app/turns.ts";
import { CauseName } from "../parts/cause.tsx";
import { Icon } from "../parts/icon.tsx";
import { PathName, Words } from "../parts/name.tsx";
import { count, plural, size } from "../parts/numbers.ts";
import { Empty, Late, Problem, waiting } from "../parts/problem.tsx";
import { When, wholeTime } from "../parts/values.tsx";
import { Content } from "./files/preview.tsx";
import "./files/files.css";
import { FileDiff } from "./point/file-diff.tsx";
import "./point/point.css";

type HistoryRoute = Extract<Route, { view: "file-history" }>;
type Version = WhyResult["changes"][number];
/** Characters of a prompt that are shown. */
const SHORT = 80;

/** Lists every version of a path, and shows the difference between two of them. */
export function View({ route }: { route: HistoryRoute }): JSX.Element {
  const { workspace, at } = route;
  const { value, problem, isLate, isOld, reload } = useResource(`why ${workspace} ${toText(at)}`, (signal) =>
    call("why", { workspace, path: toInput(at) }, { signal }),
  );
  return (
    <section class="file-history" aria-label="History of a path">
      <header class="files-head">
        <h1>
          <PathName path={at.path} />
        </h1>
        {value !== undefined && <span class="faint">{versionsText(value.changes)}</span>}
      </header>
      <Late isLate={isLate.value} />
      {problem !== null && <Problem problem={problem} again={reload} />}
      {value?.changes.length === 0 && <Empty title="No save point changed this path" />}
      {value !== undefined && value.changes.length > 0 && (
        <Versions route={route} versions={value.changes} isOld={isOld} />
      )}
    </section>
  );
}

/** `2 versions, removed once`. */
function versionsText(changes: readonly Version[]): string {
  const removed = changes.filter(({ change }) => change === "removed").length;
  const versions = plural(changes.length - removed, "version");
  return removed === 0 ? versions : `${versions}, removed ${removed === 1 ? "once" : `${count(removed)} times`}`;
}

const idOf = (version: Version): string => version.save_point.save_point_id;

function Versions({
  route,
  versions,
  isOld,
}: {
  route: HistoryRoute;
  versions: readonly Version[];
  isOld: boolean;
}): JSX.Element {
  const { workspace, at } = route;
  // By default compares the newest version with the one before it.
  const b = versions.find((each) => idOf(each) === route.b) ?? versions[0]!;
  const a = versions.find((each) => idOf(each) === route.a) ?? versions[versions.indexOf(b) + 1];
  const active = useSignal(versions.indexOf(b));
  const pick = (to: Partial<{ a: string; b: string }>): void => go({ ...route, ...to }, { replace: true });
  const move = (by: number): void => {
    active.value = Math.max(0, Math.min(versions.length - 1, active.value + by));
    pick({ b: idOf(versions[active.value]!), a: "" });
  };
  useActions([
    { key: "j", title: "Show the version before", run: () => move(1) },
    { key: "k", title: "Show the version after", run: () => move(-1) },
    { key: "Escape", title: "Go to the timeline", run: () => go({ view: "timeline", workspace }) },
  ]);
  const turns = useResource(`turns of ${workspace}`, (signal) => turnsIn(workspace, signal)).value ?? [];
  const entry = entryOf(at, a, b);
  return (
    <div class="versions" {...waiting(isOld)}>
      <ol aria-label="Versions, newest first">
        {versions.map((each) => (
          <VersionRow
            key={idOf(each)}
            route={route}
            version={each}
            turn={turnThatMade(turns, each.save_point)}
            isA={each === a}
            isB={each === b}
            pick={pick}
          />
        ))}
      </ol>
      <div class="versions-diff">
        {a === undefined || b.change === "added" || a.change === "removed" ? (
          <Alone workspace={workspace} at={at} version={b} />
        ) : (
          <FileDiff workspace={workspace} from={idOf(a)} to={idOf(b)} entry={entry} />
        )}
      </div>
    </div>
  );
}

/** A version without one before it: its content, all of which was added. */
function Alone({
  workspace,
  at,
  version,
}: {
  workspace: string;
  at: HistoryRoute["at"];
  version: Version;
}): JSX.Element {
  if (version.change === "removed") return <p class="note">This version removed it.</p>;
  const id = idOf(version);
  return (
    <>
      <p class="note added">This version is the first, or the first after a removal: all of it was added.</p>
      {version.kind === "file" && (
        <Content key={id} workspace={workspace} point={id} entry={{ ...at, size: version.size_after ?? 0 }} />
      )}
    </>
  );
}

/** Returns the difference between two versions as an entry of a diff. */
function entryOf({ path, path_b64 }: HistoryRoute["at"], a: Version | undefined, b: Version): DiffEntry {
  return {
    path,
    ...(path_b64 === undefined ? {} : { path_b64 }),
    change: b.change === "removed" ? "removed" : "modified",
    kind: b.kind,
    aspects: b.change === "removed" ? [] : ["content"],
    ...(a?.size_after === undefined ? {} : { size_before: a.size_after }),
    ...(b.size_after === undefined ? {} : { size_after: b.size_after }),
  };
}

function VersionRow({
  route,
  version,
  turn,
  isA,
  isB,
  pick,
}: {
  route: HistoryRoute;
  version: Version;
  /** The agent's turn that made the version. */
  turn: Turn | undefined;
  isA: boolean;
  isB: boolean;
  pick(to: { a?: string; b?: string }): void;
}): JSX.Element {
  const { workspace, at } = route;
  const { save_point: point, change, size_after, aspects } = version;
  const id = idOf(version);
  return (
    <li class="version" data-a={isA} data-b={isB}>
      <span class="version-pick">
        <button
          type="button"
          class="quiet"
          aria-pressed={isA}
          onClick={() => pick({ a: id })}
          title="compare from here"
        >
          from
        </button>
        <button type="button" class="quiet" aria-pressed={isB} onClick={() => pick({ b: id })} title="compare to here">
          to
        </button>
      </span>
      <div class="version-words">
        <a class="version-main" href={href({ view: "point", workspace, point: id, file: at })}>
          <Words text={point.message === "" ? "no message" : point.message} />
          <span class="facts faint">
            <When at={point.created_at} as={wholeTime} />
            <CauseName cause={point.cause} />
            <span class={change}>{change}</span>
            {size_after !== undefined && <span>{size(size_after)}</span>}
            {change === "modified" && !aspects.includes("content") && <span>{aspects.join(", ")}</span>}
            {version.back_to !== undefined && <span>same as {version.back_to.slice(0, 8)}</span>}
          </span>
        </a>
        {turn !== undefined && turn.prompt !== null && (
          <a
            class="version-turn"
            title="All changes of the turn"
            href={href(
              turn.after === null || turn.before === null
                ? { view: "timeline", workspace }
                : { view: "point", workspace, point: turn.after, to: turn.before },
            )}
          >
            <Words text={turn.prompt.slice(0, SHORT)} />
          </a>
        )}
      </div>
      {change !== "removed" && <VersionActions route={route} version={version} />}
    </li>
  );
}

function VersionActions({ route, version }: { route: HistoryRoute; version: Version }): JSX.Element {
  const { workspace, at } = route;
  const id = idOf(version);
  return (
    <span class="version-actions">
      {version.kind === "file" && (
        <button
          type="button"
          class="quiet"
          title="Download this version, under any name"
          onClick={() => void download({ workspace, target: id, path: toInput(at), as: "file", name: nameOf(at.path) })}
        >
          <Icon name="download" /> Download
        </button>
      )}
      {!isReadOnly() && (
        <a
          class="button quiet"
          title="Restore this version"
          href={href({ view: "restore", workspace, point: id, paths: [at] })}
        >
          <Icon name="restore" /> Restore…
        </a>
      )}
    </span>
  );
}
