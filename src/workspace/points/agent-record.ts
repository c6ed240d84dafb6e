import { createHmac } from "node:crypto";
import type { AgentEvent } from "../../contract/looking.ts";
import type { Cause } from "../../contract/words.ts";
import { type MasterKeys, openMessage, sealMessage } from "../../crypto/seal.ts";
import { toCairnError } from "../../errors.ts";
import { decodeMasterKeys } from "../../formats/restic/key-file.ts";
import { readRegular } from "../../fs/regular-file.ts";
import { isEvent, type Texts } from "./agent-events.ts";
import { appendToRecord, recordedLines, recordOfUnopened, type RecordPlace, rewriteRecord } from "./event-files.ts";

/** An event as the record has it: the texts are sealed, or plain in older lines. */
export interface StoredEvent extends Omit<AgentEvent, "prompt" | "command"> {
  /** `Texts` as JSON, sealed with the store's key, in base64 */
  sealed?: string;
  prompt?: string | null;
  command?: string | null;
}

const FACTS = ["called_at", "returned_at", "each", "duration_ms", "background", "denied", "tasks", "notified"] as const;
type Facts = Pick<StoredEvent, (typeof FACTS)[number]>;

const REMOVED = "a cleanup removed the text";

type State = Pick<AgentEvent, "before" | "save_point_id" | "made" | "failed">;

/** Adds a hook's event to the record of a workspace. Ignores other causes. Never throws. */
export async function noteAgentEvent(
  place: RecordPlace,
  { cause, texts = {} }: { cause?: Cause | undefined; texts?: Texts | undefined },
  state: State,
): Promise<void> {
  if (cause === undefined || !isEvent(cause)) return;
  const event = eventOf(cause, state);
  const short = { ...event, ...(hasText(texts) ? { no_text: "there was no room for the text" } : {}) };
  await appendToRecord(place, JSON.stringify({ ...event, ...sealTexts(place, texts) }), JSON.stringify(short));
}

function eventOf(cause: Cause, state: State): StoredEvent {
  const text = (key: string): string | null => (typeof cause[key] === "string" ? cause[key] : null);
  return {
    at: new Date().toISOString(),
    agent: text("agent") ?? "",
    event: text("event")!,
    session: text("session"),
    turn: text("turn"),
    tool: text("tool"),
    call: text("call"),
    ...state,
    asked_at: text("asked_at"),
    ...(Object.fromEntries(FACTS.flatMap((key) => (cause[key] === undefined ? [] : [[key, cause[key]]]))) as Facts),
  };
}

/** Notes a hook whose workspace `root` could not be opened, in the user's own record, without its texts. Never throws. */
export async function noteUnopened(root: string, cause: Cause, failed: string): Promise<void> {
  const place = recordOfUnopened();
  if (place === null) return;
  const event = eventOf(cause, { before: null, save_point_id: null, made: false, failed });
  const line = JSON.stringify({ ...event, root });
  await appendToRecord(place, line, line);
}

/** Returns this user's hooks whose workspace `root` could not be opened, oldest first. */
export function unopenedEvents(root: string | Buffer): StoredEvent[] {
  const place = recordOfUnopened();
  const events = place === null ? [] : readAgentEvents(place);
  return events.flatMap(({ root: of, ...event }: Unopened) => (of === root.toString() ? [event] : []));
}

type Unopened = StoredEvent & { root?: string };

const hasText = ({ prompt, command }: Texts): boolean => prompt !== undefined || command !== undefined;

/** Seals texts with the key of the workspace's store, or says why not. */
export function sealTexts(place: RecordPlace, texts: Texts): { sealed?: string; no_text?: string } {
  if (!hasText(texts)) return {};
  try {
    const sealed = sealMessage(keysOf(place), Buffer.from(JSON.stringify(texts)));
    return { sealed: Buffer.from(sealed).toString("base64") };
  } catch (error) {
    return { no_text: toCairnError(error).message };
  }
}

/** Opens sealed texts. Throws if the key cannot be read, or if it is another store's. */
export function openTexts(place: RecordPlace, sealed: string, keys = keysOf(place)): Texts {
  return JSON.parse(Buffer.from(openMessage(keys, Buffer.from(sealed, "base64"))).toString("utf8")) as Texts;
}

const keysOf = ({ control }: RecordPlace): MasterKeys => decodeMasterKeys(readRegular(control.storeKey));

/**
 * Returns the newest 4 to 8 MiB of a workspace's events, oldest first, and the failed hooks of this user that could not open the
 * workspace. Skips lines that are no JSON, for example after a power cut.
 */
export function readAgentEvents(place: RecordPlace): StoredEvent[] {
  const events = recordedLines(place).flatMap((line) => eventIn(line) ?? []);
  const unopened = place.folder === undefined ? [] : unopenedEvents(place.folder);
  return unopened.length === 0 ? events : [...events, ...unopened].toSorted((a, b) => (a.at < b.at ? -1 : 1));
}

type Older = Omit<Unopened, "call" | "before" | "failed">;

function eventIn(line: string): Unopened | null {
  try {
    // Events of earlier versions have none of these.
    return { call: null, before: null, failed: null, ...(JSON.parse(line) as Older) };
  } catch {
    return null;
  }
}

/** Returns events with their prompts and commands. */
export function withTexts(place: RecordPlace, events: readonly StoredEvent[]): AgentEvent[] {
  let keys: MasterKeys | undefined;
  return events.map(({ sealed, prompt = null, command = null, ...event }) => {
    if (sealed === undefined) return { ...event, prompt, command };
    try {
      keys ??= keysOf(place);
      return { ...event, prompt: null, command: null, ...openTexts(place, sealed, keys) };
    } catch (error) {
      return { ...event, prompt: null, command: null, no_text: toCairnError(error).message };
    }
  });
}

export interface TextsToRemove {
  /** True for a prompt or command, and for the reason of a failed save */
  readonly isTyped: (text: string) => boolean;
  /** True for the message of a point, for ids and names, and for other members of a cause */
  readonly isMessage: (text: string) => boolean;
}

/**
 * Returns a function that replaces a name if it has a text to remove. Equal names get equal new ones, in each record of the control
 * directory; only who has the store's key can compare a new name with a guessed former one.
 */
export function renamer(place: RecordPlace, { isMessage }: TextsToRemove): (name: string) => string {
  const digestOf = (name: string): string =>
    createHmac("sha256", keysOf(place).encrypt).update(`cairn.removed.v1\n${name}`).digest("hex");
  return (name) => (isMessage(name) ? `${digestOf(name).slice(0, 8)} (removed)` : name);
}

/**
 * Removes texts, also from ids and names, and sealed texts that cannot be opened, from the record of a workspace and from the user's
 * record of hooks that could not open the workspace. The events stay, because they tell whose changes are whose. Returns the events
 * with such text as recorded lines; `dryRun`: only finds them.
 */
export async function removeTexts(
  place: RecordPlace,
  texts: TextsToRemove,
  { dryRun }: { dryRun: boolean },
): Promise<string[]> {
  const found: string[] = [];
  const edit = (line: string): string | null => {
    const event = eventIn(line);
    // A line that a full disk cut off may have the text too.
    if (event === null) return null;
    const isHere = event.root === undefined || event.root === place.folder!.toString();
    const kept = isHere ? withoutFitting(place, event, texts) : event;
    if (kept === event) return line;
    found.push(line);
    return JSON.stringify(kept);
  };
  const unopened = place.folder === undefined ? null : recordOfUnopened();
  for (const record of unopened === null ? [place] : [place, unopened]) {
    const lines = recordedLines(record);
    if (dryRun) for (const line of lines) edit(line);
    else if (record === place || lines.length > 0) await rewriteRecord(record, edit);
  }
  return found;
}

function withoutFitting(place: RecordPlace, event: StoredEvent, texts: TextsToRemove): StoredEvent {
  const { sealed, prompt: _prompt, command: _command, ...rest } = event;
  const [shown] = withTexts(place, [event]) as [AgentEvent];
  const isUnknown = sealed !== undefined && shown.no_text !== undefined;
  const isFound = isUnknown || [shown.prompt, shown.command].some((text) => text !== null && texts.isTyped(text));
  const kept = isFound ? { ...rest, no_text: REMOVED } : event;
  const named = renamer(place, texts);
  const changed: Partial<StoredEvent> = {};
  for (const key of ["agent", "session", "turn", "tool", "call", "background", "notified"] as const) {
    const id = event[key] ?? "";
    if (named(id) !== id) changed[key] = named(id);
  }
  for (const key of ["denied", "tasks"] as const)
    if (event[key]?.some((id) => named(id) !== id) === true) changed[key] = event[key].map(named);
  if (rest.failed !== null && texts.isTyped(rest.failed)) changed.failed = REMOVED;
  return Object.keys(changed).length === 0 ? kept : { ...kept, ...changed };
}
