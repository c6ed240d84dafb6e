import { planTo } from "../../change/restore-plan.ts";
import { goingBack } from "../../change/restore.ts";
import type { RestorePlan, RestoreResult } from "../../contract/points.ts";
import { advice, CairnError, call } from "../../errors.ts";
import { plural } from "../../formats/sizes.ts";
import { normalizeTyped } from "../../fs/paths/safe-path.ts";
import {
  type Change,
  changesOf,
  type FoundTurn,
  isOpen,
  knownOf,
  ofSession,
  promptOf,
  stateBefore,
  takenBack,
  turnsIn,
} from "../../look/turns.ts";
import type { Workspace } from "../../workspace/open/workspace.ts";
import { readAgentEvents, type StoredEvent, withTexts } from "../../workspace/points/agent-record.ts";
import type { RestoreInput } from "../../workspace/restore/prepare.ts";
import { Absolute, type PointChange, Relative } from "../../workspace/rules/wanted.ts";
import { recoverIfIdle } from "../../workspace/save/look.ts";
import type { RewindOptions } from "./rewind.ts";

/** Going back before a turn of an agent. */

const LEAST_DIGITS = 4;

/**
 * Takes the changes of one session since a turn began back, as one operation. `name`: a turn's id, the number of turns to
 * go back (1 is the newest turn that no rewind has taken back), or undefined for 1. Throws `not_found` for an unknown turn or
 * a missing state, and with `strict` `refused` if an entry cannot go back.
 */
export async function rewind(
  workspace: Workspace,
  name: string | undefined,
  options: RewindOptions,
): Promise<RestoreResult> {
  const found = await findTurn(workspace, name, options);
  const { id, events } = found.turn;
  const { agent, session } = events[0]!;
  const inPart = options.paths === undefined ? {} : { in_part: true };
  const cause = { ...options.cause, kind: "rewind", turn: id, agent, session, ...inPart };
  const result = await goingBack(workspace, { ...options, cause }, "restore", () => backTo(workspace, found, options));
  return { ...result, turns: turnsSince(workspace, found) };
}

/** Lists a turn and the later ones of its session, newest first, each with the first line of its prompt. */
function turnsSince(workspace: Workspace, { all, turn, passed }: NamedTurn): NonNullable<RestoreResult["turns"]> {
  return all
    .filter(({ first, session }) => first >= turn.first && session === turn.session)
    .map(({ id, events }) => ({
      turn_id: id,
      prompt: promptOf(withTexts(workspace.found, events)),
      ...(passed.has(id) ? { unchanged: true } : {}),
    }))
    .toReversed();
}

/** Plans a rewind and changes nothing. */
export async function planRewind(
  workspace: Workspace,
  name: string | undefined,
  options: RewindOptions,
): Promise<RestorePlan> {
  await recoverIfIdle(workspace, options);
  return planTo(workspace, options, await backTo(workspace, await findTurn(workspace, name, options), options));
}

interface NamedTurn {
  log: readonly StoredEvent[];
  all: readonly FoundTurn[];
  turn: FoundTurn;
  /** ids of later turns that changed nothing */
  passed: ReadonlySet<string>;
}

async function findTurn(workspace: Workspace, name: string | undefined, options: RewindOptions): Promise<NamedTurn> {
  const log = readAgentEvents(workspace.found);
  const all = turnsIn(log);
  const found = { log, all, ...(await namedTurn(workspace, { log, all }, { ...options, name })) };
  const { id, session } = found.turn;
  const newest = all.findLast((each) => each.session === session)!;
  if (isOpen(newest))
    options.onWarning?.(
      `the turn ${newest.id} has not ended: if the agent still works, it may write again what the rewind of ${id} takes back`,
    );
  return found;
}

/** Returns the change of the folder that takes a turn back. Throws `not_found`. */
async function backTo(
  workspace: Workspace,
  { log, all: turns, turn }: NamedTurn,
  options: RewindOptions,
): Promise<Pick<RestoreInput, "target" | "kind" | "change">> {
  const { over = false, throughSqlite = false, paths: typed } = options;
  const { id, events } = turn;
  const all = await changesOf(workspace, knownOf(workspace, log), { ...turn, last: Infinity }, options);
  const { before, whyNot } = stateBefore(workspace, events, all);
  const start = before ?? all.find(({ why }) => why === null)?.from;
  if (start === undefined || (over && before === null))
    throw noStateBefore(workspace, id, { first: events[0]!, whyNot });
  const target = workspace.resolve(start);
  const paths = typed === undefined ? null : typed.map(normalizeTyped);
  const wanted = { target, kind: "rewind" } as const;
  if (over) return { ...wanted, change: new Absolute({ paths }) };
  const own = turns.filter(({ session }) => session === turn.session);
  const changes = all.toReversed().map((change) => pointChange(workspace, own, change));
  return { ...wanted, change: new Relative({ paths, changes, throughSqlite }) };
}

function pointChange(
  workspace: Workspace,
  turns: readonly FoundTurn[],
  { from, to, why, entries: own, isWhole, index }: Change,
): PointChange {
  const [found, left] = [workspace.byId(from)!, workspace.byId(to)];
  const turn = turns.findLast(({ first }) => first <= index)?.id;
  const uncertain = why === null ? {} : { why };
  if (isWhole) return { found, left, ...uncertain, turn };
  const entries = new Map(Array.from(own.keys(), (path) => [path, left]));
  return { found, left, entries, ...uncertain, turn };
}

/** Names the nearest earlier point, with its command. */
function noStateBefore(
  workspace: Workspace,
  turn: string,
  { first, whyNot }: { first: StoredEvent; whyNot: string | undefined },
): CairnError {
  const began = first.asked_at ?? first.at;
  const earlier = Iterator.from(workspace.points.saved().toReversed())
    .map((sequence) => workspace.points.readOrNull(sequence)?.descriptor)
    .find((descriptor) => descriptor !== undefined && descriptor.created_at < began);
  const said = `the turn ${turn} cannot be taken back: ${whyNot ?? "Cairn has no exact state before this turn"}`;
  if (earlier === undefined)
    return new CairnError("not_found", said, { hint: advice`choose a later turn; ${call("turns")} lists them` });
  const id = earlier.save_point_id.slice(0, 8);
  return new CairnError("not_found", `${said}. The last point before it is ${id}`, {
    hint: advice`to go there, and take back everybody's changes since: ${call(`restore ${id}`, "restore", { target: id })}`,
  });
}

async function namedTurn(
  workspace: Workspace,
  { log, all: known }: Pick<NamedTurn, "log" | "all">,
  { name, session, ...options }: RewindOptions & { name: string | undefined },
): Promise<Pick<NamedTurn, "turn" | "passed">> {
  const all = ofSession(known, session);
  const back = takenBack(workspace, known);
  const restOf = (turn: FoundTurn): FoundTurn => back.get(turn.id) ?? turn;
  const seeTurns = advice`${call("turns")} lists the turns`;
  const passed = new Set<string>();
  if (name === undefined || /^[1-9]\d{0,2}$/.test(name)) {
    const open = all.filter(({ id }) => back.get(id) !== null).map(restOf);
    // Several turns are those of one session: that of the newest one that changed something.
    let newest: FoundTurn | undefined;
    let left = Number(name ?? 1);
    const points = knownOf(workspace, log);
    for (const turn of open.toReversed()) {
      if (newest !== undefined && turn.session !== newest.session) continue;
      const isUnknown =
        turn.events.some(({ failed }) => failed !== null) || stateBefore(workspace, turn.events, []).before === null;
      if (!isUnknown && (await changesOf(workspace, points, turn, options)).length === 0) {
        passed.add(turn.id);
        continue;
      }
      newest ??= turn;
      if (--left === 0) return { turn, passed };
    }
    const why =
      all.length === 0
        ? "no hook of an agent has saved here yet"
        : `${plural(Number(name ?? 1) - left, "turn")} of the newest session can be taken back`;
    const nothing = passed.size === 0 ? "" : `; ${plural(passed.size, "turn")} changed nothing`;
    // A tool that was started again has another session.
    const older = newest && open.findLast(({ session }) => session !== newest.session);
    const further =
      older &&
      advice`${call(`rewind ${older.id}`, "rewind", older.id)} takes back the newest turn of another session; `;
    throw new CairnError("not_found", `there is no such turn: ${why}${nothing}`, {
      hint: advice`${further ?? []}${seeTurns}`,
    });
  }
  const found = name.length < LEAST_DIGITS ? [] : all.filter(({ id }) => id.startsWith(name.toLowerCase()));
  if (found.length === 1) return { turn: restOf(found[0]!), passed };
  const code = found.length === 0 ? "not_found" : "ambiguous";
  const begin = found.length === 0 ? "no turn begins" : "several turns begin";
  throw new CairnError(code, `${begin} with ${name.slice(0, 40)}`, { hint: seeTurns });
}
