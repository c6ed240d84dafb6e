import type { JSX } from "preact";
import { useMemo } from "preact/hooks";
import { foldersOf, href, isBackup, type Route, toInput, toText } from "../app/address.ts";
import { call } from "../app/calls.ts";
import { useResource } from "../app/resource.ts";
import { CauseName } from "../parts/cause.tsx";
import { PathName, Words } from "../parts/name.tsx";
import { count, plural } from "../parts/numbers.ts";
import { Problem, waiting } from "../parts/problem.tsx";
import { When, wholeTime } from "../parts/values.tsx";
import type { ShownPlan } from "./restore-plan.tsx";

/** Paths whose save points are asked for, and save points of a path that are named. */
const MOST_PATHS = 8;
const MOST_NAMED = 6;
/** Number of plans so far for which later changes were looked for. */
let plans = 0;

/**
 * Names the save points whose changes of the restored paths go: all those after the restored point, also the later ones.
 * Looks at the chosen paths that the plan changes, again with each plan.
 */
export function AlsoGoes({
  route: { workspace, point, paths: wanted },
  plan: { shown, chosen, isNone },
}: {
  route: Extract<Route, { view: "restore" }>;
  plan: ShownPlan;
}): JSX.Element {
  const number = useMemo(() => ++plans, [shown]);
  const changing = useMemo(() => {
    const entries = (shown?.entries ?? []).filter(({ action }) => action !== "keep");
    return new Set(entries.flatMap((each) => [toText(each), ...foldersOf(each)]));
  }, [shown]);
  const paths = isBackup(point) || wanted.length === 0 ? [] : chosen.filter((each) => changing.has(toText(each)));
  const asked = paths.slice(0, MOST_PATHS);
  const { value, problem, isOld, reload } = useResource(
    `goes ${number} ${workspace} ${point} ${asked.map(toText).join("\n")}`,
    async (signal) => {
      if (asked.length === 0) return [];
      const options = { limit: 1 };
      const { save_point: to } = await call("show", { workspace, target: point, options }, { signal });
      return Promise.all(
        asked.map(async (path) => {
          const { changes } = await call("why", { workspace, path: toInput(path) }, { signal });
          return { path, gone: changes.flatMap(({ save_point: own }) => (own.sequence > to.sequence ? [own] : [])) };
        }),
      );
    },
  );
  const found = value.value?.filter(({ gone }) => gone.length > 1) ?? [];
  if (problem.value !== null) {
    const of = asked.length === 1 ? asked[0]!.path : plural(asked.length, "path");
    const message = `could not look for later changes of ${of}: ${problem.value.message}`;
    return <Problem problem={{ ...problem.value, message }} again={reload} />;
  }
  const isLoading = value.value === undefined || isOld || (shown === undefined && !isNone);
  return (
    <div class="note also-goes" role="note" hidden={found.length === 0} {...waiting(isLoading)}>
      {found.map(({ path, gone }) => (
        <div key={toText(path)}>
          <p>
            <PathName path={path.path} /> changed in {plural(gone.length, "save point")} since then, and all of these
            changes go:
          </p>
          <ul class="restore-paths restore-goes">
            {gone.slice(0, MOST_NAMED).map((own) => (
              <li key={own.save_point_id}>
                <a href={href({ view: "point", workspace, point: own.save_point_id, file: path })}>
                  <Words text={own.message === "" ? "no message" : own.message} />
                </a>{" "}
                <span class="faint">
                  <When at={own.created_at} as={wholeTime} />, <CauseName cause={own.cause} />
                </span>
              </li>
            ))}
            {gone.length > MOST_NAMED && <li class="faint">and {count(gone.length - MOST_NAMED)} more</li>}
          </ul>
        </div>
      ))}
      {paths.length > asked.length && (
        <p class="faint">Later changes of the other {plural(paths.length - asked.length, "path")} go, too.</p>
      )}
    </div>
  );
}
