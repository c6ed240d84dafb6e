import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { call, historyOptions } from "../../app/calls.ts";
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

/** Lists all save points of a workspace, also undo points, to choose one. A filter takes the same words as the timeline's. */
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
  useEffect(() => field.current!.focus(), []);
  const text = asked.value;
  const options = { ...historyOptions(text), all: true };
  const { value, problem, isLate } = useResource(`choose ${workspace} ${text} ${limit.value}`, async (signal) => ({
    ...(await call("history", { workspace, limit: limit.value, options }, { signal })),
    text,
  }));
  const found = value.value;
  const pick = (id: string | undefined): void => {
    if (id === undefined) return;
    choose(id);
    close();
  };
  useEffect(() => {
    if (entered.value !== typed.value) entered.value = undefined;
    else if (found?.text === entered.value) pick(found.save_points[0]?.save_point_id);
  }, [found, entered.value, typed.value]);
  return (
    <Dialog title="Compare with another save point" close={close}>
      <div class="choose">
        <SearchField
          field={field}
          label="Filter the save points"
          placeholder="Filter: text, tag:release, since:yesterday"
          typed={typed}
          onKeyDown={({ key }) => key === "Enter" && (entered.value = typed.value)}
        />
        <Late isLate={isLate.value} />
        {problem.value !== null && <Problem problem={problem.value} />}
        {found?.save_points.length === 0 && <p class="note">No save point fits this filter</p>}
        <ul>
          {found?.save_points.map(({ save_point_id: id, message, created_at, tags }) => (
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
        {found?.truncated === true && (
          <button type="button" onClick={() => (limit.value += LISTED * 4)}>
            Show more
          </button>
        )}
      </div>
    </Dialog>
  );
}
