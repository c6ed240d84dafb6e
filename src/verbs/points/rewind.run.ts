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
  knownOf,
  ofSession,
  promptOf,
  stateBefore,
  takenBack,
  timeline,
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
  const found = findTurn(workspace, name, options);
  const { id, events } = found.turn;
  const { agent, session } = events[0]!;
  const inPart = options.paths === undefined ? {} : { in_part: true };
  const cause = { ...options.cause, kind: "rewind", turn: id, agent, session, ...inPart };
  const result = await goingBack(workspace, { ...options, cause }, "restore", () => backTo(workspace, found, options));
  return { ...result, turns: turnsSince(workspace, found) };
}

/** Lists a turn and the later ones of its session, newest first, each with the first line of its prompt. */
function turnsSince(workspace: Workspace, { all, turn }: NamedTurn): NonNullable<RestoreResult["turns"]> {
  return all
    .filter(({ first, session }) => first >= turn.first && session === turn.session)
    .map(({ id, events }) => ({ turn_id: id, prompt: promptOf(withTexts(workspace.found, events)) }))
    .toReversed();
}

/** Plans a rewind and changes nothing. */
export async function planRewind(
  workspace: Workspace,
  name: string | undefined,
  options: RewindOptions,
): Promise<RestorePlan> {
  await recoverIfIdle(workspace, options);
  return planTo(workspace, options, backTo(workspace, findTurn(workspace, name, options), options));
}

interface NamedTurn {
  log: readonly StoredEvent[];
  all: readonly FoundTurn[];
  turn: FoundTurn;
}

function findTurn(workspace: Workspace, name: string | undefined, { session }: RewindOptions): NamedTurn {
  const log = readAgentEvents(workspace.found);
  const all = turnsIn(log);
  return { log, all, turn: namedTurn(workspace, all, { name, session }) };
}

/** Returns the change of the folder that takes a turn back. Throws `not_found`. */
function backTo(
  workspace: Workspace,
  { log, turn: { id, session, first, events } }: NamedTurn,
  { over = false, throughSqlite = false, paths: typed }: RewindOptions,
): Pick<RestoreInput, "target" | "kind" | "change"> {
  const { before, whyNot } = stateBefore(workspace, events);
  const all = changesOf(timeline(workspace, knownOf(workspace, log), { first }), session);
  const start = before ?? all.find(({ isUncertain }) => !isUncertain)?.from;
  if (start === undefined || (over && before === null))
    throw noStateBefore(workspace, id, { first: events[0]!, whyNot });
  const target = workspace.resolve(start);
  const paths = typed === undefined ? null : typed.map(normalizeTyped);
  const wanted = { target, kind: "rewind" } as const;
  if (over) return { ...wanted, change: new Absolute({ paths }) };
  const changes = all.toReversed().map((change) => pointChange(workspace, change));
  return { ...wanted, change: new Relative({ paths, changes, throughSqlite }) };
}

/** Throws `not_found` if a cleanup removed one of the points. */
function pointChange(workspace: Workspace, { from, to, isUncertain }: Change): PointChange {
  const [found, left] = [workspace.byId(from), workspace.byId(to)];
  if (found === null || (left === null && to !== null))
    throw new CairnError("not_found", "a cleanup removed a state since the turn, so only a part could go back", {
      hint: advice`go back to a later turn; ${call("turns")} lists them`,
    });
  return { found, left, isUncertain };
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

function namedTurn(
  workspace: Workspace,
  known: FoundTurn[],
  { name, session }: { name: string | undefined; session: string | undefined },
): FoundTurn {
  const all = ofSession(known, session);
  const seeTurns = advice`${call("turns")} lists the turns`;
  if (name === undefined || /^[1-9]\d{0,2}$/.test(name)) {
    const back = takenBack(workspace, known);
    const open = all.filter(({ id }) => !back.has(id));
    // Several turns are those of one session: that of the newest one.
    const newest = open.at(-1);
    const own = open.filter((each) => each.session === newest!.session);
    const turn = own.at(-Number(name ?? 1));
    if (turn !== undefined) return turn;
    const why =
      all.length === 0
        ? "no hook of an agent has saved here yet"
        : `${plural(own.length, "turn")} of the newest session can be taken back`;
    throw new CairnError("not_found", `there is no such turn: ${why}`, { hint: seeTurns });
  }
  const found = name.length < LEAST_DIGITS ? [] : all.filter(({ id }) => id.startsWith(name.toLowerCase()));
  if (found.length === 1) return found[0]!;
  const code = found.length === 0 ? "not_found" : "ambiguous";
  const begin = found.length === 0 ? "no turn begins" : "several turns begin";
  throw new CairnError(code, `${begin} with ${name.slice(0, 40)}`, { hint: seeTurns });
}
