import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { before, describe, test, type TestContext } from "node:test";
import { buildCommand, cairnOk, SCRATCH } from "../fixtures/command.ts";
import { newFolder } from "../fixtures/work.ts";

/** The scripts of `cairn completion`, loaded by the shells they are for, on the real command and real points. */

interface Offer {
  word: string;
  /** what the shell shows beside it, where it shows something */
  text: string;
}

let folder: string;
let other: string;
const ids = { first: "", other: "" };
const bin = path.join(SCRATCH, "bin");

before(() => {
  fs.mkdirSync(bin);
  fs.writeFileSync(path.join(bin, "cairn"), `#!/bin/sh\nexec '${process.execPath}' '${buildCommand()}' "$@"\n`, {
    mode: 0o755,
  });
  folder = newFolder("here");
  other = newFolder("there");
  fs.mkdirSync(path.join(folder, "a folder"));
  fs.writeFileSync(path.join(folder, "file.txt"), "x");
  ids.first = shortIdOf(cairnOk(["save", folder, "-m", "it's: the first"]).data);
  ids.other = shortIdOf(cairnOk(["save", other, "-m", "elsewhere"]).data);
});

function shortIdOf(data: Record<string, unknown>): string {
  return (data["save_point"] as { save_point_id: string }).save_point_id.slice(0, 8);
}

function isThere(t: TestContext, shell: string): boolean {
  if (spawnSync(shell, ["-c", "true"]).error === undefined) return true;
  t.skip(`${shell} is not installed`);
  return false;
}

/** Runs a shell with `cairn` on its path, in the workspace. */
function shell(command: string[], env: Record<string, string> = {}): string {
  const ran = spawnSync(command[0]!, command.slice(1), {
    cwd: folder,
    encoding: "utf8",
    timeout: 20_000,
    env: { ...process.env, PATH: `${bin}:${process.env["PATH"]}`, TERM: "dumb", NO_COLOR: "1", ...env },
  });
  assert.equal(ran.error, undefined, `${command.join(" ")}: ${ran.error?.message}`);
  assert.equal(ran.status, 0, ran.stdout + ran.stderr);
  assert.equal(ran.stderr, "");
  return ran.stdout;
}

function scriptFor(name: string): string {
  const file = path.join(SCRATCH, `completion.${name}`);
  const { data } = cairnOk(["completion", name]);
  fs.writeFileSync(file, String(data["script"]));
  return file;
}

function bashOffers(line: string): Offer[] {
  const words = line.split(" ");
  const quoted = words.map((word) => `'${word}'`).join(" ");
  const source = `source '${scriptFor("bash")}'
    [[ $(complete -p cairn) == *"-F _cairn cairn" ]] || exit 3
    COMP_WORDS=(${quoted}); COMP_CWORD=${words.length - 1}; COMP_LINE='${line}'; COMP_POINT=${line.length}
    _cairn; printf '%s\\n' "\${COMPREPLY[@]}"`;
  return offersOf(shell(["bash", "--norc", "--noprofile", "-c", source]));
}

function fishOffers(line: string): Offer[] {
  return offersOf(shell(["fish", "--no-config", "-c", `source '${scriptFor("fish")}'; complete -C '${line}'`]));
}

/** Sourced by the zsh that is asked: each match is also printed on its way into the list. */
const ZSH_SETUP = String.raw`
PS1= PS2= RPS1=
autoload -Uz compinit
compinit -u -D
source $SCRIPT
compadd() {
  if [[ \${@[1,(i)(-|--)]} == *-(O|A|D)\ * ]]; then builtin compadd "$@"; return; fi
  local -a found texts
  local -i n at=\${@[(I)-d]}
  (( at )) && texts=(\${(P)@[at+1]})
  builtin compadd -A found -D texts "$@"
  for ((n = 1; n <= $#found; n++)); do print -r -- "OFFER:\${found[n]}|\${texts[n]}"; done
  builtin compadd "$@"
}
tell() { zle complete-it; print -r -- "OFFERS"" END" }
zle -C complete-it complete-word _main_complete
zle -N tell
bindkey "^I" tell
print READY GO
`.replaceAll("\\$", "$");

/** Opens a terminal for it, types the line and a tab, and prints what came. */
const ZSH_DRIVER = `
zmodload zsh/zpty || exit 4
zpty asked zsh -f -i
zpty -w asked 'source $SETUP'
zpty -r -m asked seen '*READY GO*' || exit 5
zpty -w -n asked "$LINE"$'\\t'
zpty -r -m asked seen '*OFFERS END*' || exit 6
print -r -- "$seen"
zpty -d asked
`;

/** What zsh adds at a tab, by its own completion system. */
function zshOffers(line: string): Offer[] {
  const [driver, setup] = ["driver", "setup"].map((name) => path.join(SCRATCH, `${name}.zsh`)) as [string, string];
  fs.writeFileSync(driver, ZSH_DRIVER);
  fs.writeFileSync(setup, ZSH_SETUP);
  const seen = shell(["zsh", "-f", driver], { SETUP: setup, SCRIPT: scriptFor("zsh"), LINE: line });
  return offersOf([...seen.matchAll(/OFFER:([^\r\n]*)/g)].map((match) => match[1]!.replace("|", "\t")).join("\n"));
}

function offersOf(lines: string): Offer[] {
  return lines.split("\n").flatMap((line) => {
    if (line === "") return [];
    const [word, text = ""] = line.split("\t");
    return [{ word: word!, text }];
  });
}

const SHELLS = { bash: bashOffers, zsh: zshOffers, fish: fishOffers };

for (const [name, offers] of Object.entries(SHELLS)) {
  describe(`completion in ${name}`, () => {
    const words = (line: string): string[] =>
      offers(line)
        .map(({ word }) => word)
        .toSorted();

    test("completion offers commands, also after an option with a value", (t) => {
      if (!isThere(t, name)) return;
      assert.deepEqual(words("cairn re"), ["receipt", "redo", "release", "relocate", "restore", "rewind"]);
      assert.deepEqual(words(`cairn -C ${other} re`), ["receipt", "redo", "release", "relocate", "restore", "rewind"]);
      assert.deepEqual(words("cairn __c"), []);
    });

    test("completion offers the options of the command and the global options", (t) => {
      if (!isThere(t, name)) return;
      assert.deepEqual(words("cairn restore --pl"), ["--plan"]);
      assert.deepEqual(words("cairn history --jso"), ["--json"]);
      assert.deepEqual(words("cairn status --pl"), []);
    });

    test("completion offers points of the current folder, or of the folder that -C names", (t) => {
      if (!isThere(t, name)) return;
      const here = offers(`cairn restore ${ids.first.slice(0, 3)}`);
      assert.deepEqual(
        here.map(({ word }) => word),
        [ids.first],
      );
      if (name !== "bash") assert.match(here[0]!.text, /it's: the first/);
      assert.deepEqual(words("cairn pin hea"), ["head"]);
      assert.deepEqual(words(`cairn -C ${other} pin ${ids.other.slice(0, 3)}`), [ids.other]);
      assert.deepEqual(words(`cairn -C ${other} pin ${ids.first.slice(0, 6)}`), []);
    });

    test("completion offers files, folders and shell names for the arguments that take them", (t) => {
      if (!isThere(t, name)) return;
      assert.ok(words(`cairn restore ${ids.first} fi`).some((word) => word.startsWith("file.txt")));
      assert.ok(words("cairn status a").some((word) => /^a(\\| )/.test(word)));
      assert.ok(words("cairn restore --to a").some((word) => /^a(\\| )/.test(word)));
      assert.deepEqual(words("cairn completion z"), ["zsh"]);
      assert.deepEqual(words("cairn save -m fi"), []);
    });
  });
}
