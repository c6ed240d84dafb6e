import { holesByPath } from "../../archive/write/exact-nodes.ts";
import { presentAndPrevious } from "../../archive/scan/present-source.ts";
import type { TreeSource } from "../../repository/trees/tree-source.ts";
import type { Workspace } from "../open/workspace.ts";
import { lackingIn, type LeftOutEntry, noteDamaged } from "../points/left-out.ts";
import type { Point } from "../points/point-files.ts";
import { type Difference, exactDifferences } from "../points/tree-diff.ts";
import type { Saved } from "../save/record-point.ts";
import { AbsoluteRule, type States } from "../rules/absolute.ts";
import { leftOutBefore } from "./apply.ts";
import { groupOf, linksOf, otherNames, putGroups, type RestoreLinks } from "../rules/links.ts";
import { MadeContents } from "../rules/made-contents.ts";
import { movedRefs, warnOfGitElsewhere, warnOfLostGit } from "../rules/moved-refs.ts";
import { TextMerge } from "../rules/merge-text.ts";
import { expectedToStay } from "./other-owners.ts";
import { ownPaths, type Plan, planRestore, type Protected } from "../rules/plan.ts";
import type { RestoreInput } from "./prepare.ts";
import { unknownIn, unknownOfAll } from "./protected.ts";
import { relativeRule, type State } from "../rules/relative.ts";
import type { Absolute } from "../rules/wanted.ts";

/** From a rule to a plan: the states are read, the rule lists the changes, the plan is compared with the target. */

/** The plan of a restore, before the folder is changed. */
export interface PlannedRestore {
  plan: Plan;
  /** refs of git that the plan moves */
  refs: ReturnType<typeof movedRefs>;
  links: RestoreLinks;
  target: TreeSource;
  manifest: Awaited<ReturnType<Workspace["manifest"]>>;
  /** damaged directories of the target, among the selected paths */
  damaged: LeftOutEntry[];
  /** exact holes of the target's sparse files */
  holes: ReturnType<typeof holesByPath>;
  /** scan of the folder */
  scan: Protected["scan"];
  /** the entries of a relative change that does not lead to the target itself, since others' changes stay; null: all */
  own: ReturnType<typeof ownPaths>;
  /** texts that the plan merged, and hashes of databases that were written through SQLite */
  merged: TextMerge["merged"];
  /** contents of the plan that no point has */
  made: MadeContents;
  /** the point that holds the present folder */
  undo: Point;
}

/** The folder: as it was just saved, or only looked at. */
interface Present extends State {
  scan: Protected["scan"];
}

/** The part of a restore's input that its plan depends on. */
type Wanted = Pick<RestoreInput, "target" | "change" | "signal">;

type Changes = Pick<PlannedRestore, "plan" | "refs" | "damaged" | "merged" | "made" | "manifest" | "target"> & {
  /** differences of hard-linked files outside the plan */
  unasked: Difference[];
  /** by latin1 path: the points of which other entries than the target's come back */
  newer: Parameters<typeof ownPaths>[2];
};

/** Plans the changes of a restore. Changes nothing. */
export async function planChanges(workspace: Workspace, input: Wanted, present: Present): Promise<Changes> {
  const { change, signal } = input;
  const { source, scan, fields: lossless } = present;
  const target = await workspace.source(input.target);
  const manifest = await workspace.manifest(input.target);
  const facts = { scan, ...unknownIn(workspace, manifest) };
  let unasked: Difference[] = [];
  const damaged: LeftOutEntry[] = [];
  const onDamaged = noteDamaged(damaged, change.paths);
  const made = new MadeContents();
  const texts = change.isRelative && change.options.merges ? new TextMerge(present, target, made) : null;
  let plan: Plan;
  let newer: Changes["newer"] = new Map();
  if (!change.isRelative) {
    // If the present was scanned against the target, the two are compared without reading a tree.
    const pair = presentAndPrevious(scan);
    const isPair = pair !== null && Buffer.compare(pair.previous.root, target.root) === 0;
    const states = isPair ? { present: pair.present, target: pair.previous } : { present: source, target };
    const fields = { before: lossless, after: manifest?.lossless ?? [] };
    const more = change.throwsDamaged ? {} : { onDamaged };
    ({ plan, unasked } = await planAbsolute({ change, signal }, { ...states, fields, ...more }, facts));
  } else {
    const rule = await relativeRule(workspace, change, { target: input.target, present, onDamaged, texts, made });
    plan = await planRestore(rule, { ...facts, ...(await unknownOfAll(workspace, change)) }, signal);
    if (putGroups(plan).size > 0) unasked = otherNames(plan, rule.besides());
    newer = new Map(
      rule.newer
        .entries()
        .map(([path, index]) => [path, change.options.changes[index]!.found.descriptor.save_point_id]),
    );
  }
  const contents = made.with(target);
  const refs = movedRefs(plan, present, contents);
  return { plan, refs, damaged, merged: texts?.merged ?? [], made, manifest, target: contents, unasked, newer };
}

/** Plans to make the folder, or the chosen paths of it, equal to a state. `unasked`: as for all changes. */
export async function planAbsolute(
  { change, signal }: { change: Absolute } & Pick<Wanted, "signal">,
  states: Omit<States, "onUnasked">,
  facts: Protected,
): Promise<Pick<Changes, "plan" | "unasked">> {
  const unasked: Difference[] = [];
  const onUnasked = (each: Difference): void => void (groupOf(each.after) !== 0n && unasked.push(each));
  const rule = new AbsoluteRule(change, { ...states, onUnasked });
  const plan = await planRestore(rule, facts, signal);
  rule.requireSeen(facts);
  return { plan, unasked };
}

/** Plans a restore over the present that was just saved. */
export async function planOf(workspace: Workspace, input: RestoreInput, saved: Saved): Promise<PlannedRestore> {
  input.onProgress?.({ phase: "planning", done: 0 });
  const source = await workspace.source(saved.point);
  const fields = (await workspace.manifest(saved.point))?.lossless ?? [];
  const scan = saved.scan!;
  const { unasked, newer, ...changes } = await planChanges(workspace, input, { source, fields, scan });
  const { plan, target, manifest } = changes;
  const isChange = Iterator.from(plan).some(({ action }) => action !== "keep");
  if (input.kind !== "restore" && isChange) warnOfGitElsewhere(workspace.root, plan, input);
  warnOfLostGit(workspace.root, plan, target, input);
  const toTarget = { before: fields, after: manifest?.lossless ?? [] };
  return {
    ...changes,
    links: linksOf({ plan, unasked, target, source, scan }),
    own: !input.change.isRelative
      ? null
      : ownPaths(
          plan,
          exactDifferences(source, target, toTarget, () => undefined),
          newer,
        ),
    holes: holesByPath(manifest),
    scan,
    undo: saved.point,
  };
}

/** Lists the entries that are known not to become as the target has them, before the folder is changed. */
export function leftOutOfPlan(
  { plan, scan, manifest, damaged }: Pick<PlannedRestore, "plan" | "scan" | "manifest" | "damaged">,
  { paths }: RestoreInput["change"],
  {
    stays = [],
    notSet = [],
  }: Partial<Pick<Parameters<typeof leftOutBefore>[2], "notSet"> & { stays: readonly LeftOutEntry[] }> = {},
): LeftOutEntry[] {
  return leftOutBefore(plan, scan, { paths, lacking: [...lackingIn(manifest, paths), ...damaged, ...stays], notSet });
}

/** Lists the entries that a planned restore will leave out, as far as it is known before entries are staged. */
export function expectedLeftOut(
  plan: Plan,
  more: Pick<PlannedRestore, "scan" | "manifest" | "damaged"> & Pick<RestoreInput, "change" | "takeOwnership">,
): LeftOutEntry[] {
  const { change, takeOwnership } = more;
  return leftOutOfPlan({ ...more, plan }, change, { stays: takeOwnership === true ? [] : expectedToStay(plan) });
}
