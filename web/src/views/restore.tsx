import { type Signal, useSignal } from "@preact/signals";
import type { LeftOutReason, RestoreResult, SavePoint } from "cairnstate/client";
import type { JSX } from "preact";
import "../styles/restore.css";
import { call } from "../app/calls.ts";
import { useActions } from "../app/keys.ts";
import { act, isBusy, type tellOutcome } from "../app/outcome.tsx";
import { useResource } from "../app/resource.ts";
import { href, isBackup, type PathRef, type Route, snapshotOf, toInput, toText } from "../app/address.ts";
import { go, route as current } from "../app/route.ts";
import { isReadOnly } from "../app/session.ts";
import { changesOf, turnById } from "../app/turns.ts";
import { Check, TextField } from "../parts/fields.tsx";
import { Icon, type IconName } from "../parts/icon.tsx";
import { Name, PathName, Words } from "../parts/name.tsx";
import { count, plural } from "../parts/numbers.ts";
import { Empty, Late, Problem } from "../parts/problem.tsx";
import { Counts, When, wholeTime } from "../parts/values.tsx";
import { AlsoGoes } from "./also-goes.tsx";
import { sumsOf } from "./point/changed-tree.ts";
import { changedText } from "./restore-choice.ts";
import { Plan, type Planned, type ShownPlan, usePlan } from "./restore-plan.tsx";

type RestoreRoute = Extract<Route, { view: "restore" }>;
/** The plan of a restore, and the button that runs it. */
export function View({ route }: { route: RestoreRoute }): JSX.Element {
  const { workspace, point, paths } = route;
  const keepPresent = useSignal(false);
  const folder = useSignal("");
  const into = useSignal<"folder" | "elsewhere">("folder");
  const plan = usePlan(
    { of: `${href(route)} ${keepPresent.value}`, choice: href(route), workspace, paths, isBackup: isBackup(point) },
    (chosen, signal) => planOf({ ...route, paths: chosen }, keepPresent.value, signal),
  );
  const { shown, chosen } = plan;
  const isElsewhere = into.value === "elsewhere";
  const later = isElsewhere ? undefined : plan.all?.later;
  const back: Route = { view: "point", workspace, point };
  const run = async (): Promise<void> => {
    if (isElsewhere && folder.value === "") return;
    const to = isElsewhere ? folder.value : null;
    const done = await act(
      // The plan on the screen is done exactly, or nothing is.
      async () => {
        if (to === null && (await laterHead(route)) !== undefined)
          throw new Error("The folder was saved after this plan was made");
        const asked = to === null ? { ...route, paths: chosen } : route;
        return restored(asked, { keepPresent: keepPresent.value, plan: shown?.id, to });
      },
      (answer) => {
        if (route === current.value) go({ view: "timeline", workspace });
        return outcomeOf(workspace, answer, { folder: to, ...(isTakeBack(route) ? { done: "Taken back" } : {}) });
      },
    );
    if (done === null) plan.reload();
  };
  useActions([{ key: "Escape", title: "Leave without a restore", run: () => go(back) }]);
  if (isReadOnly()) return <Empty title="This page is read-only" />;
  return (
    <section class="restore" aria-label="Restore">
      <Head route={route} plan={plan} folder={folder} into={into} keepPresent={keepPresent} />
      <Late isLate={plan.isLate} />
      {plan.problem !== null && <Problem problem={plan.problem} again={plan.reload} />}
      {isElsewhere ? (
        <p class="note">
          The workspace stays as it is. The other folder must be absent or empty.
          {chosen !== paths && " All paths are written there, also those without a check mark in the plan."}
        </p>
      ) : later === undefined ? (
        <Plan plan={plan} paths={paths} />
      ) : (
        <p class="note" role="alert">
          The folder has another save point now, so this plan would take back saved changes, too.{" "}
          <a class="button" href={href({ ...route, point: later })}>
            Plan what is not saved now
          </a>
        </p>
      )}
      <Foot
        back={back}
        name={`${isTakeBack(route) ? "Take back" : "Restore"}${isElsewhere ? "" : changedText(shown?.entries ?? [])}`}
        icon={isTakeBack(route) ? "undo" : "restore"}
        isElsewhere={isElsewhere}
        isReady={isElsewhere ? folder.value !== "" : later === undefined && (shown?.entries.length ?? 0) > 0}
        run={() => void run()}
      />
    </section>
  );
}

/** True if the restore takes back changes: those of a turn, those of a save point, or unsaved ones. */
function isTakeBack({ back, turn }: RestoreRoute): boolean {
  return back === true || turn !== undefined;
}

/** Returns the folder's head if unsaved changes are taken back, and the folder was saved after the address was made. */
async function laterHead(route: RestoreRoute, signal?: AbortSignal): Promise<string | undefined> {
  const { workspace, point, paths, turn } = route;
  if (route.back !== true || turn !== undefined || paths.length > 0 || isBackup(point)) return undefined;
  const { head } = await call("history", { workspace, limit: 1 }, { signal });
  return head === null || head === point ? undefined : head;
}

/** The title of a restore, the state that comes back, and the choices. */
function Head({
  route,
  plan,
  folder,
  into,
  keepPresent,
}: {
  route: RestoreRoute;
  plan: ShownPlan;
  folder: Signal<string>;
  into: Signal<"folder" | "elsewhere">;
  keepPresent: Signal<boolean>;
}): JSX.Element {
  const { workspace, point, paths, turn } = route;
  const head = useResource(`point head ${workspace} ${point}`, (signal) => headOf(route, signal)).value;
  if (turn !== undefined) return <TurnHead route={route} turn={turn} />;
  return (
    <header class="point-head">
      <h1>
        {isTakeBack(route) ? "Take back" : "Restore"}{" "}
        {paths.length > 0 || plan.chosen !== paths
          ? plural(plan.chosen.length, "path")
          : isTakeBack(route)
            ? "what is not saved"
            : "everything"}
      </h1>
      <p class="facts faint">
        {head !== undefined && (
          <>
            <span>
              to the state of <When at={head.created_at} as={wholeTime} />
            </span>
            <Words text={head.message} />
          </>
        )}
      </p>
      {paths.length > 0 && <Paths paths={paths} />}
      {into.value === "folder" && <AlsoGoes route={route} plan={plan} />}
      <Where folder={folder} into={isBackup(point) ? null : into} keepPresent={keepPresent} />
    </header>
  );
}

/** The head of a rewind, or of taking back the paths that one turn changed: both ways, and their difference. */
function TurnHead({ route, turn: id }: { route: RestoreRoute; turn: string }): JSX.Element {
  const { workspace, paths } = route;
  const isWhole = paths.length === 0;
  const found = useResource(`turn of ${workspace} ${id}`, async (signal) => {
    const turn = await turnById(workspace, id, signal);
    return { turn, changes: turn === null ? null : await changesOf(workspace, turn, signal) };
  }).value;
  const { turn = null, changes = null } = found ?? {};
  return (
    <header class="point-head">
      <h1>{isWhole ? "Rewind to before a turn" : "Take back a turn"}</h1>
      {turn !== null && (
        <>
          {turn.prompt !== null && (
            <p>
              <Words text={turn.prompt} isWhole />
            </p>
          )}
          <p class="facts faint">
            <When at={turn.started_at} as={wholeTime} />
            <Name text={turn.session === null ? turn.agent : `${turn.agent}, session ${turn.session}`} />
            {turn.tools > 0 && <span>{plural(turn.tools, "tool call")}</span>}
            {changes !== null && <Counts {...sumsOf(changes.entries)} />}
          </p>
        </>
      )}
      {!isWhole && <Paths paths={paths} />}
      <div class="compare" role="group" aria-label="How far back">
        <a class="button" aria-current={isWhole} href={href({ ...route, paths: [] })}>
          This turn and the later ones
        </a>
        {(!isWhole || (changes !== null && changes.paths.length > 0)) && (
          <a class="button" aria-current={!isWhole} href={href({ ...route, paths: isWhole ? changes!.paths : paths })}>
            Only the files of this turn
          </a>
        )}
      </div>
      <p class="faint">
        {isWhole
          ? "Takes back what the session changed since the turn began, also in later turns."
          : "Takes back what this turn changed in these files, and what later turns of the session changed in them. Other files of later turns stay."}{" "}
        Changes of others stay, and so does an entry that was edited afterwards.
      </p>
    </header>
  );
}

/** Returns the time and the message of the state that is restored. */
async function headOf(
  { workspace, point }: RestoreRoute,
  signal: AbortSignal,
): Promise<{ created_at: string; message: string }> {
  const options = { limit: 1 };
  if (!isBackup(point)) return (await call("show", { workspace, target: point, options }, { signal })).save_point;
  const { snapshot } = await call("showBackup", { workspace, snapshot: snapshotOf(point), options }, { signal });
  return { created_at: snapshot.created_at, message: `Backup ${snapshot.snapshot_id.slice(0, 8)}` };
}

async function planOf(route: RestoreRoute, keepPresent: boolean, signal: AbortSignal): Promise<Planned> {
  const { workspace, point, turn } = route;
  if (turn !== undefined) return call("planRewind", { workspace, turn, options: pathsOf(route) }, { signal });
  const options = { ...pathsOf(route), ...(keepPresent ? { keepPresent } : {}) };
  if (!isBackup(point)) {
    const plan = await call("planRestore", { workspace, options: { ...options, target: point } }, { signal });
    return { ...plan, later: await laterHead(route, signal) };
  }
  const asked = { workspace, snapshot: snapshotOf(point), options: { ...options, dryRun: true } };
  const { plan_id: id, planned_entries: entries, left_out } = await call("restoreFromBackup", asked, { signal });
  return { id: id ?? "", entries: entries ?? [], left_out, holders: [] };
}

/** Restores as the plan showed; into the folder `to`, if it is not null. */
async function restored(
  route: RestoreRoute,
  { keepPresent, plan, to }: { keepPresent: boolean; plan: string | undefined; to: string | null },
): Promise<RestoreResult> {
  const { workspace, point, turn } = route;
  const asPlanned = plan === undefined ? {} : { plan };
  if (turn !== undefined) return call("rewind", { workspace, turn, options: { ...pathsOf(route), ...asPlanned } });
  const options = {
    ...pathsOf(route),
    ...(to === null ? { ...asPlanned, ...(keepPresent ? { keepPresent } : {}) } : { to }),
  };
  return isBackup(point)
    ? call("restoreFromBackup", { workspace, snapshot: snapshotOf(point), options })
    : call("restore", { workspace, options: { ...options, target: point } });
}

function pathsOf({ paths }: RestoreRoute): { paths?: (string | Uint8Array)[] } {
  return paths.length === 0 ? {} : { paths: paths.map(toInput) };
}

/** The buttons that leave the plan of a change of the folder, and do it. `back`: the view that *Cancel* opens. */
export function Foot({
  back,
  name = "Restore",
  icon = "restore",
  isElsewhere = false,
  isReady,
  run,
}: {
  back: Route;
  name?: string;
  icon?: IconName;
  isElsewhere?: boolean;
  isReady: boolean;
  run(): void;
}): JSX.Element {
  return (
    <footer class="restore-foot">
      <p class="faint">{!isElsewhere && isReady && "The state of now is saved first: Undo brings it back."}</p>
      <a class="button" href={href(back)}>
        Cancel
      </a>
      <button type="button" class="strong" disabled={isBusy.value || !isReady} onClick={run}>
        <Icon name={icon} /> {name}
      </button>
    </footer>
  );
}

function Where({
  folder,
  into,
  keepPresent,
}: {
  folder: Signal<string>;
  /** Null: into the workspace only. */
  into: Signal<"folder" | "elsewhere"> | null;
  keepPresent: Signal<boolean>;
}): JSX.Element {
  const isElsewhere = into?.value === "elsewhere";
  return (
    <div class="compare" role="group" aria-label="Where to">
      {into !== null && (
        <>
          <button type="button" aria-pressed={!isElsewhere} onClick={() => (into.value = "folder")}>
            Into the workspace
          </button>
          <button type="button" aria-pressed={isElsewhere} onClick={() => (into.value = "elsewhere")}>
            Into another folder
          </button>
        </>
      )}
      {isElsewhere ? (
        <TextField text={folder} aria-label="Folder, absent or empty" placeholder="/path/to/a/new/folder" />
      ) : (
        <Check is={keepPresent}>
          {into === null ? "keep what the backup does not have" : "keep what the save point does not have"}
        </Check>
      )}
    </div>
  );
}

/** Returns the text for the result bar after a restore. `done`: a verb for it. */
export function outcomeOf(
  workspace: string,
  { changes, left_out, undo_id }: RestoreResult,
  { folder = null, done = "Restored" }: { folder?: string | null; done?: string } = {},
): Parameters<typeof tellOutcome>[0] & object {
  const parts =
    changes === null
      ? ["the whole folder was exchanged"]
      : (
          [
            ["created", changes.created],
            ["changed", changes.updated],
            ["removed", changes.deleted],
          ] as const
        ).flatMap(([name, value]) => (value > 0 ? [`${count(value)} ${name}`] : []));
  const text = (
    <>
      {done}
      {folder !== null && (
        <>
          {" "}
          into <Name text={folder} />
        </>
      )}
      : {parts.length === 0 ? "nothing had to change" : parts.join(", ")}.{leftText(left_out)}
    </>
  );
  if (folder !== null || undo_id === null) return { text };
  return {
    text,
    undo: {
      title: "Undo",
      workspace,
      point: undo_id,
      run: () => void revert(workspace, "undo", { expected: undo_id }),
    },
  };
}

/**
 * Reverts the newest operations by one call. `expected`: the undo point of the first; null for an operation without one.
 * `plan`: the plan of all.
 */
export async function revert(
  workspace: string,
  verb: "undo" | "redo",
  {
    expected,
    count: of = 1,
    plan,
  }: { expected: SavePoint["save_point_id"] | null; count?: number; plan?: string | undefined },
): Promise<void> {
  const [done, other, title] =
    verb === "undo" ? (["undone", "redo", "Redo"] as const) : (["brought back", "undo", "Undo"] as const);
  await act(
    async () => {
      const options = {
        count: of,
        ...(expected === null ? {} : { expected }),
        ...(plan === undefined ? {} : { plan }),
      };
      return call(verb, { workspace, options });
    },
    (result) => {
      const name = of === 1 ? `${done[0]!.toUpperCase()}${done.slice(1)}` : `${plural(of, "operation")} ${done}`;
      const text = `${name}: ${changedBy(result)}.${leftText(result.left_out)}`;
      const { undo_id: point } = result;
      // The next redo is of the last of several undos, whose undo point is not that of the first.
      const next = of === 1 ? point : null;
      const again = (): void => void revert(workspace, other, { expected: next, count: of });
      return point === null ? { text } : { text, undo: { title, workspace, point, run: again } };
    },
  );
}

function changedBy({ changes }: RestoreResult): string {
  if (changes === null) return "the folder is as it was";
  return `${plural(changes.created + changes.updated + changes.deleted, "entry", "entries")} changed`;
}

const STAYED: Readonly<Partial<Record<LeftOutReason, string>>> = {
  changed_since: "that changed since stayed",
  keep_present: "stayed as chosen",
};

/** Tells how many entries stayed on purpose, and how many could not be restored. */
function leftText(left: RestoreResult["left_out"]): string {
  const groups = Map.groupBy(left, ({ reason }) => STAYED[reason] ?? "could not be restored");
  return [...groups].map(([words, each]) => ` ${plural(each.length, "entry", "entries")} ${words}.`).join("");
}

function Paths({ paths }: { paths: readonly PathRef[] }): JSX.Element {
  return (
    <ul class="restore-paths">
      {paths.slice(0, 8).map((each) => (
        <li key={toText(each)}>
          <PathName path={each.path} />
        </li>
      ))}
      {paths.length > 8 && <li class="faint">and {count(paths.length - 8)} more</li>}
    </ul>
  );
}
