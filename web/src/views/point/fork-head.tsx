import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import "../../styles/forks.css";
import { useActions } from "../../app/keys.ts";
import { call } from "../../app/calls.ts";
import type { Fork } from "../../app/forks.ts";
import { act, isBusy } from "../../app/outcome.tsx";
import { useResource } from "../../app/resource.ts";
import { href, nameOf } from "../../app/address.ts";
import { go, route as current } from "../../app/route.ts";
import { isReadOnly } from "../../app/session.ts";
import { Dialog } from "../../parts/dialog.tsx";
import { Check } from "../../parts/fields.tsx";
import { Name, PathName, Words } from "../../parts/name.tsx";
import { count, plural, size } from "../../parts/numbers.ts";
import { Late, Problem } from "../../parts/problem.tsx";
import { Counts, When, wholeTime } from "../../parts/values.tsx";
import { sumsOf } from "./changed-tree.ts";

interface ForkProps {
  /** The original. */
  workspace: string;
  fork: Fork;
}

/** Changed entries that the dialog of a removal names. */
const NAMED = 20;

/** The head of a fork's view beside its original. `to`: the other side of the comparison, as in the address. */
export function ForkHead({ workspace, fork, to }: ForkProps & { to: string | undefined }): JSX.Element {
  const compare = (wanted: string | undefined): void => go({ view: "point", workspace, point: fork.path, to: wanted });
  const isNow = to === "now";
  useActions(
    current.value.view === "point"
      ? [{ key: "d", title: "Compare with the original's folder", run: () => compare(isNow ? undefined : "now") }]
      : [],
  );
  return (
    <header class="point-head">
      <div class="point-title">
        <h1>
          <span class="faint">Fork </span>
          <Name text={nameOf(fork.path)} />
        </h1>
        <ForkActions workspace={workspace} fork={fork} removed={() => go({ view: "forks", workspace })} />
      </div>
      <ForkFacts workspace={workspace} fork={fork} />
      <div class="compare" role="group" aria-label="Compare with">
        <span class="faint">Changes of the fork against</span>
        <button type="button" aria-pressed={!isNow} onClick={() => compare(undefined)}>
          the point it was made from
        </button>
        <button type="button" aria-pressed={isNow} onClick={() => compare("now")}>
          the original now
        </button>
      </div>
    </header>
  );
}

/** A fork's place, the point it was made from, and its size. */
export function ForkFacts({ workspace, fork: { path, origin, present } }: ForkProps): JSX.Element {
  const id = origin.save_point_id;
  const start = useResource(
    `origin ${workspace} ${id}`,
    async (signal) => (await call("show", { workspace, target: id, options: { limit: 1 } }, { signal })).save_point,
    { isFixed: true },
  );
  const newest = useResource(`newest ${path}`, async (signal) => {
    const { save_points } = await call("history", { workspace: path, limit: 1, options: { all: true } }, { signal });
    return save_points[0] ?? null;
  });
  const { bytes = null, entries = null } = newest.value ?? {};
  return (
    <p class="facts faint">
      <Name text={path} />
      {!present && <span class="badge warn">folder missing</span>}
      {start.problem?.code === "not_found" && <span>from a save point that is gone</span>}
      {start.value !== undefined && (
        <a href={href({ view: "point", workspace, point: id })}>
          from <When at={start.value.created_at} as={wholeTime} /> <Words text={start.value.message} />
        </a>
      )}
      {bytes !== null && entries !== null && (
        <span>
          {size(bytes)} in {plural(entries, "entry", "entries")}
        </span>
      )}
      <a href={href({ view: "timeline", workspace: path })}>its timeline</a>
    </p>
  );
}

/** How a fork comes home or ends. Each shows its plan first. */
export function ForkActions({ workspace, fork, removed }: ForkProps & { removed(): void }): JSX.Element | null {
  const isRemoving = useSignal(false);
  if (isReadOnly()) return null;
  const { path, present } = fork;
  const home = { view: "adopt", workspace, fork: path } as const;
  const name = nameOf(path);
  return (
    <div class="point-actions">
      {present && (
        <>
          <a class="button strong" href={href({ ...home, merges: true })} aria-label={`Merge ${name}…`}>
            Merge…
          </a>
          <a class="button" href={href({ ...home, merges: false })} aria-label={`Adopt ${name}…`}>
            Adopt…
          </a>
        </>
      )}
      <button type="button" onClick={() => (isRemoving.value = true)} aria-label={`Remove ${name}…`}>
        Remove…
      </button>
      {isRemoving.value && (
        <RemoveDialog workspace={workspace} fork={fork} close={() => (isRemoving.value = false)} removed={removed} />
      )}
    </div>
  );
}

/** The plan of a fork's removal, and the button that does exactly this plan. */
function RemoveDialog({
  workspace,
  fork: { path, name },
  close,
  removed,
}: ForkProps & { close(): void; removed(): void }): JSX.Element {
  const withIgnored = useSignal(false);
  const options = withIgnored.value ? { allow: ["ignored" as const] } : {};
  const asked = { workspace, fork: path };
  const { value, problem, isLate, reload } = useResource(
    `remove ${path} ${withIgnored.value}`,
    (signal) => call("planRemoveFork", { ...asked, options }, { signal }),
    { isFresh: true },
  );
  const remove = async (): Promise<void> => {
    const done = await act(
      async () => call("removeFork", { ...asked, options: { ...options, plan: value!.id } }),
      ({ save_point_id: id, rest }) => ({
        text: (
          <>
            The fork was removed. Its last state is{" "}
            <a href={href({ view: "point", workspace, point: id })}>the save point {id.slice(0, 8)}</a>.
            {rest !== null && (
              <>
                {" "}
                The rest of its folder lies in <Name text={rest.path} />.
              </>
            )}
          </>
        ),
        undo: { title: "Undo", workspace, point: id, run: () => void again(workspace, { point: id, path, name }) },
      }),
    );
    if (done === null) return reload();
    close();
    removed();
  };
  return (
    <Dialog title="Remove the fork" close={close}>
      <div class="stack">
        <p>
          <Name text={path} />
        </p>
        <Check is={withIgnored}>also what ignore rules leave out of its save points</Check>
        <Late isLate={isLate.value} />
        {problem !== null && <Problem problem={problem} again={reload} />}
        {value !== undefined && (
          <>
            <Removal entries={value.entries} points={value.save_point_ids.length} />
            <button type="button" class="strong" disabled={isBusy.value} onClick={() => void remove()}>
              Remove the fork
            </button>
          </>
        )}
      </div>
    </Dialog>
  );
}

type Plan = Awaited<ReturnType<typeof call<"planRemoveFork">>>;

function Removal({ entries, points }: { entries: Plan["entries"]; points: number }): JSX.Element {
  const changed = entries ?? [];
  return (
    <>
      <p>
        Its last state becomes a save point of the original. Then its folder and its {plural(points, "save point")} go.
      </p>
      {changed.length > 0 && (
        <p>
          Changed since its newest save point, and saved first: <Counts {...sumsOf(changed)} />
        </p>
      )}
      <ul class="plan-names">
        {changed.slice(0, NAMED).map(({ path }) => (
          <li key={path}>
            <PathName path={path} />
          </li>
        ))}
        {changed.length > NAMED && <li class="faint">and {count(changed.length - NAMED)} more</li>}
      </ul>
    </>
  );
}

/** Makes a removed fork again from its last state. Its older save points are gone. */
async function again(
  workspace: string,
  { point, path, name }: { point: string; path: string; name: string },
): Promise<void> {
  await act(
    async () => call("fork", { workspace, target: point, path, options: { name } }),
    () => ({ text: "The fork is back with its last state. Its older save points are gone." }),
  );
}
