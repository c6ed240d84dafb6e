import { type Signal, useSignal } from "@preact/signals";
import type { PlanEntry, RestorePlan } from "cairnstate/client";
import type { ComponentChildren, JSX } from "preact";
import { useEffect, useMemo, useRef } from "preact/hooks";
import { foldersOf, type PathRef, toText } from "../app/address.ts";
import { onEvent } from "../app/events.ts";
import { useResource } from "../app/resource.ts";
import { Icon } from "../parts/icon.tsx";
import { Name, PathName, visible } from "../parts/name.tsx";
import { count, plural, size } from "../parts/numbers.ts";
import { Empty, type Found } from "../parts/problem.tsx";
import { VirtualList } from "../parts/virtual-list.tsx";
import { chooseIn, chosenPaths, type Mark, marksOf, rowsOf } from "./restore-choice.ts";

/** The plan of a restore: lists each change, with a checkbox that keeps the present state of its path. */

/** `later`: the folder's newer head, whose changes the plan must not take back. */
export type Planned = Pick<RestorePlan, "id" | "entries" | "left_out" | "holders"> & { later?: string | undefined };
type Action = PlanEntry["action"];

/** Height of a row of the plan in pixels, as in restore.css. */
const ROW = 28;
const ACTIONS: Readonly<Record<Action, readonly [sign: string, title: string]>> = {
  create: ["+", "created"],
  update: ["~", "changed"],
  delete: ["−", "removed"],
  metadata: ["·", "only mode, owner or times"],
  keep: ["=", "kept"],
};

export interface ShownPlan {
  /** The plan of the chosen paths, which the restore does. Undefined while it is made, and if no path is chosen. */
  shown: Planned | undefined;
  /** The paths of `shown`; none: the whole folder. */
  chosen: readonly PathRef[];
  /** The plan of all paths. */
  all: Planned | undefined;
  /** True if no path of `all` is chosen. */
  isNone: boolean;
  /** Number of changes that came after the user had chosen. They are not chosen. */
  added: number;
  /** After an event of the workspace: `renewed` if the plan is another one now, `old` if no plan was made after it. */
  changed: "renewed" | "old" | null;
  isLate: boolean;
  problem: Found | null;
  reload(): void;
  isChosen(entry: PlanEntry): boolean;
  /** Null: the plan is done as a whole. */
  choose: ((entry: PlanEntry, isWanted: boolean) => void) | null;
  chooseAll(isWanted: boolean): void;
}

/** The entries of a plan that the user has ticked and unticked. */
interface Choice {
  of: string;
  /** The keys of the entries that stay. */
  without: ReadonlySet<string>;
  /** The keys of all entries that had a checkbox. */
  known: ReadonlySet<string>;
}

/**
 * Makes a plan of all paths, and a plan of the chosen paths. Both are made again after each event of the workspace. Plans
 * of a backup are not made again, because each reads the repository. `of`: the key of the plans. `choice`: the key of the
 * chosen paths, which plans with other options share.
 */
export function usePlan(
  {
    of,
    choice = of,
    workspace,
    paths = [],
    isBackup = false,
  }: { of: string; choice?: string; workspace: string; paths?: readonly PathRef[]; isBackup?: boolean },
  make: (paths: readonly PathRef[], signal: AbortSignal) => Promise<Planned>,
): ShownPlan {
  const choices = useSignal<Choice>({ of: "", without: new Set(), known: new Set() });
  const made = choices.value.of === choice ? choices.value : null;
  const whole = useResource(`plan ${of}`, (signal) => make(paths, signal), { isFresh: true });
  const all = whole.value;
  const entries = all?.entries ?? [];
  const offered = entries.filter(({ action }) => action !== "keep");
  // Nobody has chosen these.
  const added = made === null ? [] : offered.filter((each) => !made.known.has(toText(each)));
  const keys = new Set([...(made?.without ?? []), ...added.map(toText)]);
  const set = (without: ReadonlySet<string>): void => {
    choices.value = { of: choice, without, known: new Set([...(made?.known ?? []), ...offered.map(toText)]) };
  };
  const isPart = keys.size > 0 && all !== undefined;
  const chosen = isPart ? chosenPaths(entries, keys, { asked: paths, isBackup }) : paths;
  const isNone = isPart && chosen.length === 0;
  const key = `part ${of} ${isPart ? chosen.map(toText).join("\n") : ""}`;
  const part = useResource(
    key,
    // Without paths the whole folder would be planned.
    async (signal) => ({ key, plan: isPart && !isNone ? await make(chosen, signal) : undefined }),
    { isFresh: true },
  );
  const again = (): void => {
    whole.reload();
    part.reload();
  };
  const changed = useChanged(of, { plan: all?.id, workspace, heard: isBackup ? null : again });
  const reload = (): void => {
    changed.value = null;
    again();
  };
  const own = part.value;
  const shown = !isPart ? all : own?.key === key ? own.plan : undefined;
  const planned = useMemo(() => (isPart ? new Set(shown?.entries.map(toText)) : null), [isPart, shown]);
  return {
    shown,
    chosen,
    all,
    isNone,
    added: added.length,
    changed: changed.value?.of === of ? changed.value.how : null,
    isLate: whole.isLate.value || part.isLate.value,
    problem: whole.problem ?? part.problem,
    reload,
    isChosen: (entry) =>
      planned === null || shown === undefined ? !keys.has(toText(entry)) : planned.has(toText(entry)),
    choose: (entry, isWanted) => set(chooseIn(entries, keys, { entry, isWanted })),
    chooseAll: (isWanted) => set(new Set(isWanted ? [] : entries.map(toText))),
  };
}

type Changed = { of: string; how: "renewed" | "old" } | null;

/** Calls `heard` after each event of the workspace, and tells how the plan changed then. `heard` null: plans become old. */
function useChanged(
  of: string,
  { plan, workspace, heard }: { plan: string | undefined; workspace: string; heard: (() => void) | null },
): Signal<Changed> {
  const changed = useSignal<Changed>(null);
  const last = useRef<{ of: string; plan: string; isHeard: boolean } | null>(null);
  useEffect(
    () =>
      onEvent((event) => {
        if (event.workspace !== workspace && event.workspace !== null) return;
        if (last.current !== null) last.current.isHeard = true;
        if (heard === null) changed.value = { of, how: "old" };
        else heard();
      }),
    [workspace, of],
  );
  useEffect(() => {
    if (plan === undefined) return;
    const { current } = last;
    if (heard !== null && current?.of === of && current.isHeard && current.plan !== plan)
      changed.value = { of, how: "renewed" };
    last.current = { of, plan, isHeard: false };
  }, [plan, of]);
  return changed;
}

/** The rows of a plan with a checkbox for each path, and what the plan warns of. */
export function Plan({ plan, paths = [] }: { plan: ShownPlan; paths?: readonly PathRef[] }): JSX.Element | null {
  const { all, shown, isNone, added, changed, reload } = plan;
  const rows = useMemo(() => (all === undefined ? [] : rowsOf(all.entries, shown?.entries ?? [])), [all, shown]);
  const marks = marksOf(rows, plan.isChosen);
  if (all === undefined) return null;
  return (
    <div class="plan">
      {changed !== null && (
        <p class="note plan-changed" role="status">
          {changed === "renewed"
            ? `The folder changed while this plan was open: this is the plan of now.${added > 0 ? ` ${plural(added, "new entry is", "new entries are")} not chosen.` : ""}`
            : "The folder changed after this plan was made."}
          {changed === "old" && (
            <button type="button" onClick={reload}>
              Plan again
            </button>
          )}
        </p>
      )}
      {all.entries.length === 0 && all.left_out.length === 0 ? (
        <AlreadySo paths={paths} />
      ) : (
        <>
          <Sums plan={shown} isNone={isNone}>
            {plan.choose !== null && (
              <span class="plan-all" role="group" aria-label="Choose">
                {[true, false].map((isWanted) => (
                  <button key={String(isWanted)} type="button" class="quiet" onClick={() => plan.chooseAll(isWanted)}>
                    {isWanted ? "All" : "None"}
                  </button>
                ))}
              </span>
            )}
          </Sums>
          {shown !== undefined && <Warnings plan={shown} />}
          <Unchanged plan={all} paths={paths} />
          <VirtualList
            label="What the restore does"
            count={rows.length}
            rowHeight={ROW}
            row={(index) => {
              const entry = rows[index]!;
              return (
                <PlanRow key={toText(entry)} entry={entry} mark={marks.get(toText(entry)) ?? "none"} plan={plan} />
              );
            }}
          />
        </>
      )}
    </div>
  );
}

function AlreadySo({ paths }: { paths: readonly PathRef[] }): JSX.Element {
  if (paths.length === 0) return <Empty title="There is nothing to restore: nothing would change" />;
  const [first] = paths;
  return (
    <Empty
      title={
        paths.length === 1
          ? `Nothing of ${visible(first!.path)} would change`
          : `Nothing of these ${count(paths.length)} paths would change`
      }
    >
      <p>There is nothing to restore.</p>
    </Empty>
  );
}

/** Paths that are listed one by one. */
const MOST_UNCHANGED = 8;

/** Lists the paths that a plan does not name. They need not be equal: no restore changes, for example, an ignored file. */
function Unchanged({ plan, paths }: { plan: Planned; paths: readonly PathRef[] }): JSX.Element | null {
  const unchanged = useMemo(() => {
    const others = plan.left_out.map(toText);
    const changed = new Set([...others, ...plan.entries.flatMap((each) => [toText(each), ...foldersOf(each)])]);
    return paths.filter((each) => !changed.has(toText(each)));
  }, [plan, paths]);
  if (unchanged.length === 0) return null;
  return (
    <ul class="restore-paths" aria-label="Unchanged">
      {unchanged.slice(0, MOST_UNCHANGED).map((each) => (
        <li key={toText(each)}>
          <PathName path={each.path} /> <span class="faint">would not change</span>
        </li>
      ))}
      {unchanged.length > MOST_UNCHANGED && (
        <li class="faint">and {count(unchanged.length - MOST_UNCHANGED)} more would not change</li>
      )}
    </ul>
  );
}

function Sums({
  plan,
  isNone,
  children,
}: {
  plan: Planned | undefined;
  isNone: boolean;
  children: ComponentChildren;
}): JSX.Element {
  const sums = useMemo(() => {
    const made = new Map<Action, number>();
    for (const { action } of plan?.entries ?? []) made.set(action, (made.get(action) ?? 0) + 1);
    return [...made];
  }, [plan]);
  const bytes = useMemo(() => (plan?.entries ?? []).reduce((sum, each) => sum + (each.size ?? 0), 0), [plan]);
  return (
    <p class="changed-sums">
      {isNone && <span class="faint">No path is chosen.</span>}
      {plan === undefined && !isNone && <span class="faint">The plan of the chosen paths is being made.</span>}
      {sums.map(([action, value]) => (
        <span key={action} class={`plan-${action}`}>
          <strong>{count(value)}</strong> {ACTIONS[action][1]}
        </span>
      ))}
      {bytes > 0 && <span class="faint">{size(bytes)} to write</span>}
      {children}
    </p>
  );
}

function Warnings({ plan: { holders, left_out } }: { plan: Planned }): JSX.Element {
  return (
    <>
      {holders.length > 0 && (
        <div class="plan-holders" role="note">
          <Icon name="warning" />
          <div>
            <p>Programs have files of this folder open for writing:</p>
            <ul>
              {holders.slice(0, 6).map((each) => (
                <li key={`${each.pid} ${each.path}`}>
                  <Name text={each.command} /> ({each.pid}): <PathName path={each.path} />
                </li>
              ))}
            </ul>
          </div>
        </div>
      )}
      {left_out.length > 0 && (
        <div class="plan-holders" role="note">
          <Icon name="warning" />
          <ul>
            {left_out.slice(0, 6).map((each) => (
              <li key={each.path}>
                <PathName path={each.path} />: {visible(each.detail)}
              </li>
            ))}
            {left_out.length > 6 && <li>{`and ${plural(left_out.length - 6, "more entry", "more entries")}`}</li>}
          </ul>
        </div>
      )}
    </>
  );
}

function PlanRow({ entry, mark, plan }: { entry: PlanEntry; mark: Mark; plan: ShownPlan }): JSX.Element {
  const { action, path, kind } = entry;
  const isChosen = plan.isChosen(entry);
  const { choose } = plan;
  const name = kind === "directory" ? `${path}/` : path;
  return (
    <div class="plan-row" role="listitem" data-chosen={isChosen}>
      <label>
        {action === "keep" || choose === null ? (
          <span class="plan-check" />
        ) : (
          <input
            class="plan-check"
            type="checkbox"
            aria-label={`Restore ${visible(name)}`}
            // The browser clears both at a click, also if the choice stays as it was.
            ref={(box) => {
              if (box === null) return;
              box.checked = mark === "all";
              box.indeterminate = mark === "some";
            }}
            onChange={() => choose(entry, mark !== "all")}
          />
        )}
        <span class={`plan-sign plan-${action}`} title={ACTIONS[action][1]}>
          {ACTIONS[action][0]}
        </span>
        <PathName path={name} />
      </label>
      <span class="space" />
      <span class="faint">{whyOf(entry, isChosen)}</span>
    </div>
  );
}

/** The bytes that an entry writes, or why it stays. */
function whyOf({ size: bytes, reason }: PlanEntry, isChosen: boolean): string {
  if (!isChosen) return "stays as it is";
  return reason?.replaceAll("_", " ") ?? (bytes === undefined ? "" : size(bytes));
}
