import { execFile } from "node:child_process";
import type { PageServerOptions } from "../api/page/server.ts";
import type { AgentsIn, InstalledAgent } from "../contract/index.ts";
import { errorOf } from "../contract/error-record.ts";
import { thisProgram } from "../daemon/unit.ts";
import { CairnError } from "../errors.ts";
import type { Envelope } from "./envelope.ts";

/** The commands `cairn agent status` and `cairn agent install` for the page, each in a process of its own. */

const MOST_BYTES = 64 << 20;
const MOST_MS = 300_000;

export const pageAgents: PageServerOptions["agents"] = {
  async status(folder) {
    const words = folder === null ? ["agent", "status", "--all"] : ["-C", folder, "agent", "status"];
    const { folders } = (await dataOf(words)) as { folders: AgentsIn[] };
    return folders.map(({ path, agents }) => ({
      path,
      agents: agents.map(({ tool, covered, why, last_prompt, problems }) => ({
        tool,
        covered,
        why,
        last_prompt,
        problems,
      })),
    }));
  },
  async install({ folder, tool, isPlan }) {
    const data = await dataOf(["-C", folder, "agent", "install", tool, ...(isPlan ? ["--plan"] : [])]);
    const { files, checked, problem } = data as InstalledAgent;
    return { files: files.map(({ path, changed }) => ({ path, changed })), checked, problem };
  },
};

/** Runs a command with `--json`, and returns its data. Throws its error. */
async function dataOf(words: readonly string[]): Promise<unknown> {
  const [program, ...first] = thisProgram();
  const options = { maxBuffer: MOST_BYTES, timeout: MOST_MS, cwd: "/" };
  const { promise, resolve } = Promise.withResolvers<string>();
  const child = execFile(program!, [...first, ...words, "--json"], options, (_error, stdout) => resolve(stdout));
  child.stdin?.end();
  const envelope = parsed(await promise);
  if (envelope === null) throw new CairnError("internal", `cairn ${words.join(" ")} ended without an answer`);
  if (envelope.error !== null) throw errorOf(envelope.error);
  return envelope.data;
}

function parsed(text: string): Envelope | null {
  try {
    return JSON.parse(text) as Envelope;
  } catch {
    return null;
  }
}
