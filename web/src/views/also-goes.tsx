import type { JSX } from "preact";
import { useMemo } from "preact/hooks";
import { foldersOf, href, isBackup, type PathRef, type Route, toInput, toText } from "../app/address.ts";
import { call } from "../app/calls.ts";
import { useResource } from "../app/resource.ts";
import { CauseName } from "../parts/cause.tsx";
import { PathName, Words } from "../parts/name.tsx";
import { count, plural } from "../parts/numbers.ts";
import { Problem, waiting } from "../parts/problem.tsx";
import { When, wholeTime } from "../parts/values.tsx";
import { pathsOf } from "./point/changed-tree.ts";
import type { ShownPlan } from "./restore-plan.tsx";

/** The most paths that the note looks at. For each path, the most save points that the server lists, and that the note names. */
const MOST_PATHS = 8;
const MOST_ASKED = 50;
const MOST_NAMED = 6;
/** Numbers the plans, so that later changes are looked for again with each plan. */
let plans = 0;

/** The keys of paths, and of all folders above. */
const keysOf = (paths: readonly PathRef[]): ReadonlySet<string> =>
  new Set(paths.flatMap((each) => [toText(each), ...foldersOf(each)]));

/**
 * Names the save points after the restored point whose changes of the restored paths go, and the paths with unsaved
 * changes. Taking back one change names only paths with more changes. Looks at the chosen paths that the plan changes,
 * again with each plan.
 */
export function AlsoGoes({
  route: { workspace, point, paths: wanted, back },
  plan: { shown, chosen, isNone },
}: {
  route: Extract<Route, { view: "restore" }>;
  plan: ShownPlan;
}): JSX.Element {
  const number = useMemo(() => ++plans, [shown]);
  const changing = useMemo(() => keysOf((shown?.entries ?? []).filter(({ action }) => action !== "keep")), [shown]);
  const paths = isBackup(point) || wanted.length === 0 ? [] : chosen.filter((each) => changing.has(toText(each)));
  const asked = paths.slice(0, MOST_PATHS);
  const { value, problem, isOld, reload } = useResource(
    `goes ${number} ${workspace} ${point} ${asked.map(toText).join("\n")}`,
    async (signal) => {
      if (asked.length === 0) return [];
      const [{ save_point: to }, { entries }] = await Promise.all([
        call("show", { workspace, target: point, options: { limit: 1 } }, { signal }),
        call("diff", { workspace, a: "head", b: null }, { signal }),
      ]);
      const unsaved = keysOf(pathsOf(entries.filter(({ change }) => change !== "not_kept" && change !== "removed")));
      return Promise.all(
        asked.map(async (path) => {
          const members = { workspace, path: toInput(path), options: { limit: MOST_ASKED } };
          const { changes, truncated } = await call("why", members, { signal });
          const gone = changes.flatMap(({ save_point: own }) => (own.sequence > to.sequence ? [own] : []));
          const least = truncated && gone.length === changes.length ? "at least " : "";
          return { path, gone, least, isUnsaved: unsaved.has(toText(path)) };
        }),
      );
    },
  );
  const shownAlready = back === true ? 1 : 0;
  const found = value?.filter(({ gone, isUnsaved }) => gone.length + Number(isUnsaved) > shownAlready) ?? [];
  if (problem !== null) {
    const of = asked.length === 1 ? asked[0]!.path : plural(asked.length, "path");
    const message = `could not look for later changes of ${of}: ${problem.message}`;
    return <Problem problem={{ ...problem, message }} again={reload} />;
  }
  const unseen = paths.length - asked.length;
  const isLoading = value === undefined || isOld || (shown === undefined && !isNone);
  return (
    <div class="note also-goes" role="note" hidden={found.length + unseen === 0} {...waiting(isLoading)}>
      {found.map(({ path, gone, least, isUnsaved }) => (
        <div key={toText(path)}>
          <p>
            <PathName path={path.path} /> {wordsOf(gone.length, { least, isUnsaved })}
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
            {gone.length > MOST_NAMED && (
              <li class="faint">
                and {least}
                {count(gone.length - MOST_NAMED)} more
              </li>
            )}
          </ul>
        </div>
      ))}
      {unseen > 0 && <p class="faint">Later changes of {plural(unseen, "more path")} were not looked for.</p>}
    </div>
  );
}

/** `least`: `at least ` if there may be more save points. */
function wordsOf(points: number, { least, isUnsaved }: { least: string; isUnsaved: boolean }): string {
  const changes = [
    ...(points > 0 ? [`changed in ${least}${plural(points, "save point")} since then`] : []),
    ...(isUnsaved ? ["has changes that are not saved"] : []),
  ];
  return `${changes.join(", ")}, and these changes of this path go${points > 0 ? ":" : "."}`;
}
