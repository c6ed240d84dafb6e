import { randomInt } from "node:crypto";
import { CairnError } from "../../../errors.ts";
import type { BackupProblem, BackupRepository, RestoredForCheck, VerifyBackupResult } from "../../../contract/index.ts";
import type { CommandDefinition, Outcome } from "../../command.ts";
import type { Context } from "../../context.ts";
import { EXIT_PARTLY } from "../../envelope.ts";
import { usage } from "../../input.ts";
import { formatBytes, formatDuration, listedNames, plural, printable } from "../../render/format.ts";
import { REPOSITORY_OPTIONS, UNREADABLE_HINT, withRepository } from "./repository.ts";
import { VerifyBackupOptions } from "../../../contract/repositories.ts";
import { pick } from "../../../contract/schema.ts";
import { VerbOptions } from "../../options.ts";

const OPTIONS = new VerbOptions(pick(VerifyBackupOptions, "quick", "restoreCheck", "scratch", "jobs"), {
  jobs: "--jobs <n>",
  scratch: "--scratch <dir>",
});

export const command: CommandDefinition = {
  name: "backup verify",
  arguments: [{ name: "[snapshots...]", text: "only what these need; default: everything" }],
  options: [
    ...REPOSITORY_OPTIONS,
    {
      flags: "--subset <part>",
      text: "of the packs only part n/m, all m of which are everything; or 10%: any tenth",
    },
    ...OPTIONS.definitions,
    { flags: "--all", text: "everything, also what no snapshot needs; that is the default" },
  ],
  examples: [
    { line: "cairn backup verify -r /srv/backups", text: "read every byte; exit 6 when something is damaged" },
    { line: "cairn backup verify -r /srv/backups --subset 3/30", text: "a thirtieth, e.g. by the day of the month" },
    {
      line: "cairn backup verify -r /srv/backups --quick --restore-check",
      text: "that the newest snapshot can be restored",
    },
    { line: "cairn backup verify -r /srv/backups latest", text: "all that the newest snapshot needs" },
  ],
  async run(context, input) {
    const snapshots = input.rest(0);
    const subset = readSubset(input.text("subset"));
    const options: VerifyBackupOptions = { ...context.callOptions(), ...OPTIONS.read(context, input) };
    if (snapshots.length > 0) options.snapshots = snapshots;
    if (snapshots.length > 0 && input.flag("all")) throw usage("backup verify wants snapshots or --all, not both");
    if (subset !== undefined && options.quick === true)
      throw usage("--quick reads no packs and --subset some: not both");
    if (subset !== undefined) options.subset = subset;
    if (options.scratch !== undefined && options.restoreCheck !== true)
      throw usage("--scratch works with --restore-check only");
    const verify = async (repository: BackupRepository): Promise<Outcome> => {
      const result = await repository.verify(options);
      const outcome: Outcome = { data: result, text: () => render(context, result) };
      const count = result.problems.filter(({ severity }) => severity === "damage").length;
      if (count > 0)
        outcome.error = new CairnError("damaged", `verify found ${plural(count, "problem")} in ${result.location}`, {
          hint: hintFor(result),
        });
      else if (unverified(result) > 0) outcome.exitStatus = EXIT_PARTLY;
      return outcome;
    };
    return withRepository(context, input, verify, options.quick === true ? undefined : "verify");
  },
};

function hintFor({ problems }: VerifyBackupResult): string {
  const kinds = problems.filter(({ severity }) => severity === "damage").map(({ kind }) => kind);
  const isUnreadable = (kind: string): boolean => kind === "snapshot_damaged";
  if (kinds.every(isUnreadable)) return UNREADABLE_HINT;
  const rest =
    "`cairn backup repair index` and `repair packs` (with --plan first) save what is sound; a backup of a folder that has the rest stores it again, `repair snapshots` goes on without it";
  return kinds.some(isUnreadable) ? `${rest}; ${UNREADABLE_HINT}` : rest;
}

/** Snapshots of which this program cannot say anything. */
function unverified({ problems }: VerifyBackupResult): number {
  return problems.filter(({ kind, severity }) => kind === "digest_unverified" && severity === "note").length;
}

/** Reads a part of the packs; a percentage becomes any part of so many as come nearest to it. */
export function readSubset(text: string | undefined): { part: number; of: number } | undefined {
  if (text === undefined) return undefined;
  const percent = Number(/^(\d{1,3}(?:\.\d{1,6})?)%$/.exec(text)?.[1]);
  if (percent > 0 && percent <= 100) {
    const parts = Math.round(100 / percent);
    return { part: randomInt(1, parts + 1), of: parts };
  }
  const match = /^(\d{1,9})\/(\d{1,9})$/.exec(text);
  const [part, of] = [Number(match?.[1]), Number(match?.[2])];
  if (match === null || part < 1 || part > of)
    throw usage(`--subset wants n/m with n from 1 to m, or a percentage; found ${JSON.stringify(text)}`);
  return { part, of };
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
    ? `${plural(checked.packs, "pack")} (${formatBytes(checked.bytes)}) read, ${plural(checked.digests, "state digest")} proven`
    : "packs were not read";
  const summary = `${plural(checked.snapshots, "snapshot")}, ${plural(checked.trees, "tree")}; ${read}; ${formatDuration(result.duration_ms)}`;
  const verdict = damage.length > 0 ? style.red("damaged") : style.green("sound");
  const unsaid = unverified(result) === 0 ? "" : style.yellow(" but for what was not verified");
  lines.push(`${verdict}${unsaid}  ${summary}`);
  return lines.join("\n");
}

function renderRestored({
  snapshot_id: id,
  entries,
  bytes,
  state_digest: digest,
  databases,
}: RestoredForCheck): string {
  const proven = digest === null ? "not proven" : `state digest ${digest.slice(0, 12)}`;
  return `snapshot ${id.slice(0, 8)} restored: ${plural(entries, "entry")}, ${formatBytes(bytes)}, ${proven}, ${plural(databases.length, "database")} checked`;
}

function renderProblem({ style }: Context, problem: BackupProblem): string[] {
  const { kind, object, detail, severity, losses } = problem;
  const what = `${kind.replaceAll("_", " ")}: ${object.slice(0, 12)}: ${printable(detail)}`;
  const lines = [severity === "damage" ? style.red(what) : style.dim(what)];
  const byPath = [...Map.groupBy(losses, ({ path }) => path)];
  for (const [path, of] of byPath.slice(0, SHOWN_LOSSES)) {
    const ids = of.map(({ snapshot_id: id }) => id.slice(0, 8));
    lines.push(`  costs /${printable(path)} of ${ids.length === 1 ? "snapshot" : "snapshots"} ${listedNames(ids)}`);
  }
  if (byPath.length <= SHOWN_LOSSES) return lines;
  const snapshots = new Set(losses.map(({ snapshot_id: id }) => id)).size;
  lines.push(`  and ${plural(byPath.length - SHOWN_LOSSES, "path")} more; in all of ${plural(snapshots, "snapshot")}`);
  return lines;
}
