import { CairnError } from "../../../errors.ts";
import type {
  BackupProblem,
  BackupRepository,
  DrillResult,
  RestoredForCheck,
  SnapshotFilter,
  VerifyBackupResult,
} from "../../../contract/index.ts";
import { unprovenBy } from "../../../formats/records/receipt.ts";
import type { CommandDefinition, Outcome } from "../../command.ts";
import type { Context } from "../../context.ts";
import { EXIT_PARTLY } from "../../envelope.ts";
import type { Input } from "../../input.ts";
import { formatBytes, formatDuration, listedNames, plural, printable } from "../../render/format.ts";
import { REPOSITORY_OPTIONS, UNREADABLE_HINT, withRepository } from "./repository.ts";
import { DrillOptions, VerifyBackupOptions } from "../../../contract/repositories.ts";
import { pick } from "../../../contract/schema.ts";
import { VerbOptions } from "../../options.ts";

const OPTIONS = new VerbOptions(pick(VerifyBackupOptions, "restoreCheck", "jobs"));
const READ = new VerbOptions(pick(VerifyBackupOptions, "subset"));
const RESTORED = new VerbOptions(pick(VerifyBackupOptions, "scratch", "probe"));

const DRILL = new VerbOptions(pick(DrillOptions, "folder", "scratch", "probe", "jobs"));

export const command: CommandDefinition = {
  name: "backup verify",
  harmless: true,
  arguments: [
    {
      name: "[snapshots...]",
      text: "check only data of these snapshots; default: the whole repository, also data that no snapshot needs",
    },
  ],
  options: [
    ...REPOSITORY_OPTIONS,
    ...READ.definitions,
    ...OPTIONS.definitions,
    ...RESTORED.definitions.map((option) => ({ ...option, text: `like --restore-check; ${option.text}` })),
  ],
  examples: [
    { line: "cairn backup verify -r /srv/backups", text: "read every byte; exit 6 if something is damaged" },
    {
      line: "cairn backup verify -r /srv/backups --subset 3/30",
      text: "read a thirtieth of the packs, e.g. by the day of the month",
    },
    {
      line: "cairn backup verify -r /srv/backups --subset none --restore-check",
      text: "check that the newest snapshot can be restored",
    },
    { line: "cairn backup verify -r /srv/backups latest", text: "read all data of the newest snapshot" },
  ],
  async run(context, input) {
    const snapshots = input.rest(0);
    const restored = RESTORED.read(context, input);
    const options: VerifyBackupOptions = {
      ...context.callOptions(),
      ...(Object.keys(restored).length > 0 ? { ...restored, restoreCheck: true } : {}),
      ...OPTIONS.read(context, input),
      ...(input.text("subset") === "none" ? { quick: true } : READ.read(context, input)),
    };
    if (snapshots.length > 0) options.snapshots = snapshots;
    const verify = async (repository: BackupRepository): Promise<Outcome> => verified(context, repository, options);
    return withRepository(context, input, verify, options.quick === true ? undefined : "verify");
  },
};

/** Verifies the data of one snapshot of the repository that the line names, else of the kept one. */
export async function verifySnapshot(
  context: Context,
  input: Input,
  { snapshot, filter }: { snapshot: string; filter: SnapshotFilter },
): Promise<Outcome> {
  return withRepository(context, input, async (repository) => {
    const options = context.callOptions();
    const { snapshots } = await repository.list({ ...options, ...filter, snapshots: [snapshot] });
    return verified(context, repository, { ...options, snapshots: snapshots.map(({ snapshot_id: id }) => id) });
  });
}

async function verified(
  context: Context,
  repository: BackupRepository,
  options: VerifyBackupOptions,
): Promise<Outcome> {
  const result = await repository.verify(options);
  const isShort = unverified(result) > 0 || result.restored.some((each) => unprovenBy(each).length > 0);
  return outcomeOf(result, () => render(context, result), isShort);
}

export const drill: CommandDefinition = {
  name: "backup drill",
  harmless: true,
  options: [...REPOSITORY_OPTIONS, ...DRILL.definitions],
  examples: [
    {
      line: "cairn backup drill -r /srv/backups",
      text: "restore the newest snapshot of each folder as a new machine would, prove it, and write a receipt",
    },
    { line: "cairn backup drill -r /srv/backups --path /home/ann", text: "only the snapshots of this folder" },
  ],
  async run(context, input) {
    const options: DrillOptions = { ...context.callOptions(), ...DRILL.read(context, input) };
    const work = async (repository: BackupRepository): Promise<Outcome> => {
      const result = await repository.drill(options);
      const text = (): string => renderDrill(context, result);
      return outcomeOf(
        result,
        text,
        result.restored.some((each) => each.receipt === null || unprovenBy(each).length > 0),
      );
    };
    return withRepository(context, input, work, "restore");
  },
};

/** Returns exit 6 with the damage that was found, else exit 10 if `isShort`. */
function outcomeOf(data: VerifyBackupResult | DrillResult, text: () => string, isShort: boolean): Outcome {
  const count = data.problems.filter(({ severity }) => severity === "damage").length;
  if (count === 0) return { data, text, exitStatus: isShort ? EXIT_PARTLY : 0 };
  const message = `${"checked" in data ? "verify" : "the drill"} found ${plural(count, "problem")} in ${data.location}`;
  return { data, text, error: new CairnError("damaged", message, { hint: hintFor(data) }) };
}

function hintFor({ problems }: Pick<VerifyBackupResult, "problems">): string {
  const kinds = problems.filter(({ severity }) => severity === "damage").map(({ kind }) => kind);
  if (kinds.every((kind) => kind === "probe_differs"))
    return "run the probe on a restored copy: it must not depend on the time, on the folder's place or on the version of a program. If it does not, restore another snapshot";
  const isUnreadable = (kind: string): boolean => kind === "snapshot_damaged";
  if (kinds.every(isUnreadable)) return UNREADABLE_HINT;
  const rest =
    "run `cairn backup repair index` and `repair packs` (first with --plan) to save intact data; a backup of a folder that still has the lost data stores it again, and `repair snapshots` makes snapshots without it";
  return kinds.some(isUnreadable) ? `${rest}; ${UNREADABLE_HINT}` : rest;
}

/** Returns the number of snapshots that this program cannot verify. */
function unverified({ problems }: VerifyBackupResult): number {
  return problems.filter(({ kind, severity }) => kind === "digest_unverified" && severity === "note").length;
}

const SHOWN_LOSSES = 5;

function render(context: Context, result: VerifyBackupResult): string {
  const { style } = context;
  const { checked, problems } = result;
  const damage = problems.filter(({ severity }) => severity === "damage");
  const lines = [
    ...problems.flatMap((problem) => renderProblem(context, problem)),
    ...result.restored.map((each) => renderRestored(each)),
  ];
  const read = result.read_data
    ? `${plural(checked.packs, "pack")} (${formatBytes(checked.bytes)}) read, ${plural(checked.digests, "state digest")} verified`
    : "packs were not read";
  const summary = `${plural(checked.snapshots, "snapshot")}, ${plural(checked.trees, "tree")}; ${read}; ${formatDuration(result.duration_ms)}`;
  const verdict = damage.length > 0 ? style.red("damaged") : style.green("no damage found");
  const unsaid = unverified(result) === 0 ? "" : style.yellow(" except unverified digests");
  lines.push(`${verdict}${unsaid}  ${summary}`);
  return lines.join("\n");
}

function renderDrill(context: Context, { restored, problems }: DrillResult): string {
  const lines = restored.flatMap((each) => [
    `${printable(each.paths.join(", "))} of ${printable(each.hostname)}: ${renderRestored(each)}`,
    each.receipt === null
      ? context.style.yellow(
          "  no receipt: the restored state was not proven, or the snapshot lacks files of its folder",
        )
      : `  receipt: ${printable(each.receipt)}`,
  ]);
  return [...problems.flatMap((problem) => renderProblem(context, problem)), ...lines].join("\n");
}

function renderRestored({
  snapshot_id: id,
  entries,
  bytes,
  state_digest: digest,
  databases,
  probes,
}: RestoredForCheck): string {
  const proven = digest === null ? "state digest not verified" : `state digest ${digest.slice(0, 12)}`;
  const equal = probes.filter((probe) => probe.equal === true).length;
  const asked =
    probes.length === 0 ? "" : `, ${equal} of ${plural(probes.length, "probe")} answered as when it was made`;
  return `snapshot ${id.slice(0, 8)} restored: ${plural(entries, "entry")}, ${formatBytes(bytes)}, ${proven}, ${plural(databases.length, "database")} checked${asked}`;
}

function renderProblem({ style }: Context, problem: BackupProblem): string[] {
  const { kind, object, detail, severity, losses } = problem;
  const what = `${kind.replaceAll("_", " ")}: ${object.slice(0, 12)}: ${printable(detail)}`;
  const lines = [severity === "damage" ? style.red(what) : style.dim(what)];
  const byPath = [...Map.groupBy(losses, ({ path }) => path)];
  for (const [path, of] of byPath.slice(0, SHOWN_LOSSES)) {
    const ids = of.map(({ snapshot_id: id }) => id.slice(0, 8));
    lines.push(`  lost: /${printable(path)} of ${ids.length === 1 ? "snapshot" : "snapshots"} ${listedNames(ids)}`);
  }
  if (byPath.length <= SHOWN_LOSSES) return lines;
  const snapshots = new Set(losses.map(({ snapshot_id: id }) => id)).size;
  lines.push(
    `  and ${plural(byPath.length - SHOWN_LOSSES, "path")} more; ${plural(snapshots, "snapshot")} affected in all`,
  );
  return lines;
}
