import { useSignal } from "@preact/signals";
import type { ForgetBackupsResult, PruneBackupsResult } from "cairnstate/client";
import type { JSX } from "preact";
import { call } from "../../app/calls.ts";
import { act, isBusy } from "../../app/outcome.tsx";
import { useResource } from "../../app/resource.ts";
import { isReadOnly } from "../../app/session.ts";
import { Dialog } from "../../parts/dialog.tsx";
import { Words } from "../../parts/name.tsx";
import { count, plural, size } from "../../parts/numbers.ts";
import { Late, Problem } from "../../parts/problem.tsx";
import { PartHeading } from "./part-heading.tsx";
import { Receipts } from "./receipts.tsx";
import { When, wholeTime } from "../../parts/values.tsx";

/** What forgetting backups by the rules, or a prune, would remove from the kept repository; and the buttons that do so. */

const FREED_LATER = "Prune frees their data, and its plan says how much.";
/** Names of packs that are listed one by one. */
const NAMED = 50;

export function Backups({ workspace }: { workspace: string }): JSX.Element {
  const opened = useSignal<"forget" | "prune" | null>(null);
  const close = (): void => void (opened.value = null);
  return (
    <>
      <PartHeading part="backups">Backups</PartHeading>
      <div class="activity-filter">
        <button type="button" onClick={() => (opened.value = "forget")}>
          Forget backups…
        </button>
        <button type="button" onClick={() => (opened.value = "prune")}>
          Prune…
        </button>
      </div>
      <Receipts workspace={workspace} />
      {opened.value === "forget" && <ForgetDialog workspace={workspace} close={close} />}
      {opened.value === "prune" && <PruneDialog workspace={workspace} close={close} />}
    </>
  );
}

interface DialogProps {
  workspace: string;
  close(): void;
}

function ForgetDialog({ workspace, close }: DialogProps): JSX.Element {
  const { value, problem, isLate, reload } = useResource(
    `forget ${workspace}`,
    async (signal) => call("planForgetBackups", { workspace }, { signal }),
    { isFresh: true },
  );
  const all = value?.groups.flatMap(({ snapshots }) => snapshots) ?? [];
  const going = all.filter(({ keep }) => !keep);
  const forget = async ({ plan_id: id }: ForgetBackupsResult): Promise<void> => {
    const done = await act(
      async () => call("forgetBackups", { workspace, options: { plan: id! } }),
      ({ removed }) => ({ text: `${plural(removed.length, "backup")} removed. ${FREED_LATER}` }),
    );
    if (done !== null) close();
    else reload();
  };
  return (
    <Dialog title="Forget backups" close={close}>
      {problem !== null && <Problem problem={problem} again={reload} />}
      {value === undefined && problem === null && <Late isLate={isLate.value} />}
      {value !== undefined && (
        <div class="stack">
          <p>
            The kept rules remove {plural(going.length, "backup")} of this folder, and keep{" "}
            {count(all.length - going.length)}. {FREED_LATER}
          </p>
          <ul class="activity-list" aria-label="Backups that go">
            {going.map(({ snapshot_id: id, created_at: at, reasons }) => (
              <li key={id}>
                <code>{id.slice(0, 8)}</code> <When at={at} as={wholeTime} />{" "}
                <span class="faint">
                  <Words text={reasons.join(", ")} />
                </span>
              </li>
            ))}
          </ul>
          {!isReadOnly() && going.length > 0 && (
            <button type="button" class="strong" disabled={isBusy.value} onClick={() => void forget(value)}>
              Remove {plural(going.length, "backup")} for good
            </button>
          )}
        </div>
      )}
    </Dialog>
  );
}

function PruneDialog({ workspace, close }: DialogProps): JSX.Element {
  const { value, problem, isLate, reload } = useResource(
    `prune ${workspace}`,
    async (signal) => call("planPruneBackups", { workspace }, { signal }),
    { isFresh: true },
  );
  const { mark = [], free = [], rewrite = [] } = value?.planned_packs ?? {};
  const prune = async ({ plan_id: id }: PruneBackupsResult): Promise<void> => {
    const done = await act(
      async () => call("pruneBackups", { workspace, options: { plan: id! } }),
      (result) => ({ text: `Pruned. ${freed(result)}` }),
    );
    if (done !== null) close();
    else reload();
  };
  const isNothing = mark.length + free.length + rewrite.length === 0;
  return (
    <Dialog title="Prune" close={close}>
      {problem !== null && <Problem problem={problem} again={reload} />}
      {value === undefined && problem === null && <Late isLate={isLate.value} />}
      {value !== undefined && (
        <div class="stack">
          <p>{isNothing ? "No data is without a backup that needs it." : wouldFree(value)}</p>
          <Packs title="Are marked now, and freed later" names={mark} />
          <Packs title="Are freed" names={free} />
          <Packs title="Are written again without their unneeded parts" names={rewrite} />
          {!isReadOnly() && !isNothing && (
            <button type="button" class="strong" disabled={isBusy.value} onClick={() => void prune(value)}>
              Prune
            </button>
          )}
        </div>
      )}
    </Dialog>
  );
}

function Packs({ title, names }: { title: string; names: readonly string[] }): JSX.Element | null {
  if (names.length === 0) return null;
  return (
    <section>
      <h3>
        {title}: {plural(names.length, "pack")}
      </h3>
      <ul class="activity-list" aria-label={title}>
        {names.slice(0, NAMED).map((each) => (
          <li key={each}>
            <code>{each.slice(0, 16)}</code>
          </li>
        ))}
        {names.length > NAMED && <li class="faint">and {count(names.length - NAMED)} more</li>}
      </ul>
    </section>
  );
}

/** A repository is pruned in two looks: what is not needed is marked, and freed a day later. */
function wouldFree({ bytes_freed: bytes, marked_bytes: marked }: PruneBackupsResult): string {
  return `That frees ${size(bytes)} now, and marks ${size(marked)} that a later prune frees.`;
}

function freed({ bytes_freed: bytes, marked_bytes: marked, free_from: from, postponed }: PruneBackupsResult): string {
  const later =
    marked === 0
      ? ""
      : ` ${size(marked)} are marked${from === null ? "" : `, and can be freed from ${wholeTime(from)}`}.`;
  const busy = postponed ? " Other programs use the repository: the next prune frees the rest." : "";
  return `${size(bytes)} freed.${later}${busy}`;
}
