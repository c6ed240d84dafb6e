import assert from "node:assert/strict";
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { buildCommand, ROOT, SCRATCH } from "../fixtures/command.ts";

/**
 * The tutorials, block by block, as a reader types them.
 *
 * - A `sh` block runs. `<!-- run:` … `-->` runs too and is not shown: it makes the test wait, or does what the block after it
 *   (`console`: something the test cannot do; `prompt`: words for an agent) asks the reader to do.
 * - A `text` block is the output of the block before it. A line `…` stands for any lines, a word that ends with `…` for any end.
 * - Any other block is a file; its first line is a comment with the file's name.
 */

const FOLDER = path.join(ROOT, "docs/tutorials");
const READER = "/home/ann";

interface Block {
  /** for example `docs/tutorials/person.md:12` */
  at: string;
  kind: string;
  text: string;
}

function blocksOf(page: string): Block[] {
  const markdown = fs.readFileSync(path.join(FOLDER, page), "utf8");
  return [...markdown.matchAll(/^<!-- (run):\n([^]*?)^-->$|^```(.*)\n([^]*?)^```$/gm)].map((found) => ({
    at: `docs/tutorials/${page}:${markdown.slice(0, found.index).split("\n").length}`,
    kind: found[1] ?? found[3]!,
    text: found[2] ?? found[4]!,
  }));
}

/** A block takes seconds, also on a busy machine. One that waits for something that never comes is named. */
const BLOCK_MS = 120_000;

/** One bash for a whole tutorial. It ends at the first command that fails. */
class Shell {
  readonly home: string;
  readonly #child: ChildProcess;
  readonly #ended: Promise<unknown>;
  #output = "";
  #heard = (): void => undefined;

  constructor(name: string) {
    this.home = path.join(SCRATCH, name, "home");
    const bin = path.join(SCRATCH, name, "bin");
    for (const folder of [this.home, bin]) fs.mkdirSync(folder, { recursive: true, mode: 0o700 });
    fs.writeFileSync(path.join(bin, "cairn"), `#!/bin/sh\nexec '${process.execPath}' '${buildCommand()}' "$@"\n`, {
      mode: 0o755,
    });
    const { XDG_STATE_HOME: _, ...inherited } = process.env;
    const places = { HOME: this.home, XDG_CACHE_HOME: path.join(this.home, ".cache") };
    const PATH = [bin, path.dirname(process.execPath), process.env["PATH"]].join(":");
    const env = { ...inherited, ...places, PATH, LC_ALL: "C.UTF-8", TUTORIAL_PACKAGE: ROOT };
    // A group of its own, with what it starts in the background.
    this.#child = spawn("bash", ["--noprofile", "--norc"], { cwd: this.home, env, detached: true });
    this.#ended = once(this.#child, "close");
    for (const stream of [this.#child.stdout!, this.#child.stderr!])
      stream.setEncoding("utf8").on("data", (text: string) => {
        this.#output += text;
        this.#heard();
      });
    this.#child.stdin!.on("error", () => undefined);
    this.#child.stdin!.write("set -e; exec 2>&1\n");
  }

  /** Returns the output of commands. Fails if one of them fails. */
  async run(commands: string, at: string): Promise<string> {
    const file = path.join(path.dirname(this.home), "block");
    fs.writeFileSync(file, commands);
    this.#output = "";
    this.#child.stdin!.write(`. '${file}' < /dev/null; printf '\\n%s' =done=\n`);
    const done = new Promise<void>((resolve) => {
      this.#heard = () => {
        if (this.#output.endsWith("\n=done=")) resolve();
      };
    });
    const fails = (why: string): never => assert.fail(`${at}: ${why}\n${commands}\n${this.#output}`);
    const failed = this.#ended.then(() => fails("a command failed"));
    const timer = new AbortController();
    const late = delay(BLOCK_MS, undefined, { signal: timer.signal }).then(() => fails("the commands do not end"));
    try {
      await Promise.race([done, failed, late]);
    } finally {
      timer.abort();
    }
    return this.#output.slice(0, -"\n=done=".length);
  }

  end(): void {
    try {
      process.kill(-this.#child.pid!, "SIGKILL");
    } catch {
      // Nothing of the group runs any more.
    }
  }
}

/** Of at least eight hex digits, for example of a save point, a token or a checksum. */
const ID = /(?<![\da-z])[\da-f]{8,}(?![\da-z])…?/g;
const keyOf = (id: string): string => id.slice(0, 8);

const literally = (text: string): string => text.replaceAll(/[\\^$.*+?()[\]{}|]/g, "\\$&");
const HOST = new RegExp(`(?<= (?:TIME|of) )${literally(os.hostname())}(?=[ ,])`, "g");

/** The text without what differs from run to run, other than ids. */
function steady(text: string): string {
  return (
    text
      .replaceAll(/\d{4}-\d\d-\d\d[ T]\d\d:\d\d(?::\d\d(?:\.\d+)?)?Z?/g, "TIME")
      .replaceAll(/\bjust now\b|\b\d+ (?:second|minute)s? ago\b/g, "AGO")
      .replaceAll(/\bin (?:\d+ (?:second|minute|hour)s?|1 day)\b/g, "SOON")
      // A snapshot has a tree for each folder above the workspace, too.
      .replaceAll(/\b\d+ (blob|tree)s?\b/g, "N $1s")
      .replaceAll(/\b[\d.]+ m?s\b/g, "DURATION")
      .replaceAll(/\b[\d.]+ [KMGT]iB\b/g, "SIZE")
      .replaceAll(/\b(engine +)[\w-]+/g, "$1copy")
      .replaceAll(/\b(pid|uid|user) \d+/g, "$1 N")
      .replaceAll(/[ \t]+/g, " ")
      .replaceAll(HOST, "laptop")
      .replaceAll(/ $/gm, "")
      .trim()
  );
}

/** Fails unless `printed` matches what the page shows. `ids` has the printed id of each example; two examples never stand for one id. */
function compare(shown: Block, printed: string, ids: Map<string, string>): void {
  const [claim, real] = [steady(shown.text), steady(printed)];
  const pattern = claim
    .split("\n")
    .map((line) => {
      if (line === "…") return "(?:.*\\n)*?";
      const parts = line.split(ID).map((part) => part.split("…").map(literally).join(".*"));
      return `${parts.join("([\\da-f]{8,})")}\\n`;
    })
    .join("");
  const found = new RegExp(`^${pattern}$`).exec(`${real}\n`);
  if (found === null) assert.equal(real, claim, `${shown.at} is not what the commands print`);
  for (const [i, [id]] of [...claim.matchAll(ID)].entries()) {
    const [example, printedId] = [keyOf(id), found![i + 1]!];
    const known = ids.get(example);
    if (known === undefined)
      assert.ok(
        ![...ids.values()].some((other) => keyOf(other) === keyOf(printedId)),
        `${shown.at}: ${id} is shown with another id before`,
      );
    else assert.equal(keyOf(printedId), keyOf(known), `${shown.at}: ${id} is another id before`);
    if (known === undefined || known.length < printedId.length) ids.set(example, printedId);
  }
}

async function follow(page: string, shell: Shell): Promise<void> {
  const ids = new Map<string, string>();
  let [last, printed] = ["", ""];
  const run = async (text: string, at: string): Promise<void> => {
    const here = text.replaceAll(READER, shell.home);
    const typed = here.replaceAll(ID, (id) => ids.get(keyOf(id))?.slice(0, id.length) ?? id);
    printed = (await shell.run(typed, at)).replaceAll(shell.home, READER);
  };
  const blocks = blocksOf(page);
  assert.ok(blocks.filter(({ kind }) => kind === "text").length > 4, `${page} shows output`);
  for (const { at, kind, text } of blocks) {
    /* oxlint-disable no-await-in-loop -- one after the other, as a reader does */
    if (kind === "sh" || kind === "run") await run(text, at);
    else if (kind === "console" || kind === "prompt")
      assert.equal(last, "run", `${at}: nothing runs in place of this block`);
    else if (kind === "text") {
      assert.match(last, /^(?:sh|console|prompt)$/, `${at}: no command prints this`);
      compare({ at, kind, text }, printed, ids);
    } else {
      const name = /^(?:\/\/|#) ([\w.-]+)\n/.exec(text)?.[1];
      assert.ok(name !== undefined, `${at}: a file's first line is a comment with its name`);
      await run(`cat > ${name} <<'END OF FILE'\n${text.replaceAll(READER, shell.home)}END OF FILE\n`, at);
    }
    /* oxlint-enable no-await-in-loop */
    last = kind;
  }
}

test("the tutorial check fails on a failed command, another output or mixed-up ids", async (t) => {
  const shell = new Shell("faults");
  t.after(() => shell.end());
  await assert.rejects(
    shell.run("echo before; false; echo after\n", "page:1"),
    /page:1: a command failed[^]*before\n$/,
  );
  const two = "saved 0123abcd  one\nsaved 4567cdef  two\n";
  const shows = (text: string, printed = two): void =>
    compare({ at: "page:2", kind: "text", text }, printed, new Map());
  shows("saved aaaaaaaa  one\nsaved bbbbbbbb  two\n");
  shows("…\nsaved bbbbbbbb  …\n");
  shows("2026-11-27 07:41  1 KiB in 9 ms", "2026-12-03 10:00  2.5 MiB in 1.2 s");
  for (const wrong of ["saved aaaaaaaa  one\n", two.replace("two", "too"), "…\nkept bbbbbbbb  two\n"])
    assert.throws(() => shows(wrong), /page:2 is not what the commands print/);
  assert.throws(() => shows("saved aaaaaaaa  one\nsaved aaaaaaaa  two\n"), /aaaaaaaa is another id before/);
  assert.throws(() => shows(two, two.replace("4567cdef", "0123abcd")), /4567cdef is shown with another id before/);
});

for (const page of fs.readdirSync(FOLDER)) {
  test(
    `the commands of docs/tutorials/${page} print the shown output and leave no files`,
    { timeout: 600_000 },
    async (t) => {
      if (spawnSync("curl", ["--version"]).error !== undefined) return t.skip("needs curl");
      let shell: Shell;
      for (let tries = 1; ; tries++) {
        shell = new Shell(`${path.basename(page, ".md")}-${tries}`);
        t.after(() => shell.end());
        try {
          await follow(page, shell);
          break;
        } catch (error) {
          // A hook that has no time left gives its save to a background process, and the turns are others.
          if (!/^saving in the background$/m.test((error as Error).message)) throw error;
          if (tries === 3)
            return t.skip("the machine is too busy: a hook could not make its save in time, three times");
        }
      }
      const left = fs.readdirSync(shell.home, { recursive: true, encoding: "utf8" });
      assert.deepEqual(
        left.filter(
          (name) =>
            !/^\.(?:local|cache)(?:\/|$)/.test(name) ||
            /^\.local\/state\/cairn\/(?:control|self-contained|workspaces)\/./.test(name),
        ),
        [],
      );
    },
  );
}
