import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { call, historyOptions } from "../../app/calls.ts";
import { isBackup, shortState } from "../../app/address.ts";
import { useResource } from "../../app/resource.ts";
import { Dialog } from "../../parts/dialog.tsx";
import { Name, Words } from "../../parts/name.tsx";
import { Late, Problem } from "../../parts/problem.tsx";
import { SearchField, useTyped } from "../../parts/search-field.tsx";
import { When, wholeTime } from "../../parts/values.tsx";

/** Number of points that are listed at first, and that each "more" adds. */
const LISTED = 100;
/** Milliseconds without a key press after which a filter is applied. */
const TYPING_MS = 120;

const LAST_BACKUP = "backup:latest";

/**
 * Lists all save points of a workspace, also undo points, and its last backup, to choose one. A filter takes the same
 * words as the timeline's, or names a backup: `backup:1a2b`.
 */
export function ChooseDialog({
  workspace,
  choose,
  close,
}: {
  workspace: string;
  choose(id: string): void;
  close(): void;
}): JSX.Element {
  const field = useRef<HTMLInputElement>(null);
  const { typed, asked } = useTyped(undefined, { afterMs: TYPING_MS, write: () => undefined });
  const limit = useSignal(LISTED);
  /** The text when Enter was pressed. The first point of the answer to it is chosen, not of the list that is shown until then. */
  const entered = useSignal<string | undefined>(undefined);
  useLayoutEffect(() => field.current!.focus(), []);
  const text = asked.value;
  const options = { ...historyOptions(text), all: true };
  const { value, problem, isLate } = useResource(`choose ${workspace} ${text} ${limit.value}`, async (signal) => ({
    ...(await call("history", { workspace, limit: limit.value, options }, { signal })),
    text,
  }));
  const backup = text === "" ? LAST_BACKUP : isBackup(typed.value) ? typed.value.trim() : null;
  const pick = (id: string | undefined): void => {
    if (id === undefined) return;
    choose(id);
    close();
  };
  useEffect(() => {
    if (entered.value !== typed.value) entered.value = undefined;
    else if (value?.text === entered.value) pick(value.save_points[0]?.save_point_id);
  }, [value, entered.value, typed.value]);
  return (
    <Dialog title="Compare with another save point" close={close}>
      <div class="choose">
        <SearchField
          field={field}
          label="Filter the save points"
          placeholder="Filter: text, tag:release, since:yesterday, backup:1a2b"
          typed={typed}
          onKeyDown={({ key }) => {
            if (key !== "Enter") return;
            if (isBackup(typed.value)) pick(typed.value.trim());
            else entered.value = typed.value;
          }}
        />
        <Late isLate={isLate.value} />
        {problem !== null && <Problem problem={problem} />}
        {value?.save_points.length === 0 && backup === null && <p class="note">No save point fits this filter</p>}
        <ul>
          {backup !== null && <BackupRow backup={backup} pick={pick} />}
          {value?.save_points.map(({ save_point_id: id, message, created_at, tags }) => (
            <li key={id}>
              <button type="button" class="quiet" onClick={() => pick(id)}>
                {message === "" ? <span class="faint">no message</span> : <Words text={message} />}
                {tags.slice(0, 3).map((tag) => (
                  <span key={tag} class="badge tag">
                    <Name text={tag} />
                  </span>
                ))}
                <span class="faint">
                  <When at={created_at} as={wholeTime} /> <code>{id.slice(0, 8)}</code>
                </span>
              </button>
            </li>
          ))}
        </ul>
        {value?.truncated === true && (
          <button type="button" onClick={() => (limit.value += LISTED * 4)}>
            Show more
          </button>
        )}
      </div>
    </Dialog>
  );
}

function BackupRow({ backup, pick }: { backup: string; pick(state: string): void }): JSX.Element {
  return (
    <li>
      <button type="button" class="quiet" onClick={() => pick(backup)}>
        {backup === LAST_BACKUP ? "The last backup" : "A backup"}
        <span class="faint">
          <code>{shortState(backup)}</code>
        </span>
      </button>
    </li>
  );
}
