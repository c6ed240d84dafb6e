import type { ComponentChildren, JSX } from "preact";
import { href, nameOf } from "../../app/address.ts";
import { unrun } from "../../app/session.ts";
import { Name, Words } from "../../parts/name.tsx";
import { count, plural } from "../../parts/numbers.ts";
import { When, wholeTime } from "../../parts/values.tsx";
import {
  damagedOf,
  type Daemon,
  earliest,
  overdueOf,
  PROVEN,
  repositoriesOf,
  type Shown,
  type Trouble,
  unknownOf,
  VERIFIED,
} from "./facts.ts";

/** Things of a kind that are named in one line. */
const NAMED = 3;

/** Says in one line each whether something is damaged, what is overdue, and which backups nothing has proven. */
export function FactLines({ all, daemon }: { all: readonly Shown[]; daemon: Daemon | null }): JSX.Element | null {
  if (all.length === 0) return null;
  const isKnown = all.every(({ status, schedule, debt }) => ![status, schedule, debt].includes(undefined));
  return (
    <ul class="overview-facts" aria-label="State">
      {isKnown ? (
        <>
          <TroubleLine title="Damaged" none="Nothing is damaged." troubles={damagedOf(all)} />
          <TroubleLine title="Overdue" none="Nothing is overdue." troubles={overdueOf(all, daemon, unrun())} />
          <Proofs all={all} />
          <TroubleLine title="Not known" troubles={unknownOf(all)} />
        </>
      ) : (
        <li class="faint">Looking for damage and for overdue work…</li>
      )}
    </ul>
  );
}

function TroubleLine({
  title,
  none,
  troubles,
}: {
  title: string;
  none?: string;
  troubles: readonly Trouble[];
}): JSX.Element | null {
  if (troubles.length === 0) return none === undefined ? null : <li>{none}</li>;
  return (
    <li class="removed">
      {title}:{" "}
      {troubles.slice(0, NAMED).map(({ path, text, since }, i) => (
        <span key={i}>
          {i > 0 && "; "}
          {path !== null && (
            <>
              <a href={href({ view: "timeline", workspace: path })}>
                <Name text={nameOf(path)} />
              </a>
              {", "}
            </>
          )}
          <Words text={text} />
          {since !== null && (
            <>
              {" "}
              <When at={since} /> ({wholeTime(since)})
            </>
          )}
        </span>
      ))}
      {troubles.length > NAMED && `; and ${count(troubles.length - NAMED)} more`}
    </li>
  );
}

/** Counts the known backups without a proof, with links to the activity of workspaces that owe a proof. */
function Proofs({ all }: { all: readonly Shown[] }): JSX.Element {
  const repositories = repositoriesOf(all).filter(({ backups }) => backups > 0);
  const backups = repositories.reduce((sum, each) => sum + each.backups, 0);
  const unproven = repositories.reduce((sum, each) => sum + each.unproven, 0);
  const [first] = repositories;
  if (first === undefined) return <li>No backup is known.</li>;
  const unsettled = repositories.filter((each) => each.unproven > 0);
  const owing = [...new Set((unsettled.length > 0 ? unsettled : [first]).map((each) => each.owing))];
  const { at, absent } = earliest(repositories.map(({ verified_at: verified }) => verified));
  return (
    <li class={unproven > 0 ? "modified" : ""}>
      <span title={PROVEN}>
        {unproven === 0
          ? "Every known backup was proven"
          : `${count(unproven)} of ${plural(backups, "known backup")} ${unproven === 1 ? "was" : "were"} never proven`}
      </span>
      {"; "}
      <span title={VERIFIED}>{verified({ at, absent }, repositories.length)}</span>.{" "}
      {owing.slice(0, NAMED).map((workspace, i) => (
        <>
          {i > 0 && ", "}
          <a key={workspace} href={href({ view: "activity", workspace, part: "receipts" })}>
            Show the receipts
            {owing.length > 1 && (
              <>
                {" "}
                of <Name text={nameOf(workspace)} />
              </>
            )}
          </a>
        </>
      ))}
      {owing.length > NAMED && `, and of ${plural(owing.length - NAMED, "more workspace")}`}
    </li>
  );
}

function verified({ at, absent }: { at: string | null; absent: number }, all: number): ComponentChildren {
  if (at === null) return "never verified by the schedule";
  if (absent > 0)
    return `${count(absent)} of ${plural(all, "repository", "repositories")} never verified by the schedule`;
  return (
    <>
      verified <When at={at} />
    </>
  );
}
