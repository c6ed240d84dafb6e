import { signal } from "@preact/signals";
import type { FunctionComponent, JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { Late, Problem } from "../parts/problem.tsx";
import { followEvents } from "./events.ts";
import { Frame } from "./frame.tsx";
import { type Problem as Found, problemOf } from "./resource.ts";
import { type Route, route, type View } from "./route.ts";
import { signIn, token } from "./session.ts";
import { SignIn } from "./sign-in.tsx";

type ViewOf<R> = FunctionComponent<{ route: R }>;
type Views = { [V in View]: () => Promise<{ View: ViewOf<Extract<Route, { view: V }>> }> };

const VIEWS: Views = {
  workspaces: () => import("../views/workspaces.tsx"),
  timeline: () => import("../views/timeline/timeline.tsx"),
  point: () => import("../views/point/point.tsx"),
  files: () => import("../views/files/files.tsx"),
  "file-history": () => import("../views/file-history.tsx"),
  restore: () => import("../views/restore.tsx"),
  search: () => import("../views/search.tsx"),
};

const start = signal<"signing in" | "signed in" | "signed out" | Found>("signing in");

async function begin(): Promise<void> {
  try {
    start.value = (await signIn()) ? "signed in" : "signed out";
    if (start.value === "signed in") followEvents();
  } catch (error) {
    start.value = problemOf(error);
  }
}
void begin();

export function App(): JSX.Element {
  const state = start.value;
  if (typeof state === "object") return <Problem problem={state} again={() => void begin()} />;
  if (state === "signing in") return <Late isLate={false} />;
  if (state === "signed out" || token.value === null)
    return (
      <SignIn
        done={() => {
          start.value = "signed in";
          followEvents();
        }}
      />
    );
  return (
    <Frame>
      <Shown />
    </Frame>
  );
}

/** The view of the address. The one before stays until the code of the next is there. */
function Shown(): JSX.Element {
  const wanted = route.value;
  const [shown, setShown] = useState<{ of: View; show: FunctionComponent<{ route: Route }> } | null>(null);
  useEffect(() => {
    let isWanted = true;
    void VIEWS[wanted.view]().then((loaded) => {
      if (isWanted) setShown({ of: wanted.view, show: loaded.View as FunctionComponent<{ route: Route }> });
    });
    return () => void (isWanted = false);
  }, [wanted.view]);
  if (shown === null || shown.of !== wanted.view) return <Late isLate={false} />;
  return <shown.show route={wanted} />;
}
