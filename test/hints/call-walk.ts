import assert from "node:assert/strict";
import { type CairnError, toCairnError } from "../../src/errors.ts";
import { CLIENT_VERBS, LIBRARY_VERBS } from "../../src/verbs/index.ts";
import type { HintCase } from "./hint-case.ts";
import type { SurfaceCase } from "./surfaces.ts";
import { commandIn, type Home, textsOf } from "./walk.ts";

/** Walks cases of the command's table by calls: of a daemon's client, or of the tools of an agent. */

export type Method = (...given: unknown[]) => unknown;

/** A surface: what a name in a call of a case does there. */
export interface Surface {
  /** Names of all its calls. */
  names: readonly string[];
  call(name: string, given: unknown[]): Promise<unknown>;
}

export const PROGRAM_NAMES = [...Object.keys(CLIENT_VERBS), ...Object.keys(LIBRARY_VERBS)];

/** Runs calls, separated by `; `. Ids of their results are variables of later ones. */
async function runCalls(calls: string, surface: Surface, variables: Record<string, unknown>): Promise<void> {
  for (const line of calls.split("; ")) {
    const scope: Record<string, unknown> = { ...variables };
    for (const name of surface.names)
      scope[name] = async (...given: unknown[]) => {
        const result = (await surface.call(name, given)) as Record<string, unknown> | null;
        const named = /^(?:plan|preview)/.test(name) ? { plan: result } : result;
        Object.assign(variables, textsOf((named ?? {}) as Record<string, unknown>));
      };
    // oxlint-disable-next-line typescript/no-implied-eval
    await (new Function("scope", `with (scope) { return ${line}; }`)(scope) as Promise<unknown>);
  }
}

/** Walks one case: the failing call, the call of its hint as it is written there, and the good end. */
export async function walkCalls(of: HintCase, one: SurfaceCase, home: Home, surface: Surface): Promise<void> {
  const variables: Record<string, unknown> = { ...home.variables, home: home.path };
  const error = await runCalls(one.fails, surface, variables).then(
    () => assert.fail(`${one.fails} did not fail`),
    (failed: unknown): CairnError => toCairnError(failed),
  );
  const { code, message, hint: given = "" } = error;
  const told = `${one.fails}: ${code}: ${message}\n${given}`;
  assert.equal(code, of.code, told);
  const hint = home.shorten(`${one.isInMessage === true ? message : ""} ${given}`.trim());
  assert.ok(hint !== "", `no hint: ${told}`);
  try {
    home.runAll(of.meanwhile ?? "");
    if (one.person === undefined)
      assert.doesNotMatch(given, /`cairn |(?<![\w-])--[a-z]/, "a hint for programs names calls");
    else home.runAll(commandIn(hint, one.person));
    if (one.follow !== undefined) {
      const call = commandIn(hint, one.follow, one.where).replaceAll('"~/', `"${home.path}/`);
      await runCalls(call, surface, variables);
    }
    if (one.option !== undefined) commandIn(hint, one.option);
    if (one.back !== undefined) await runCalls(one.back, surface, variables);
  } catch (failed) {
    throw new Error(`${(failed as Error).message}\nafter ${told}`, { cause: failed });
  } finally {
    home.runAll(of.ends ?? "");
  }
}
