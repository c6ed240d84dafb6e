import type { WorkspaceInfo } from "cairnstate/client";
import type { JSX } from "preact";
import { href, nameOf } from "../../app/address.ts";
import { unrun } from "../../app/session.ts";
import { Name, Words } from "../../parts/name.tsx";
import { count, plural } from "../../parts/numbers.ts";
import { Told } from "../../parts/values.tsx";
import { Due, Moment } from "./card.tsx";
import { type Alarm, type NextRun, PROVEN, type RepositoryFacts, RUN_NAMES, VERIFIED } from "./facts.ts";

/** The lists of the overview around the cards: alarms, repositories, next runs, and folders without save points. */

/** The next runs that are listed. */
const MOST_RUNS = 8;

export function Alarms({ alarms }: { alarms: readonly Alarm[] }): JSX.Element | null {
  if (alarms.length === 0) return null;
  return (
    <>
      <h2>Alarms</h2>
      <ul class="overview-list">
        {alarms.map(({ path, text, hint }) => (
          <li key={`${path} ${text}`}>
            {path !== null && (
              <a href={href({ view: "timeline", workspace: path })}>
                <Name text={nameOf(path)} />
              </a>
            )}
            <span class="removed">
              <Told text={text} />
            </span>
            {hint !== undefined && <span class="faint">{hint}</span>}
          </li>
        ))}
      </ul>
    </>
  );
}

/** The repositories of all workspaces, and the place in the page that shows what proves their backups. */
export function Repositories({ repositories }: { repositories: readonly RepositoryFacts[] }): JSX.Element | null {
  if (repositories.length === 0) return null;
  return (
    <>
      <h2>Repositories</h2>
      <ul class="overview-list" aria-label="Repositories">
        {repositories.map((each) => (
          <Repository key={each.repository} of={each} />
        ))}
      </ul>
      <p class="faint">
        Proven: {PROVEN}. Verified: {VERIFIED}.
      </p>
    </>
  );
}

function Repository({ of }: { of: RepositoryFacts }): JSX.Element {
  const { repository, paths, owing, backed_up_at, verified_at, proven_at, isFailing, backups, unproven } = of;
  return (
    <li>
      <strong>
        <Name text={repository} />
      </strong>
      {isFailing && <span class="badge bad">failing</span>}
      <span>{plural(paths.length, "workspace")}</span>
      <span>
        backed up <Moment at={backed_up_at} isKnown />
      </span>
      <span title={VERIFIED}>
        verified <Moment at={verified_at} isKnown />
      </span>
      <span title={PROVEN}>
        proven <Moment at={proven_at} isKnown />
      </span>
      {backups > 0 && (
        <span class={unproven > 0 ? "modified" : "added"}>
          {count(unproven)} of {plural(backups, "known backup")} never proven
        </span>
      )}
      <a href={href({ view: "activity", workspace: owing, part: backups > 0 ? "receipts" : "backups" })}>
        {backups > 0 ? "Receipts" : "Backups"}
      </a>
    </li>
  );
}

export function Runs({ runs }: { runs: readonly NextRun[] }): JSX.Element | null {
  if (runs.length === 0) return null;
  return (
    <>
      <h2>Next runs</h2>
      <ul class="overview-list">
        {runs.slice(0, MOST_RUNS).map(({ path, kind, repository, next_at }) => (
          <li key={`${path} ${kind} ${repository}`}>
            <span class="overview-when">
              <Due at={next_at} isRun={unrun() === null} />
            </span>
            <strong>{RUN_NAMES[kind]}</strong>
            <a href={href({ view: "timeline", workspace: path })}>
              <Name text={nameOf(path)} />
            </a>
            {repository !== null && (
              <span class="faint overview-place">
                <Name text={repository} />
              </span>
            )}
          </li>
        ))}
        {runs.length > MOST_RUNS && <li class="faint">and {count(runs.length - MOST_RUNS)} more</li>}
      </ul>
    </>
  );
}

export function Gone({ gone }: { gone: readonly WorkspaceInfo[] }): JSX.Element | null {
  if (gone.length === 0) return null;
  return (
    <details>
      <summary>{plural(gone.length, "folder")} whose save points are not there any more</summary>
      <ul class="overview-list">
        {gone.map(({ path, problem: why }) => (
          <li key={path}>
            <Name text={path} /> <span class="faint">{why !== undefined && <Words text={why} />}</span>
          </li>
        ))}
      </ul>
    </details>
  );
}
