import { useSignal } from "@preact/signals";
import type { Receipts as Listed, VerifyReceiptResult } from "cairnstate/client";
import type { JSX } from "preact";
import { href } from "../../app/address.ts";
import { call } from "../../app/calls.ts";
import { problemOf, useResource } from "../../app/resource.ts";
import { PathName, visible } from "../../parts/name.tsx";
import { count, plural } from "../../parts/numbers.ts";
import { type Found, Problem } from "../../parts/problem.tsx";
import { PartHeading } from "./part-heading.tsx";
import { When, wholeTime } from "../../parts/values.tsx";

/** How many backups nothing has proven, by repository; and the receipts of restores, each with its check. */

export function Receipts({ workspace }: { workspace: string }): JSX.Element | null {
  const { value, problem, reload } = useResource(`receipts ${workspace}`, async (signal) =>
    call("receipts", { workspace }, { signal }),
  );
  if (problem !== null) return <Problem problem={problem} again={reload} />;
  if (value === undefined || value.debt.length === 0) return null;
  return (
    <>
      <ul class="activity-list" aria-label="Verification debt">
        {value.debt.map((each) => (
          <Debt key={each.repository_id} of={each} workspace={workspace} />
        ))}
      </ul>
      <PartHeading part="receipts" level="h3">
        Receipts
      </PartHeading>
      {value.receipts.length === 0 && (
        <p class="faint">
          No restore has proven a backup of this folder: a restore of a whole backup writes a receipt.
        </p>
      )}
      <ul class="activity-list" aria-label="Receipts">
        {value.receipts.map((each) => (
          <Receipt key={each.name} of={each} workspace={workspace} />
        ))}
      </ul>
    </>
  );
}

/** The backups without a proof that are named. */
const NAMED = 4;

function Debt({ of, workspace }: { of: Listed["debt"][number]; workspace: string }): JSX.Element {
  const { repository, backups, unproven, proven_at: proven, verified_at: verified, owed = [] } = of;
  const named = owed.slice(0, NAMED);
  return (
    <li>
      <span class="activity-words">
        <strong>
          <PathName path={repository} />
        </strong>{" "}
        <span class={unproven > 0 ? "modified" : "added"}>
          {unproven === 0
            ? "every known backup is proven"
            : `${count(unproven)} of ${plural(backups, "known backup")} not proven`}
        </span>
        {", "}
        {proven === null ? (
          "never proven"
        ) : (
          <>
            last proven <When at={proven} />
          </>
        )}
        {", "}
        {verified === null ? (
          "never verified by the schedule"
        ) : (
          <>
            last verified <When at={verified} />
          </>
        )}
        {named.length > 0 && (
          <span class="faint">
            . Not proven: {named.length === 1 ? "the backup of save point" : "the backups of save points"}{" "}
            {named.map(({ save_point_id: id, created_at: at }, i) => (
              <>
                {i > 0 && ", "}
                {at === null ? (
                  <code>{id.slice(0, 8)}</code>
                ) : (
                  <>
                    <a href={href({ view: "point", workspace, point: id })}>{id.slice(0, 8)}</a> of{" "}
                    <When at={at} as={wholeTime} />
                  </>
                )}
              </>
            ))}
            {unproven > named.length && `, and ${count(unproven - named.length)} more`}
          </span>
        )}
      </span>
    </li>
  );
}

function Receipt({ of, workspace }: { of: Listed["receipts"][number]; workspace: string }): JSX.Element {
  const checked = useSignal<VerifyReceiptResult | Found | null>(null);
  const check = async (): Promise<void> => {
    checked.value = await call("checkReceipt", { workspace, name: of.name }).catch(problemOf);
  };
  const answer = checked.value;
  return (
    <li>
      <span class="activity-words">
        <When at={of.made_at} as={wholeTime} /> backup <code>{of.snapshot_id.slice(0, 8)}</code> restored into{" "}
        <PathName path={of.target} /> <code class="faint">{visible(of.name)}</code>
      </span>
      <button type="button" aria-label={`Check ${of.name}`} onClick={() => void check()}>
        Check
      </button>
      <div class="activity-answer" role="status">
        {answer !== null && ("code" in answer ? <Problem problem={answer} /> : inWords(answer))}
      </div>
    </li>
  );
}

function inWords({ trusted, rewritten }: VerifyReceiptResult): string {
  const signed = trusted
    ? "The receipt is unchanged, and signed by your key."
    : "The receipt is unchanged since it was signed, by a key that is not yours.";
  if (rewritten === null) return signed;
  return `${signed} Since then ${plural(rewritten.paths.length, "path")} were removed from the save point, which has another digest now.`;
}
