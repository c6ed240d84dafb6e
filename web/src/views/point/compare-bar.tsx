import { useSignal } from "@preact/signals";
import type { SavePoint } from "cairnstate/client";
import type { JSX } from "preact";
import { isBackup, shortState } from "../../app/address.ts";
import { call } from "../../app/calls.ts";
import { useResource } from "../../app/resource.ts";
import { turnOf } from "../../parts/cause.tsx";
import { Name, visible } from "../../parts/name.tsx";
import { wholeTime } from "../../parts/values.tsx";
import { ChooseDialog } from "./choose-dialog.tsx";

/** Returns the point before the agent's turn that made `point`; null if no turn made it, or if no point is older. */
async function startOfTurn(workspace: string, point: SavePoint, signal: AbortSignal): Promise<string | null> {
  const turn = turnOf(point);
  if (turn === null || turn.session === null || turn.turn === null) return null;
  const { save_points } = await call("history", { workspace, options: { grep: turn.session } }, { signal });
  const ofTurn = save_points.filter((each) => {
    const other = turnOf(each);
    return other?.session === turn.session && other.turn === turn.turn;
  });
  return ofTurn.at(-1)?.parent_id ?? null;
}

/** Names the other side of a comparison, and changes it. */
export function CompareBar({
  workspace,
  point,
  to,
  compare,
}: {
  workspace: string;
  /** Null: a backup, which is compared with the folder now unless another state is chosen. */
  point: SavePoint | null;
  to: string | undefined;
  compare(wanted: string | undefined): void;
}): JSX.Element {
  const isChoosing = useSignal(false);
  const turn = point === null ? null : turnOf(point);
  const start = useResource(
    `turn ${point?.save_point_id}`,
    async (signal) => (point === null ? null : startOfTurn(workspace, point, signal)),
    { isFixed: true },
  );
  const before = start.value ?? null;
  const other = to === undefined || to === "now" || to === before ? "" : to;
  const named = useResource(`other ${workspace} ${other}`, async (signal) => {
    if (other === "" || isBackup(other)) return "";
    const found = await call("show", { workspace, target: other, options: { limit: 1 } }, { signal });
    const { created_at, message } = found.save_point;
    return `${wholeTime(created_at)} ${message.split("\n", 1)[0]!.slice(0, 60)}`;
  });
  return (
    <div class="compare" role="group" aria-label="Compare with">
      <span class="faint">Changes against</span>
      {point !== null && (
        <button type="button" aria-pressed={to === undefined} onClick={() => compare(undefined)}>
          the point before
        </button>
      )}
      {turn !== null && before !== null && before !== point?.parent_id && (
        <button type="button" aria-pressed={to === before} onClick={() => compare(before)}>
          before turn {visible(turn.turn!.slice(0, 20))}
        </button>
      )}
      <button
        type="button"
        aria-pressed={to === "now" || (to === undefined && point === null)}
        onClick={() => compare("now")}
      >
        the folder now
      </button>
      <button type="button" class="compared" aria-pressed={other !== ""} onClick={() => (isChoosing.value = true)}>
        {other === "" ? "another point…" : <Name text={named.value || shortState(other)} />}
      </button>
      {isChoosing.value && (
        <ChooseDialog workspace={workspace} choose={compare} close={() => (isChoosing.value = false)} />
      )}
    </div>
  );
}
