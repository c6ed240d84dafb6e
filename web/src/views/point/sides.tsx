import type { JSX } from "preact";
import { isBackup, isFork, shortState } from "../../app/address.ts";
import { call } from "../../app/calls.ts";
import { useResource } from "../../app/resource.ts";
import { Words } from "../../parts/name.tsx";
import { wholeTime } from "../../parts/values.tsx";

/** Names the states of both sides of a difference. `to` null: the present folder. */
export function Sides({ workspace, from, to }: { workspace: string; from: string; to: string | null }): JSX.Element {
  return (
    <p class="facts diff-sides">
      <span class="removed">
        − <StateName workspace={workspace} state={from} />
      </span>
      <span class="added">+ {to === null ? "the folder now" : <StateName workspace={workspace} state={to} />}</span>
    </p>
  );
}

/** The message of a point, or its time; the short id of another state. */
function StateName({ workspace, state }: { workspace: string; state: string }): JSX.Element {
  const isPoint = !isBackup(state) && !isFork(state) && state !== ".";
  const { value } = useResource(
    `name ${workspace} ${state}`,
    async (signal) => {
      if (!isPoint) return null;
      const { save_point: point } = await call("show", { workspace, target: state, options: { limit: 1 } }, { signal });
      return point.message === "" ? wholeTime(point.created_at) : point.message;
    },
    { isFixed: true },
  );
  return <Words text={state === "." ? "the folder now" : (value ?? shortState(state))} />;
}
