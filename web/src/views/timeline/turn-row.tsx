import { useSignal } from "@preact/signals";
import type { Turn } from "cairnstate/client";
import type { JSX } from "preact";
import { href } from "../../app/address.ts";
import { call } from "../../app/calls.ts";
import { useResource } from "../../app/resource.ts";
import { isReadOnly } from "../../app/session.ts";
import { Dialog } from "../../parts/dialog.tsx";
import { Icon } from "../../parts/icon.tsx";
import { Name, PathName, visible, Words } from "../../parts/name.tsx";
import { count, plural, timeOfDay, When } from "../../parts/values.tsx";

/** Events of hooks in which the whole prompt of a turn is looked for. */
const EVENTS = 1000;

interface TurnProps {
  workspace: string;
  turn: Turn;
}

/** The heading of an agent's turn: its prompt, and what the turn changed. The points of the turn stand below it. */
export function TurnRow({ workspace, turn }: TurnProps): JSX.Element {
  const isOpen = useSignal(false);
  const { turn_id: id, agent, started_at, prompt, tools, taken_back: isTakenBack } = turn;
  return (
    <div class="turn-row" role="listitem" data-taken-back={isTakenBack}>
      <button type="button" class="turn-words quiet" onClick={() => (isOpen.value = true)}>
        <span class="turn-prompt">{prompt === null ? <span class="faint">turn {id}</span> : visible(prompt)}</span>
        <span class="point-facts faint">
          <When at={started_at} as={timeOfDay} />
          <Name text={agent} />
          {tools > 0 && <span>{plural(tools, "tool call")}</span>}
          <span>{changedText(turn)}</span>
          {isTakenBack && <span class="badge">taken back</span>}
        </span>
      </button>
      <TakeBack workspace={workspace} turn={turn} />
      {isOpen.value && <TurnDialog workspace={workspace} turn={turn} close={() => (isOpen.value = false)} />}
    </div>
  );
}

function changedText({ changed, uncertain }: Turn): string {
  const own = changed === null ? "changes unknown" : `${count(changed)} changed`;
  return uncertain === 0 ? own : `${own}, ${count(uncertain)} uncertain`;
}

function TakeBack({ workspace, turn }: TurnProps): JSX.Element | null {
  const { turn_id: id, before, taken_back: isTakenBack } = turn;
  if (isReadOnly() || before === null || isTakenBack) return null;
  return (
    <a
      class="button"
      title="Take back this turn and the later ones of its session"
      href={href({ view: "restore", workspace, point: before, paths: [], turn: id })}
    >
      <Icon name="undo" /> Rewind…
    </a>
  );
}

/** The whole prompt, the shell commands and the changed entries of a turn. */
function TurnDialog({ workspace, turn, close }: TurnProps & { close(): void }): JSX.Element {
  const { agent, session, commands, before, after, paths, changed, uncertain } = turn;
  const whole = useResource(`prompt ${workspace} ${turn.turn_id}`, (signal) => wholePrompt(workspace, turn, signal), {
    isFixed: true,
  });
  const prompt = whole.value.value ?? turn.prompt;
  const reasons = [...(turn.why_not === undefined ? [] : [turn.why_not]), ...turn.not_saved];
  return (
    <Dialog title="Turn" close={close}>
      <div class="turn-dialog">
        <p class="faint">
          <Name text={session === null ? agent : `${agent}, session ${session}`} />
        </p>
        {prompt !== null && (
          <p>
            <Words text={prompt} isWhole />
          </p>
        )}
        {commands.length > 0 && (
          <>
            <h3>{plural(commands.length, "command")}</h3>
            <ul class="turn-commands">
              {commands.map((command, i) => (
                <li key={i}>
                  <code>{visible(command)}</code>
                </li>
              ))}
            </ul>
          </>
        )}
        <h3>{changedText(turn)}</h3>
        <ul>
          {paths.map((each) => (
            <li key={each.path}>
              <PathName path={each.path} />
            </li>
          ))}
          {(changed ?? 0) > paths.length && <li class="faint">and {count(changed! - paths.length)} more</li>}
        </ul>
        {uncertain > 0 && (
          <p class="note">Entries that changed while several sessions worked stay as they are in a rewind.</p>
        )}
        {reasons.map((reason, i) => (
          <p key={i} class="note">
            <Words text={reason} />
          </p>
        ))}
        <p class="turn-actions">
          {before !== null && after !== null && (
            <a class="button" href={href({ view: "point", workspace, point: after, to: before })} onClick={close}>
              All changes
            </a>
          )}
          <TakeBack workspace={workspace} turn={turn} />
        </p>
      </div>
    </Dialog>
  );
}

/** Returns the prompt with all its lines; null if it is no longer in the record, or is old. */
async function wholePrompt(workspace: string, turn: Turn, signal: AbortSignal): Promise<string | null> {
  const { events } = await call("agentEvents", { workspace, options: { limit: EVENTS } }, { signal });
  const first = events.find(
    ({ session, at, asked_at: asked }) => session === turn.session && (asked ?? at) === turn.started_at,
  );
  return first?.prompt ?? null;
}
