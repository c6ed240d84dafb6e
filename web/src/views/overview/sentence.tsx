import type { ComponentChildren, JSX } from "preact";
import { count, plural } from "../../parts/numbers.ts";
import { When } from "../../parts/values.tsx";
import { agentsWithoutHooks, earliest, isDamaged, isLate, provenAt, repositoriesOf, type Shown } from "./facts.ts";

/** The state of all workspaces in one sentence: `Everything is saved; backed up 2 hours ago; proven yesterday`. */
export function Sentence({ all }: { all: readonly Shown[] }): JSX.Element | null {
  if (all.length === 0) return null;
  const parts = [...problems(all), ...saved(all), ...kept(all), ...agents(all)];
  return (
    <h1 class="sentence">
      {parts.map((part, i) => (
        <>
          {i > 0 && "; "}
          {part}
        </>
      ))}
    </h1>
  );
}

function problems(all: readonly Shown[]): JSX.Element[] {
  const damaged = all.filter(isDamaged).length;
  const missing = all.filter(({ present }) => !present).length;
  const late = all.filter((each) => !isDamaged(each) && isLate(each)).length;
  return [
    ...(damaged > 0 ? [bad(`${plural(damaged, "workspace is", "workspaces are")} damaged`)] : []),
    ...(missing > 0 ? [warn(`${plural(missing, "folder is", "folders are")} missing`)] : []),
    ...(late > 0 ? [warn(`${plural(late, "workspace has", "workspaces have")} alarms`)] : []),
  ];
}

/** Says nothing of missing folders, which `problems` counts. */
function saved(all: readonly Shown[]): JSX.Element[] {
  const seen = all.filter(({ present }) => present);
  if (seen.some(({ status }) => status === undefined)) return [<span class="faint">looking at the folders</span>];
  const unread = seen.filter(({ status }) => status === null).length;
  if (unread > 0) return [bad(`${plural(unread, "folder")} cannot be read`)];
  const unsaved = seen.filter(({ status }) => status?.clean === false).length;
  if (unsaved === 0 && seen.length < all.length) return seen.length === 0 ? [] : [<span>all others are saved</span>];
  if (unsaved === 0) return [<span class="added">everything is saved</span>];
  if (all.length === 1) return [warn("there are changes that are not saved")];
  return [
    warn(`${count(unsaved)} of ${count(all.length)} workspaces ${unsaved === 1 ? "has" : "have"} unsaved changes`),
  ];
}

/** Says since when everything has been in a backup, and proven there. */
function kept(all: readonly Shown[]): JSX.Element[] {
  if (all.some(({ schedule }) => schedule === undefined)) return [];
  const backups = all.map(({ schedule, status }) => schedule?.last_backup_at ?? status?.last_backup?.at ?? null);
  const { at, absent } = earliest(backups);
  if (at === null) return [warn("no backup yet")];
  const proof = earliest(all.flatMap((each, i) => (backups[i] === null ? [] : [provenAt(each)])));
  // A folder without a proof owes at least one backup, although this machine may have no record of that backup.
  const unproven = repositoriesOf(all).reduce((sum, each) => sum + each.unproven, 0);
  return [
    <span>
      {backups.length - absent > 1 ? "the oldest of the last backups was made" : "backed up"} <When at={at} />
    </span>,
    ...(absent > 0 ? [warn(`${count(absent)} of ${count(all.length)} without a backup`)] : []),
    proof.at === null || proof.absent > 0 ? (
      warn(proof.at === null ? "never proven" : `${plural(Math.max(unproven, proof.absent), "backup")} never proven`)
    ) : (
      <span>
        proven <When at={proof.at} />
      </span>
    ),
  ];
}

function agents(all: readonly Shown[]): JSX.Element[] {
  const without = all.flatMap(agentsWithoutHooks).length;
  return without === 0 ? [] : [warn(`${plural(without, "agent")} without hooks`)];
}

const warn = (text: ComponentChildren): JSX.Element => <span class="modified">{text}</span>;
const bad = (text: ComponentChildren): JSX.Element => <span class="removed">{text}</span>;
