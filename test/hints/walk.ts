import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { ERROR_TABLE } from "../../src/errors.ts";
import { buildCommand, cairn, type Outcome, SCRATCH } from "../fixtures/command.ts";
import { type HintCase, SETUPS } from "./hint-case.ts";
import type { Printed } from "./sites.ts";

/** Runs the lines of a case of the table in a home directory of its own. */

/** The errors of all cases that have run. */
export const PRINTED: Printed[] = [];

let cases = 0;
let bin: string | undefined;

/** A folder with a `cairn` for the lines that a shell runs. */
function binFolder(): string {
  if (bin !== undefined) return bin;
  bin = path.join(SCRATCH, "bin");
  mkdirSync(bin, { recursive: true });
  const run = `#!/bin/sh\nexec '${process.execPath}' '${buildCommand()}' "$@"\n`;
  writeFileSync(path.join(bin, "cairn"), run, { mode: 0o755 });
  return bin;
}

/** The words of a line without pipes and the like; null if only a shell can read the line. */
function wordsOf(line: string, env: Readonly<Record<string, string>>): string[] | null {
  if (/[|&;<>()`*?!]|\$\(/.test(line.replaceAll(/'[^']*'/g, ""))) return null;
  return [...line.matchAll(/(?:'[^']*'|"[^"]*"|\\.|[^\s'"\\])+/g)].map(([word]) =>
    word
      .replace(/^~(?=\/|$)/, env["HOME"]!)
      .replaceAll(/'([^']*)'|"([^"]*)"|\\(.)|\$(\w+)|\$\{(\w+)\}/g, (_, single, double, escaped, name, braced) => {
        if (name !== undefined || braced !== undefined) return env[name ?? braced] ?? "";
        if (double !== undefined) return double.replaceAll(/\$(\w+)/g, (_all: string, in_: string) => env[in_] ?? "");
        return single ?? escaped;
      }),
  );
}

/** The texts of a result by their keys, one level deep; of a list those of the first member. `plan.id` is `plan_id`. */
export function textsOf(data: Readonly<Record<string, unknown>>): Record<string, string> {
  const texts: Record<string, string> = {};
  for (const [key, value] of Object.entries(data)) {
    if (typeof value === "string") texts[key] = value;
    const inner: unknown = Array.isArray(value) ? value[0] : value;
    if (typeof inner !== "object" || inner === null) continue;
    for (const [name, text] of Object.entries(inner))
      if (typeof text === "string") texts[name.includes("_") ? name : `${key}_${name}`] = text;
  }
  return texts;
}

export class Home {
  readonly path: string;
  readonly #env: Record<string, string>;
  #cwd: string;

  /** `more`: further variables; several home directories may have one place of the user's state. */
  constructor(more: Readonly<Record<string, string>> = {}) {
    this.path = path.join(SCRATCH, `home-${++cases}`);
    mkdirSync(this.path, { mode: 0o700 });
    this.#cwd = this.path;
    const PATH = `${binFolder()}:${process.env["PATH"]}`;
    const state = path.join(this.path, ".local/state");
    this.#env = {
      HOME: this.path,
      PATH,
      XDG_STATE_HOME: state,
      XDG_CACHE_HOME: path.join(this.path, ".cache"),
      ...more,
    };
  }

  /** The folder in which the next line runs. */
  get cwd(): string {
    return this.#cwd;
  }

  /** Variables of the next line, with the ids that earlier lines printed. */
  get variables(): Readonly<Record<string, string>> {
    return this.#env;
  }

  /** Brings about what a case begins with. */
  prepare({ given, before = "" }: HintCase): this {
    if (given !== undefined) this.runAll(SETUPS[given]);
    this.runAll(before);
    return this;
  }

  /** Runs one line. Ids in its result are variables of later lines: `$save_point_id`, `$plan_id`. */
  run(line: string): Outcome | null {
    const words = wordsOf(line, this.#env);
    if (words?.[0] === "cd") {
      this.#cwd = path.resolve(this.#cwd, words[1] ?? this.path);
      return null;
    }
    const at = words?.findIndex((word) => !/^\w+=/.test(word)) ?? 0;
    if (words === null || words[at] !== "cairn") {
      const done = spawnSync("sh", ["-ec", line], {
        cwd: this.#cwd,
        env: { ...process.env, ...this.#env },
        encoding: "utf8",
      });
      const { status, stdout, stderr } = done;
      return { status, stdout, stderr, killed: false, data: {}, error: null, warnings: [], failpoints: [] };
    }
    const given = words
      .slice(0, at)
      .map((word) => [word.slice(0, word.indexOf("=")), word.slice(word.indexOf("=") + 1)]);
    const outcome = cairn(words.slice(at + 1), {
      cwd: this.#cwd,
      env: { ...this.#env, ...(Object.fromEntries(given) as Record<string, string>) },
    });
    Object.assign(this.#env, textsOf(outcome.data));
    return outcome;
  }

  /** Runs lines, each of which must end well. `tells`: a line may also end with damage that it found. */
  runAll(lines: string, tells = false): void {
    for (const line of lines.split("\n").filter((each) => each.trim() !== "")) {
      const outcome = this.run(line.trim());
      if (outcome === null || outcome.status === 0 || (tells && outcome.status === 6)) continue;
      assert.fail(`${line}: exit ${outcome.status}\n${JSON.stringify(outcome.error)}\n${outcome.stderr}`);
    }
  }

  /** Runs the command of a hint. */
  follow(command: string, { tells, background }: HintCase): void {
    if (background !== true) return this.runAll(command, tells);
    const started = `CAIRN_SOCKET=$HOME/socket CAIRN_STATE_DIR=$HOME/daemon exec ${command}`;
    return this.runAll(`(${started}) > /dev/null 2>&1 & echo $! > ~/pid`);
  }

  /** Text with this home directory as `~`. */
  shorten(text: string): string {
    return text.replaceAll(this.path, "~");
  }
}

const literally = (text: string): string => text.replaceAll(/[\\^$.*+?()[\]{}|]/g, "\\$&");

/** Takes the command out of the printed hint, and gives its words in capitals their values. */
export function commandIn(hint: string, follow: string, where: Readonly<Record<string, string>> = {}): string {
  const pattern = literally(follow).replaceAll(/\bID\b/g, where["ID"] === undefined ? "[0-9a-f]{8,64}" : "ID");
  const found = new RegExp(`(?<![\\w-])${pattern}(?![\\w-])`).exec(hint);
  assert.ok(found !== null, `the hint names no \`${follow}\`: ${hint}`);
  let command = found[0];
  for (const [word, value] of Object.entries(where)) {
    assert.ok(command.includes(word), `${command} has no ${word}`);
    command = command.replace(word, () => value);
  }
  return command;
}

/** Homes of cases that change nothing first, by their set-up: opening repositories takes long. */
const homes = new Map<string, Home>();

function homeFor(one: HintCase): Home {
  const { given, before } = one;
  if (before !== undefined || (given !== "repository" && given !== "store")) return new Home().prepare(one);
  const home = homes.get(given) ?? new Home().prepare(one);
  homes.set(given, home);
  return home;
}

/** Walks one case: the failure, the hint's command as it is printed, and the good end. */
export function walk(one: HintCase): void {
  const home = homeFor(one);
  const failed = home.run(one.fails);
  assert.ok(failed !== null, "a command of cairn fails");
  const printed = `${one.fails}: exit ${failed.status}\n${JSON.stringify(failed.error, null, 2)}\n${failed.stderr}`;
  assert.equal(failed.status, ERROR_TABLE[one.code].exit, printed);
  // Commands that run another command print text even with --json.
  const { code, message, hint: given } = failed.error ?? { code: one.code, message: "", hint: failed.stderr };
  assert.equal(code, one.code, printed);
  PRINTED.push({ code, message, hint: given ?? "" });
  const hint = home.shorten(`${one.isInMessage === true ? message : ""} ${given ?? ""}`.trim());
  assert.ok(hint !== "", `no hint: ${printed}`);
  try {
    home.runAll(one.meanwhile ?? "");
    if (one.follow !== undefined) home.follow(commandIn(hint, one.follow, one.where), one);
    if (one.option !== undefined) commandIn(hint, one.option);
    home.runAll(one.back ?? "");
  } catch (error) {
    throw new Error(`${(error as Error).message}\nafter ${printed}`, { cause: error });
  } finally {
    home.runAll(one.ends ?? "");
    home.runAll("rm -rf ~/new*");
  }
}
