import { type Signal, useSignal } from "@preact/signals";
import type { AgentEvent, CleanupPlan } from "cairnstate/client";
import type { JSX, RefObject } from "preact";
import { useEffect, useRef } from "preact/hooks";
import "./activity.css";
import { href, type Route } from "../../app/address.ts";
import { call } from "../../app/calls.ts";
import { onEvent } from "../../app/events.ts";
import { act, isBusy } from "../../app/outcome.tsx";
import { useResource } from "../../app/resource.ts";
import { isReadOnly } from "../../app/session.ts";
import { Name, visible, Words } from "../../parts/name.tsx";
import { count, plural, size } from "../../parts/numbers.ts";
import { Late, Problem } from "../../parts/problem.tsx";
import { When, wholeTime } from "../../parts/values.tsx";
import { Events } from "./events.tsx";
import { Backups } from "./free.tsx";
import { Operations } from "./operations.tsx";
import { PartHeading } from "./part-heading.tsx";
import { RunningCalls } from "./running.tsx";

/** What runs now, what changed the folder and can be reverted, what agents' hooks did, and what a cleanup would remove. */

type ActivityRoute = Extract<Route, { view: "activity" }>;

/** The newest events of agents' hooks that are listed. */
const EVENTS = 100;

export function View({ route: { workspace } }: { route: ActivityRoute }): JSX.Element {
  const { value, problem, isLate, reload } = useResource(`activity ${workspace}`, async (signal) => {
    const [operations, agents] = await Promise.all([
      call("operations", { workspace }, { signal }),
      call("agentEvents", { workspace, options: { limit: EVENTS } }, { signal }),
    ]);
    return { operations, events: agents.events.toSorted((a, b) => b.at.localeCompare(a.at)) };
  });
  useEffect(
    () => onEvent((event) => (event.workspace === workspace || event.workspace === null) && reload()),
    [workspace],
  );
  if (problem !== null) return <Problem problem={problem} again={reload} />;
  return (
    <section class="activity" aria-label="Activity">
      <h1>Activity</h1>
      <RunningCalls workspace={workspace} />
      <Late isLate={isLate.value && value === undefined} />
      {value !== undefined && (
        <>
          <Operations workspace={workspace} list={value.operations} />
          <HookEvents workspace={workspace} events={value.events} />
        </>
      )}
      <Events workspace={workspace} operations={value?.operations.operations ?? []} />
      <Cleanup workspace={workspace} />
      <Backups workspace={workspace} />
    </section>
  );
}

function HookEvents({ workspace, events }: { workspace: string; events: readonly AgentEvent[] }): JSX.Element {
  return (
    <>
      <h2>Hooks of agents</h2>
      {events.length === 0 && (
        <p class="faint">
          No hook has saved this folder. <em>Agents…</em> of this folder in the{" "}
          <a href={href({ view: "workspaces" })}>overview</a> installs them.
        </p>
      )}
      <ul class="activity-list">
        {events.map((each, i) => (
          <li key={`${each.at} ${i}`}>
            <span class="activity-words">
              <When at={each.at} as={wholeTime} /> <Name text={each.agent} /> <Name text={each.tool ?? each.event} />{" "}
              {each.command !== null && <code>{visible(each.command)}</code>}
              {each.failed !== null && (
                <span class="removed">
                  <Words text={each.failed} />
                </span>
              )}
            </span>
            {each.save_point_id !== null && (
              <a class="button quiet" href={href({ view: "point", workspace, point: each.save_point_id })}>
                {each.made ? "Its save point" : "No change"}
              </a>
            )}
          </li>
        ))}
      </ul>
    </>
  );
}

/** The plan of a cleanup by the kept policy, and the button that does exactly this plan. */
function Cleanup({ workspace }: { workspace: string }): JSX.Element {
  const isAsked = useSignal(false);
  return (
    <>
      <PartHeading part="cleanup">Cleanup</PartHeading>
      {isAsked.value ? (
        <CleanupPlanned workspace={workspace} />
      ) : (
        <button type="button" onClick={() => (isAsked.value = true)}>
          What would a cleanup remove?
        </button>
      )}
    </>
  );
}

/** Keeps the place of a result, which has the focus, until the next click: that click would meet another button there. */
function useHeldPlace(done: Signal<unknown>): RefObject<HTMLDivElement | null> {
  const box = useRef<HTMLDivElement>(null);
  useEffect(() => {
    if (done.value === null) return undefined;
    box.current?.focus({ preventScroll: true });
    const end = (): void => void (done.value = null);
    const late = setTimeout(() => document.addEventListener("click", end, { once: true }));
    return () => {
      clearTimeout(late);
      document.removeEventListener("click", end);
    };
  }, [done.value]);
  return box;
}

function CleanupPlanned({ workspace }: { workspace: string }): JSX.Element {
  const { value, problem, isLate, reload } = useResource(
    `cleanup ${workspace}`,
    async (signal) => {
      const [plan, policy] = await Promise.all([
        call("previewCleanup", { workspace }, { signal }),
        call("policy", { workspace }, { signal }),
      ]);
      return { plan, policy, points: await pointsOf(workspace, plan, signal) };
    },
    { isFresh: true },
  );
  const done = useSignal<{ text: string; height: number } | null>(null);
  const box = useHeldPlace(done);
  const run = async (id: string): Promise<void> => {
    const { offsetHeight: height = 0 } = box.current ?? {};
    await act(
      async () => call("runCleanup", { workspace, options: { plan: id } }),
      ({ removed, bytes_freed: bytes }) => {
        const text = `${plural(removed.length, "save point")} removed, ${size(bytes)} freed.`;
        done.value = { text, height };
        return { text };
      },
    );
    reload();
  };
  if (done.value !== null)
    return (
      <div ref={box} tabIndex={-1} style={{ minHeight: `${done.value.height}px` }}>
        <p>{done.value.text}</p>
      </div>
    );
  if (problem !== null) return <Problem problem={problem} again={reload} />;
  if (value === undefined) return <Late isLate={isLate.value} />;
  const { plan, policy, points } = value;
  const all = plan.reclaimable_save_points.length;
  const stay = `${plural(plan.protected_save_points.length, "save point stays", "save points stay")}, undo points included`;
  const rules = (
    <p class="faint">
      {policy.retention === null
        ? "No rules are set, so every save point is kept"
        : `The rules of this folder: ${ruleWords(policy.retention)}`}
      . This page cannot change the rules; <code>cairn cleanup policy</code> in a terminal does.
    </p>
  );
  if (all === 0)
    return (
      <>
        <p>
          A cleanup would remove no save point, and free {size(plan.reclaimable_bytes_estimate)}; {stay}.
        </p>
        {rules}
      </>
    );
  return (
    <div ref={box}>
      <p>
        {stay}. {plural(all, "save point")} would go, with {size(plan.reclaimable_bytes_estimate)} that no other point
        holds:
      </p>
      {rules}
      <ul class="activity-list">
        {points.map(({ id, words }) => (
          <li key={id}>
            <a class="activity-words" href={href({ view: "point", workspace, point: id })}>
              <code>{id.slice(0, 8)}</code> <Words text={words} />
            </a>
          </li>
        ))}
        {all > points.length && <li class="faint">and {count(all - points.length)} more</li>}
      </ul>
      {!isReadOnly() && (
        <button type="button" class="strong" disabled={isBusy.value} onClick={() => void run(plan.id)}>
          Remove {plural(all, "save point")} for good
        </button>
      )}
    </div>
  );
}

/** Returns rules in words, for example `keep last 5, keep daily 30`. */
function ruleWords(rules: object): string {
  return Object.entries(rules)
    .map(([name, value]: [string, unknown]) => {
      const words = name.replaceAll(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
      return typeof value === "object" && value !== null && !Array.isArray(value)
        ? `${words} (${ruleWords(value)})`
        : `${words} ${String(value)}`;
    })
    .join(", ");
}

/** Points of a plan that are named one by one. */
const NAMED = 50;

async function pointsOf(
  workspace: string,
  plan: CleanupPlan,
  signal: AbortSignal,
): Promise<{ id: string; words: string }[]> {
  const reasons = new Map(plan.reasons.map((each) => [each.save_point_id, each.reasons.join(", ")]));
  const ids = plan.reclaimable_save_points.slice(0, NAMED);
  return Promise.all(
    ids.map(async (id) => {
      const { save_point: point } = await call("show", { workspace, target: id, options: { limit: 1 } }, { signal });
      return { id, words: `${point.message || wholeTime(point.created_at)} (${reasons.get(id) ?? ""})` };
    }),
  );
}
