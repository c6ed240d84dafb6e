import { execFile } from "node:child_process";
import { isDeepStrictEqual } from "node:util";
import type { PageServerOptions } from "../api/page/server.ts";
import type { AgentsIn, InstalledAgent } from "../contract/index.ts";
import { errorOf } from "../contract/error-record.ts";
import { thisProgram } from "../daemon/unit.ts";
import { CairnError } from "../errors.ts";
import type { Envelope } from "./envelope.ts";

/** The commands of `cairn agent` for the page, each in a process of its own. */

const MOST_BYTES = 64 << 20;
const MOST_MS = 300_000;
/**
 * Milliseconds for which an answer about all folders is kept. The page's overview asks again after each save, although
 * a save changes no agent, and an answer reads the records of all agents.
 */
const FRESH_MS = 60_000;

type Answer = Pick<Envelope, "data" | "warnings">;

/** `ask`: runs a command with `--json`. `now`: milliseconds. */
export function pageAgents(ask = answerOf, now = (): number => performance.now()): PageServerOptions["agents"] {
  let all: { answer: Promise<AgentsIn[]>; until: number } | null = null;
  const aboutAll = (): Promise<AgentsIn[]> => {
    if (all !== null && now() < all.until) return all.answer;
    const asked = { answer: statusOf(ask, ["agent", "status", "--all"]), until: Infinity };
    all = asked;
    asked.answer.then(
      () => (asked.until = now() + FRESH_MS),
      () => (asked.until = 0),
    );
    return asked.answer;
  };
  const forget = (): void => void (all = null);
  return {
    async status(folder) {
      if (folder === null) return aboutAll();
      const found = await statusOf(ask, ["-C", folder, "agent", "status"]);
      const kept = await all?.answer.catch(() => null);
      // A command in a terminal changed the folder's agents meanwhile.
      if (!found.every((each) => kept?.some((before) => isDeepStrictEqual(before, each)))) forget();
      return found;
    },
    forget,
    async change(verb, { folder, tool, plan }) {
      try {
        const how = plan === null ? ["--plan"] : ["--apply", plan];
        const { data, warnings } = await ask(["-C", folder, "agent", verb, tool, ...how]);
        const {
          plan_id,
          files,
          checked = null,
          problem = null,
        } = data as Partial<InstalledAgent> & Pick<InstalledAgent, "files" | "plan_id">;
        return {
          plan_id,
          files: files.map(({ path, changed, how, entries }) => ({
            path,
            changed,
            ...(how && { how }),
            ...(entries && { entries }),
          })),
          checked,
          problem: problem ?? (verb === "remove" && warnings.length > 0 ? warnings.join("\n") : null),
        };
      } finally {
        if (plan !== null) forget();
      }
    },
  };
}

async function statusOf(ask: (words: readonly string[]) => Promise<Answer>, words: string[]): Promise<AgentsIn[]> {
  type Told = AgentsIn["agents"][number] & { last_hook?: { at: string } | null };
  const { folders } = (await ask(words)).data as { folders: { path: string; agents: Told[] }[] };
  return folders.map(({ path, agents }) => ({
    path,
    agents: agents.map(({ tool, covered, installed, why, last_prompt, last_hook: hook, problems }) => ({
      tool,
      covered,
      ...(installed && { installed }),
      why,
      last_prompt,
      ...(hook ? { last_hook_at: hook.at } : {}),
      problems,
    })),
  }));
}

/** Runs a command with `--json`. Throws its error. */
async function answerOf(words: readonly string[]): Promise<Answer> {
  const [program, ...first] = thisProgram();
  const options = { maxBuffer: MOST_BYTES, timeout: MOST_MS, cwd: "/" };
  const { promise, resolve } = Promise.withResolvers<string>();
  const child = execFile(program!, [...first, ...words, "--json"], options, (_error, stdout) => resolve(stdout));
  child.stdin?.end();
  const envelope = parsed(await promise);
  if (envelope === null) throw new CairnError("internal", `cairn ${words.join(" ")} ended without an answer`);
  if (envelope.error !== null) throw errorOf(envelope.error);
  return envelope;
}

function parsed(text: string): Envelope | null {
  try {
    return JSON.parse(text) as Envelope;
  } catch {
    return null;
  }
}
