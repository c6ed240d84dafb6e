import { useSignal } from "@preact/signals";
import type { AgentEvent, Turn } from "cairnstate/client";
import { Fragment, type JSX } from "preact";
import { href, type PathRef } from "../../app/address.ts";
import { call } from "../../app/calls.ts";
import { useResource } from "../../app/resource.ts";
import { go } from "../../app/route.ts";
import { isReadOnly } from "../../app/session.ts";
import { changesOf, eventsOf, type TurnChanges } from "../../app/turns.ts";
import { Dialog } from "../../parts/dialog.tsx";
import { Icon } from "../../parts/icon.tsx";
import { Name, PathName, visible, Words } from "../../parts/name.tsx";
import { count, plural } from "../../parts/numbers.ts";
import { timeOfDay, When } from "../../parts/values.tsx";
import { sumsOf } from "../point/changed-tree.ts";

/** Changed entries that are listed. */
const MOST_ENTRIES = 100;

interface TurnProps {
  workspace: string;
  turn: Turn;
  /** The turn's number in its session. */
  number: number;
}

/** The heading of an agent's turn: its prompt, and what the turn changed. The points of the turn stand below it. */
export function TurnRow({ workspace, turn, number }: TurnProps): JSX.Element {
  const isOpen = useSignal(false);
  const { agent, started_at, prompt, tools, uncertain, taken_back: isTakenBack } = turn;
  return (
    <div class="turn-row" role="listitem" data-taken-back={isTakenBack}>
      <button type="button" class="turn-words quiet" onClick={() => (isOpen.value = true)}>
        <span class="turn-prompt">
          {prompt === null ? <span class="faint">{nameOf(turn, number)}</span> : visible(prompt)}
        </span>
        <span class="point-facts faint">
          <When at={started_at} as={timeOfDay} />
          <Name text={agent} />
          {tools > 0 && <span>{plural(tools, "tool call")}</span>}
          <Changed turn={turn} />
          {uncertain > 0 && <span>{count(uncertain)} uncertain</span>}
          {isTakenBack && <span class="badge">taken back</span>}
        </span>
      </button>
      <TakeBack workspace={workspace} turn={turn} />
      {isOpen.value && (
        <TurnDialog workspace={workspace} turn={turn} number={number} close={() => (isOpen.value = false)} />
      )}
    </div>
  );
}

/** `turn 2 of session 4f1c9a`, for a turn without a prompt. */
function nameOf({ session }: Turn, number: number): string {
  return session === null ? `turn ${number}` : `turn ${number} of session ${visible(session.slice(0, 12))}`;
}

function Changed({ turn }: { turn: Turn }): JSX.Element {
  const { changed, why_not, not_saved, after } = turn;
  if (changed !== null) return <span>{count(changed)} changed</span>;
  const why =
    why_not ?? not_saved[0] ?? (after === null ? "no state of the turn was saved" : "a state of it is missing");
  return <Words text={`changes unknown: ${why}`} />;
}

/** True if the state before the turn is kept, and no rewind went back to before it. */
function canGoBack({ before, taken_back: isTakenBack }: Turn): boolean {
  return !isReadOnly() && before !== null && !isTakenBack;
}

/** Opens the plan that takes back only what the turn changed, which offers the rewind; the rewind if that is not known. */
function TakeBack({ workspace, turn }: { workspace: string; turn: Turn }): JSX.Element | null {
  const { turn_id: id, before } = turn;
  const isAsked = useSignal(false);
  if (!canGoBack(turn)) return null;
  const open = async (): Promise<void> => {
    isAsked.value = true;
    const changes = await changesOf(workspace, turn, new AbortController().signal).catch(() => null);
    go({ view: "restore", workspace, point: before!, paths: changes?.paths ?? [], turn: id });
  };
  return (
    <button
      type="button"
      title="Take back what this turn changed, alone or with the later turns"
      disabled={isAsked.value}
      onClick={() => void open()}
    >
      <Icon name="undo" /> Take back…
    </button>
  );
}

function Rewind({ workspace, turn }: { workspace: string; turn: Turn }): JSX.Element | null {
  const { turn_id: id, before } = turn;
  if (!canGoBack(turn)) return null;
  return (
    <a
      class="button"
      title="Go back to before this turn: take back this turn and the later ones of its session"
      href={href({ view: "restore", workspace, point: before!, paths: [], turn: id })}
    >
      <Icon name="undo" /> Rewind…
    </a>
  );
}

const SIGNS = { added: "A", removed: "D", modified: "M", renamed: "R", not_kept: "I" } as const;

/** The whole prompt, the tool calls and the changed entries of a turn. */
function TurnDialog({ workspace, turn, number, close }: TurnProps & { close(): void }): JSX.Element {
  const { turn_id: id, agent, session, uncertain } = turn;
  const events = useResource(`turn events ${workspace} ${id}`, (signal) => eventsOf(workspace, turn, signal));
  const changes = useResource(`turn changes ${workspace} ${id}`, (signal) => changesOf(workspace, turn, signal));
  const prompt = events.value?.[0]?.prompt ?? turn.prompt;
  // The heading of unknown changes has the first reason.
  const reasons = [...(turn.why_not === undefined ? [] : [turn.why_not]), ...turn.not_saved].slice(
    turn.changed === null ? 1 : 0,
  );
  return (
    <Dialog title={nameOf(turn, number)} close={close}>
      <div class="turn-dialog">
        <p class="faint">
          <Name text={session === null ? agent : `${agent}, session ${session}`} />
        </p>
        {prompt !== null && (
          <p>
            <Words text={prompt} isWhole />
          </p>
        )}
        <ToolCalls workspace={workspace} turn={turn} events={events.value ?? []} />
        <ChangedEntries turn={turn} changes={changes.value ?? null} />
        {uncertain > 0 && (
          <p class="note">Entries that were perhaps changed by this turn stay as they are in a rewind.</p>
        )}
        {reasons.map((reason, i) => (
          <p key={i} class="note">
            <Words text={reason} />
          </p>
        ))}
        <TurnActions workspace={workspace} turn={turn} paths={changes.value?.paths ?? []} close={close} />
      </div>
    </Dialog>
  );
}

/** A tool call, with the states before and after it as far as they were saved. */
interface ToolCall {
  first: AgentEvent;
  before: string | null;
  after: string | null;
}

/** Joins the events before and after each tool call. Some tools tell only one of them. */
function callsIn(events: readonly AgentEvent[]): ToolCall[] {
  const calls: ToolCall[] = [];
  let open: AgentEvent | null = null;
  for (const each of events) {
    if (each.tool === null) continue;
    const isEnd: boolean =
      open !== null && open.tool === each.tool && open.event !== each.event && open.call === each.call;
    if (isEnd) calls[calls.length - 1] = { first: open!, before: open!.save_point_id, after: each.save_point_id };
    else calls.push({ first: each, before: each.before, after: each.save_point_id });
    open = isEnd ? null : each;
  }
  return calls;
}

/** Files that are named beside a tool call. */
const MOST_FILES = 3;

/** Names the files that changed while a tool call was open. */
function CallFiles({ workspace, before, after }: { workspace: string; before: string; after: string }): JSX.Element {
  const entries = useResource(
    `call ${workspace} ${before} ${after}`,
    async (signal) => (await call("diff", { workspace, a: before, b: after }, { signal })).entries,
    { isFixed: true },
  ).value;
  const files = entries?.filter(({ kind }) => kind !== "directory") ?? [];
  return (
    <>
      {files.slice(0, MOST_FILES).map(({ path }) => (
        <Fragment key={path}>
          {" "}
          <PathName path={path} />
        </Fragment>
      ))}
      {files.length > MOST_FILES && <span class="faint"> and {count(files.length - MOST_FILES)} more</span>}
    </>
  );
}

/** Lists the tool calls with their commands; the commands alone if the record no longer has the calls. */
function ToolCalls({
  workspace,
  turn: { commands },
  events,
}: {
  workspace: string;
  turn: Turn;
  events: readonly AgentEvent[];
}): JSX.Element | null {
  const calls = callsIn(events);
  const rows =
    calls.length > 0
      ? calls.map(({ first: { tool, command }, before, after }) => ({ tool, command, before, after }))
      : commands.map((command) => ({ tool: null, command, before: null, after: null }));
  if (rows.length === 0) return null;
  return (
    <>
      <h3>{calls.length > 0 ? plural(rows.length, "tool call") : plural(rows.length, "command")}</h3>
      <ul class="turn-commands">
        {rows.map(({ tool, command, before, after }, i) => (
          <li key={i}>
            {tool !== null && <Name text={tool} />} {command !== null && <code>{visible(command)}</code>}
            {before !== null && after !== null && before !== after && (
              <CallFiles workspace={workspace} before={before} after={after} />
            )}
          </li>
        ))}
      </ul>
    </>
  );
}

/** Lists the entries that the turn changed, each with its kind of change. */
function ChangedEntries({ turn, changes }: { turn: Turn; changes: TurnChanges | null }): JSX.Element {
  if (changes === null)
    return (
      <>
        <h3>
          <Changed turn={turn} />
        </h3>
        <ul>
          {turn.paths.map((each) => (
            <li key={each.path}>
              <PathName path={each.path} />
            </li>
          ))}
        </ul>
      </>
    );
  const { added, modified, removed } = sumsOf(changes.entries);
  const sums = [
    [added, "added"],
    [modified, "modified"],
    [removed, "removed"],
  ] as const;
  const words = sums.flatMap(([value, name]) => (value > 0 ? [`${count(value)} ${name}`] : []));
  return (
    <>
      <h3>
        <Changed turn={turn} />
        {words.length > 0 && `: ${words.join(", ")}`}
      </h3>
      <ul class="turn-entries">
        {changes.entries.slice(0, MOST_ENTRIES).map(({ path, change, kind }) => (
          <li key={path}>
            <span class={`tree-sign ${change}`} title={change}>
              {SIGNS[change]}
            </span>
            <PathName path={kind === "directory" ? `${path}/` : path} />
          </li>
        ))}
        {changes.entries.length > MOST_ENTRIES && (
          <li class="faint">and {count(changes.entries.length - MOST_ENTRIES)} more</li>
        )}
      </ul>
    </>
  );
}

/** Both ways back, with their difference. */
function TurnActions({
  workspace,
  turn,
  paths,
  close,
}: {
  workspace: string;
  turn: Turn;
  paths: readonly PathRef[];
  close(): void;
}): JSX.Element {
  const { turn_id: id, before, after } = turn;
  return (
    <>
      {canGoBack(turn) && (
        <p class="faint">
          <em>Rewind</em> goes back to before this turn: later turns of its session are taken back too.
          {paths.length > 0 && (
            <>
              {" "}
              <em>Take back this turn</em> changes only the files that this turn changed.
            </>
          )}
        </p>
      )}
      <p class="turn-actions">
        {before !== null && after !== null && (
          <a class="button" href={href({ view: "point", workspace, point: after, to: before })} onClick={close}>
            All changes
          </a>
        )}
        {canGoBack(turn) && paths.length > 0 && (
          <a class="button" href={href({ view: "restore", workspace, point: before!, paths, turn: id })}>
            <Icon name="undo" /> Take back this turn…
          </a>
        )}
        <Rewind workspace={workspace} turn={turn} />
      </p>
    </>
  );
}
