import type { JSX } from "preact";
import { href, isBackup, type PathRef, toInput, toText } from "../app/address.ts";
import { call } from "../app/calls.ts";
import { useResource } from "../app/resource.ts";
import { CauseName } from "../parts/cause.tsx";
import { PathName, Words } from "../parts/name.tsx";
import { count, plural } from "../parts/numbers.ts";
import { When, wholeTime } from "../parts/values.tsx";

/** Paths whose save points are asked for, and save points of a path that are named. */
const MOST_PATHS = 8;
const MOST_NAMED = 6;

/** Names the save points whose changes of the restored paths go: all those after `point`, also the later ones. */
export function AlsoGoes({
  workspace,
  point,
  paths,
}: {
  workspace: string;
  point: string;
  paths: readonly PathRef[];
}): JSX.Element | null {
  const asked = isBackup(point) ? [] : paths.slice(0, MOST_PATHS);
  const { value } = useResource(
    `goes ${workspace} ${point} ${asked.map(toText).join("\n")}`,
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
    { isFresh: true },
  );
  const found = value.value?.filter(({ gone }) => gone.length > 1) ?? [];
  if (found.length === 0) return null;
  return (
    <div class="note" role="note">
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
