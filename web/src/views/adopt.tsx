import { type Signal, useSignal } from "@preact/signals";
import type { Changes } from "cairnstate/client";
import type { JSX } from "preact";
import "../styles/restore.css";
import { href, nameOf, type Route } from "../app/address.ts";
import { call } from "../app/calls.ts";
import { useActions } from "../app/keys.ts";
import { act } from "../app/outcome.tsx";
import { go, route as current } from "../app/route.ts";
import { isReadOnly } from "../app/session.ts";
import { Check } from "../parts/fields.tsx";
import { Name } from "../parts/name.tsx";
import { plural } from "../parts/numbers.ts";
import { Empty, type Found, Late, Problem } from "../parts/problem.tsx";
import { Plan, usePlan } from "./restore-plan.tsx";
import { Foot, outcomeOf } from "./restore.tsx";

type AdoptRoute = Extract<Route, { view: "adopt" }>;

export function View({ route }: { route: AdoptRoute }): JSX.Element {
  return isReadOnly() ? <Empty title="This page is read-only" /> : <Adoption route={route} />;
}

/** The plan of bringing a fork home, and the button that does exactly this plan. */
function Adoption({ route }: { route: AdoptRoute }): JSX.Element {
  const { workspace, fork, merges } = route;
  const over = useSignal(false);
  const back: Route = { view: "forks", workspace };
  const options = merges ? { merge: true } : over.value ? { over: true } : {};
  const plan = usePlan({ of: `${href(route)} ${over.value}`, workspace }, (_all, signal) =>
    call("planAdoptFork", { workspace, fork, options }, { signal }),
  );
  const found = plan.problem === null ? plan.shown : undefined;
  const run = async (): Promise<void> => {
    const done = await act(
      async () => call("adoptFork", { workspace, fork, options: { ...options, plan: found!.id } }),
      (answer) => outcomeOf(workspace, answer, { done: merges ? "Merged" : "Adopted" }),
    );
    if (done === null) plan.reload();
    else if (route === current.value) go({ view: "timeline", workspace });
  };
  useActions([
    {
      key: "Escape",
      title: "Leave without a change",
      run: () => go(back),
    },
  ]);
  return (
    <section class="restore" aria-label={merges ? "Merge" : "Adopt"}>
      <header class="point-head">
        <h1>
          {merges ? "Merge" : "Adopt"} <Name text={nameOf(fork)} />
        </h1>
        <p class="faint">
          <Name text={fork} />
        </p>
        <How route={route} over={over} />
      </header>
      <Late isLate={plan.isLate} />
      {plan.problem !== null && <Refusal route={route} problem={plan.problem} again={plan.reload} />}
      {found !== undefined && <Plan plan={{ ...plan, choose: null }} />}
      <Foot
        back={back}
        name={merges ? "Merge" : "Adopt"}
        isReady={found !== undefined && found.entries.length > 0}
        run={() => void run()}
      />
    </section>
  );
}

/** Why there is no plan. If this folder changed since the fork was made: how much, and the ways to go on. */
function Refusal({ route, problem, again }: { route: AdoptRoute; problem: Found; again(): void }): JSX.Element {
  const { workspace } = route;
  const { base, changes } = (problem.details ?? {}) as { base?: string; changes?: Changes };
  if (base === undefined || changes === undefined)
    return problem.code === "refused" ? <Problem problem={problem} /> : <Problem problem={problem} again={again} />;
  const lost = plural(changes.added + changes.modified + changes.removed, "entry", "entries");
  return (
    <div class="note" role="note">
      <p>
        {lost} of this folder changed since the fork was made, and would be lost. Merge… keeps the changes of both. To
        lose those of this folder, check “also if this folder changed since the fork was made”.
      </p>
      <a class="button" href={href({ view: "point", workspace, point: base, to: "now" })}>
        Compare
      </a>{" "}
      <a class="button" href={href({ ...route, merges: true })}>
        Merge…
      </a>
    </div>
  );
}

function How({ route, over }: { route: AdoptRoute; over: Signal<boolean> }): JSX.Element {
  const { merges } = route;
  const choose = (wanted: boolean): void => go({ ...route, merges: wanted }, { replace: true });
  return (
    <div class="compare" role="group" aria-label="How">
      <button type="button" aria-pressed={merges} onClick={() => choose(true)}>
        Keep the changes of both
      </button>
      <button type="button" aria-pressed={!merges} onClick={() => choose(false)}>
        Make this folder equal to the fork
      </button>
      {merges ? (
        <p class="faint">What both changed differently stays as it is here, and is listed.</p>
      ) : (
        <Check is={over}>also if this folder changed since the fork was made</Check>
      )}
    </div>
  );
}
