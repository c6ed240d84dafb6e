import type { JSX } from "preact";
import { useEffect } from "preact/hooks";
import { href, nameOf, type Route } from "../app/address.ts";
import { call } from "../app/calls.ts";
import { onEvent } from "../app/events.ts";
import { type Fork, forksOf } from "../app/forks.ts";
import { useResource } from "../app/resource.ts";
import { isReadOnly } from "../app/session.ts";
import { Icon } from "../parts/icon.tsx";
import { Name } from "../parts/name.tsx";
import { Empty, Late, Problem } from "../parts/problem.tsx";
import { Counts } from "../parts/values.tsx";
import { sumsOf } from "./point/changed-tree.ts";
import { ForkActions, ForkFacts } from "./point/fork-head.tsx";

/** The forks of a workspace, each with its difference from the point it was made from. */
export function View({ route: { workspace } }: { route: Extract<Route, { view: "forks" }> }): JSX.Element {
  const { value, problem, isLate, reload } = useResource(`forks ${workspace}`, (signal) => forksOf(workspace, signal));
  useEffect(() => onEvent(({ type }) => type !== "changed" && reload()), []);
  if (problem !== null) return <Problem problem={problem} again={reload} />;
  if (value === undefined) return <Late isLate={isLate.value} />;
  return (
    <section class="forks" aria-label="Forks">
      <h1>Forks</h1>
      {value.length === 0 && (
        <Empty title="No fork yet">
          <p>
            A fork is a second folder with the state of a save point, to try something in. “Fork…” at a save point makes
            one.
          </p>
        </Empty>
      )}
      {value.length > 0 && !isReadOnly() && (
        <>
          <p class="faint">Merge… brings a fork's changes home, beside the changes of this folder.</p>
          <p class="faint">Adopt… makes this folder equal to a fork.</p>
        </>
      )}
      <ul>
        {value.map((each) => (
          <li key={each.path}>
            <div class="fork-title">
              <h2>
                {each.present ? (
                  <a href={href({ view: "point", workspace, point: each.path })}>
                    <Icon name="fork" /> <Name text={nameOf(each.path)} />
                  </a>
                ) : (
                  <Name text={nameOf(each.path)} />
                )}
              </h2>
              {each.present && <Changed workspace={workspace} fork={each} />}
              <span class="space" />
              <ForkActions workspace={workspace} fork={each} removed={reload} />
            </div>
            <ForkFacts workspace={workspace} fork={each} />
          </li>
        ))}
      </ul>
    </section>
  );
}

/** Counts what changed in the fork since it was made. */
function Changed({ workspace, fork: { path, origin } }: { workspace: string; fork: Fork }): JSX.Element {
  const { value, problem, reload } = useResource(`fork changes ${path}`, async (signal) =>
    sumsOf((await call("diff", { workspace, a: origin.save_point_id, b: path }, { signal })).entries),
  );
  useEffect(() => onEvent((event) => event.workspace === path && reload()), [path]);
  if (problem !== null) return <span class="faint">cannot be compared with its beginning</span>;
  if (value === undefined) return <span class="faint">…</span>;
  return (
    <a href={href({ view: "point", workspace, point: path })}>
      What it changed <Counts {...value} />
    </a>
  );
}
