import { signal } from "@preact/signals";
import type { BackupSnapshot, SavePoint } from "cairnstate/client";
import type { JSX } from "preact";
import { useActions } from "../../app/keys.ts";
import { go } from "../../app/route.ts";
import { Icon } from "../../parts/icon.tsx";
import { visible, Words } from "../../parts/name.tsx";
import { timeOfDay, When } from "../../parts/values.tsx";

/** A row of a timeline that is marked, to be compared with the next one that is marked. */
interface Mark {
  workspace: string;
  /** The id of a point, or `backup:` and that of a snapshot. */
  state: string;
  at: string;
  words: string;
}

const marked = signal<Mark | null>(null);

export function markOf(workspace: string, state: SavePoint | BackupSnapshot): Mark {
  if ("snapshot_id" in state)
    return { workspace, state: `backup:${state.snapshot_id}`, at: state.created_at, words: "Backup" };
  const { save_point_id: id, created_at: at, message } = state;
  return { workspace, state: id, at, words: message === "" ? id.slice(0, 8) : message };
}

/** Marks a row. If another row is marked, opens the changes from the older to the newer of the two. */
export function mark(wanted: Mark): void {
  const other = marked.value;
  marked.value = null;
  if (other === null || other.workspace !== wanted.workspace) marked.value = wanted;
  else if (other.state !== wanted.state) {
    const [older, newer] = Date.parse(other.at) <= Date.parse(wanted.at) ? [other, wanted] : [wanted, other];
    go({ view: "point", workspace: wanted.workspace, point: newer.state, to: older.state });
  }
}

export function MarkButton({ of }: { of: Mark }): JSX.Element {
  const isMarked = marked.value?.state === of.state;
  const [words, title] = isMarked
    ? ["Unmark", "Unmark"]
    : marked.value?.workspace === of.workspace
      ? ["Compare", "Compare with the marked row"]
      : ["Mark", "Mark for a comparison"];
  return (
    <button
      type="button"
      class="row-mark quiet"
      aria-pressed={isMarked}
      aria-label={`${title}: ${visible(of.words)}`}
      title={title}
      onClick={() => mark(of)}
    >
      <Icon name="compare" />
      {words}
    </button>
  );
}

/** Says which row of the workspace is marked. */
export function MarkBar({ workspace }: { workspace: string }): JSX.Element | null {
  const found = marked.value;
  return found?.workspace === workspace ? <Marked found={found} /> : null;
}

function Marked({ found }: { found: Mark }): JSX.Element {
  const unmark = (): void => void (marked.value = null);
  useActions([{ key: "Escape", title: "Unmark the marked row", run: unmark }]);
  return (
    <p class="undo-bar mark-bar" role="status">
      <span>
        Marked: <Words text={found.words} />, <When at={found.at} as={timeOfDay} />. Press <em>Compare</em> at another
        row.
      </span>
      <button type="button" onClick={unmark}>
        Unmark
      </button>
    </p>
  );
}
