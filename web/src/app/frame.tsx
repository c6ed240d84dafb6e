import { signal, useSignal } from "@preact/signals";
import type { ComponentChildren, FunctionComponent, JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { Icon } from "../parts/icon.tsx";
import { Name } from "../parts/name.tsx";
import { type Action, useActions } from "./keys.ts";
import { OutcomeBar, tellOutcome } from "./outcome.tsx";
import { href, isFork, nameOf, type Route } from "./address.ts";
import { isConnected, isPartMissing } from "./resource.ts";
import { go, route } from "./route.ts";
import { about } from "./session.ts";

/** The frame around every view: title, navigation and the state of the connection. */

type SheetName = "palette" | "help";
/** The dialog over the view, if one is open. */
export const sheet = signal<SheetName | null>(null);

const SHEETS: Record<SheetName, () => Promise<{ Sheet: FunctionComponent<{ close(): void }> }>> = {
  palette: () => import("./palette.tsx"),
  help: () => import("./help.tsx"),
};

export function Frame({ children }: { children: ComponentChildren }): JSX.Element {
  const at = route.value;
  const workspace = at.view === "workspaces" ? null : at.workspace;
  // Hides the result of the last action when another workspace is shown.
  useEffect(() => () => tellOutcome(null), [workspace]);
  useEffect(() => {
    document.title = workspace === null ? "Cairn" : `${nameOf(workspace)} · Cairn`;
  }, [workspace]);
  useActions(actionsOf(workspace));
  return (
    <>
      <a class="skip" href="#main" onClick={skip}>
        Skip to the content
      </a>
      <Bar workspace={workspace} />
      {workspace !== null && (
        <nav class="tabs" aria-label="Views of the workspace">
          <Tab view="timeline" to={href({ view: "timeline", workspace })} also={["point", "restore"]}>
            <Icon name="history" /> Timeline
          </Tab>
          <Tab
            view="files"
            to={href({ view: "files", workspace, point: "latest", at: { path: "" } })}
            also={["file-history"]}
          >
            <Icon name="folder" /> Files
          </Tab>
          <Tab view="search" to={href({ view: "search", workspace, q: "" })} also={[]}>
            <Icon name="search" /> Search
          </Tab>
          <Tab view="activity" to={href({ view: "activity", workspace })} also={[]}>
            <Icon name="undo" /> Activity
          </Tab>
          <Tab view="forks" to={href({ view: "forks", workspace })} also={["adopt"]}>
            <Icon name="fork" /> Forks
          </Tab>
        </nav>
      )}
      {!isConnected.value && (
        <p class="lost" role="status">
          <Icon name="warning" /> The server does not answer. This page goes on by itself when it is back.
        </p>
      )}
      {isConnected.value && isPartMissing.value && (
        <p class="lost" role="status">
          <Icon name="warning" /> A part of this page could not be loaded.
          <button type="button" onClick={() => location.reload()}>
            Load again
          </button>
        </p>
      )}
      <main id="main" tabIndex={-1} data-view={at.view}>
        {children}
      </main>
      <OutcomeBar />
      {sheet.value !== null && <Over key={sheet.value} which={sheet.value} />}
    </>
  );
}

/** The actions of every view. */
function actionsOf(workspace: string | null): Action[] {
  const all: Action[] = [
    { key: "Mod+k", title: "Open the command palette", run: () => (sheet.value = "palette") },
    { key: "?", title: "Show all keys", run: () => (sheet.value = "help") },
    { key: "g", title: "Go to the overview", run: () => go({ view: "workspaces" }) },
  ];
  if (workspace === null) return all;
  const to = (title: string, place: Route, key?: string): Action => ({
    ...(key === undefined ? {} : { key }),
    title,
    run: () => go(place),
  });
  return [
    ...all,
    to("Go to the timeline", { view: "timeline", workspace }, "t"),
    to("Show backups in the timeline", { view: "timeline", workspace, backups: true }),
    to("Show undo points in the timeline", { view: "timeline", workspace, undo: true }),
    to(
      "Go to the files of the latest save point",
      { view: "files", workspace, point: "latest", at: { path: "" } },
      "f",
    ),
    to("Go to the activity", { view: "activity", workspace }, "a"),
    to("Clean up: what a cleanup would remove", { view: "activity", workspace, part: "cleanup" }),
    to("Forget backups, or prune the repository", { view: "activity", workspace, part: "backups" }),
    to("Receipts: which backups were proven", { view: "activity", workspace, part: "receipts" }),
    to("Go to the forks", { view: "forks", workspace }),
    to("Search names in all save points", { view: "search", workspace, q: "" }, "s"),
    to("Agents: install or remove hooks, in the overview", { view: "workspaces" }),
  ];
}

function Bar({ workspace }: { workspace: string | null }): JSX.Element {
  return (
    <header class="bar">
      <a class="brand" href={href({ view: "workspaces" })} aria-label="Cairn">
        <Stones />
        <span>Cairn</span>
      </a>
      <a
        class="bar-overview"
        href={href({ view: "workspaces" })}
        {...(workspace === null ? { "aria-current": "page" as const } : {})}
      >
        Overview
      </a>
      {workspace !== null && (
        <a class="bar-workspace" href={href({ view: "timeline", workspace })}>
          <Name text={nameOf(workspace)} title={false} />
          <span class="faint bar-path">
            <Name text={workspace} />
          </span>
        </a>
      )}
      <span class="space" />
      {about.value?.read_only === true && <span class="badge">read-only</span>}
      <button
        type="button"
        class="quiet"
        onClick={() => (sheet.value = "palette")}
        aria-label="Command palette: Ctrl K"
      >
        <Icon name="menu" />
        <kbd>Ctrl K</kbd>
      </button>
      <button type="button" class="quiet" onClick={() => (sheet.value = "help")} aria-label="All keys">
        <Icon name="question" />
      </button>
    </header>
  );
}

function skip(event: Event): void {
  event.preventDefault();
  document.querySelector<HTMLElement>("#main")!.focus();
}

function Tab({
  view,
  also,
  to,
  children,
}: {
  view: string;
  also: readonly string[];
  to: string;
  children: ComponentChildren;
}): JSX.Element {
  const at = route.value;
  const shown = at.view === "point" && isFork(at.point) ? "forks" : at.view;
  const isHere = shown === view || also.includes(shown);
  return (
    <a href={to} {...(isHere ? { "aria-current": "page" as const } : {})}>
      {children}
    </a>
  );
}

function Over({ which }: { which: SheetName }): JSX.Element | null {
  const [loaded, setLoaded] = useState<{ show: FunctionComponent<{ close(): void }> } | null>(null);
  const isGone = useSignal(false);
  // A dialog that is closed late must not close the dialog that was opened after it.
  const close = (): void => void (sheet.value === which && (sheet.value = null));
  useEffect(() => {
    void SHEETS[which]().then(({ Sheet: show }) => !isGone.value && setLoaded({ show }));
    return () => void (isGone.value = true);
  }, [which]);
  return loaded === null ? null : <loaded.show close={close} />;
}

function Stones(): JSX.Element {
  return (
    <svg class="stones" viewBox="0 0 32 32" width="22" height="22" aria-hidden="true">
      <ellipse cx="16" cy="25.5" rx="12.5" ry="4.5" />
      <ellipse cx="15" cy="16.8" rx="8.6" ry="3.7" />
      <ellipse cx="17" cy="9" rx="5.4" ry="3.1" />
    </svg>
  );
}
