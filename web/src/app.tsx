import { signal } from "@preact/signals";
import type { FunctionComponent, JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { Empty, type Found, Late, Problem } from "./parts/problem.tsx";
import { followEvents } from "./app/events.ts";
import { Frame } from "./app/frame.tsx";
import { problemOf } from "./app/resource.ts";
import { href, type Route, type View } from "./app/address.ts";
import { route } from "./app/route.ts";
import { noteViews, signIn, token } from "./app/session.ts";
import { SignIn } from "./app/sign-in.tsx";
import { isWide } from "./app/wide.ts";
import { now } from "./app/now.ts";

type ViewOf<R> = FunctionComponent<{ route: R }>;
type Views = { [V in View]: () => Promise<{ View: ViewOf<Extract<Route, { view: V }>> }> };

const VIEWS: Views = {
  workspaces: () => import("./views/overview/overview.tsx"),
  timeline: () => import("./views/timeline/timeline.tsx"),
  point: () => import("./views/point/point.tsx"),
  files: () => import("./views/files/files.tsx"),
  "file-history": () => import("./views/file-history.tsx"),
  restore: () => import("./views/restore.tsx"),
  search: () => import("./views/search.tsx"),
  activity: () => import("./views/activity/activity.tsx"),
  forks: () => import("./views/forks.tsx"),
  adopt: () => import("./views/adopt.tsx"),
};

const start = signal<"signing in" | "signed in" | "signed out" | Found>("signing in");

async function begin(): Promise<void> {
  try {
    if (await signIn()) onSignedIn();
    else start.value = "signed out";
  } catch (error) {
    start.value = problemOf(error);
  }
}
void begin();

function onSignedIn(): void {
  start.value = "signed in";
  followEvents();
  noteViews();
}

export function App(): JSX.Element {
  const state = start.value;
  if (typeof state === "object") return <Problem problem={state} again={() => void begin()} />;
  if (state === "signing in") return <Late isLate={false} />;
  if (state === "signed out" || token.value === null) return <SignIn done={onSignedIn} />;
  return (
    <Frame>
      <Shown />
    </Frame>
  );
}

/** Shows the view of the address. On a wide window the timeline stays beside the open point. */
function Shown(): JSX.Element {
  const { view } = route.value;
  if ((view !== "point" && view !== "timeline") || !isWide.value) return <Loaded view={view} />;
  return (
    <div class="split">
      <Loaded view="timeline" />
      {view === "point" ? <Loaded view="point" /> : <First />}
    </div>
  );
}

/** Shows the changes that are not saved beside the timeline, else the newest point. */
function First(): JSX.Element | null {
  const at = route.value;
  const found = now.value;
  if (at.view !== "timeline" || found?.workspace !== at.workspace) return <Late isLate={false} />;
  const { clean, head, latest } = found.status ?? { clean: true, head: null, latest: "latest" };
  const point = clean ? latest : head;
  if (point === null) return <Empty title="No save point yet" />;
  return <Loaded view="point" at={{ view: "point", workspace: at.workspace, point, to: clean ? undefined : "now" }} />;
}

/**
 * Returns a key of a view. A new key makes the view start again, so that no state of another workspace or restore
 * stays.
 */
function identityOf(at: Route): string {
  if (at.view === "workspaces") return "";
  return at.view === "restore" || at.view === "adopt" ? href(at) : at.workspace;
}

function Loaded({ view, at = route.value }: { view: View; at?: Route }): JSX.Element {
  const [shown, setShown] = useState<{ of: View; show: FunctionComponent<{ route: Route }> } | null>(null);
  useEffect(() => {
    let isWanted = true;
    void VIEWS[view]().then((loaded) => {
      if (isWanted) setShown({ of: view, show: loaded.View as FunctionComponent<{ route: Route }> });
    });
    return () => void (isWanted = false);
  }, [view]);
  if (shown === null || shown.of !== view) return <Late isLate={false} />;
  return <shown.show key={identityOf(at)} route={at} />;
}
