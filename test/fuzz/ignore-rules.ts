import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { SCRATCH } from "../fixtures/command.ts";
import type { Entries } from "../fixtures/folder-state.ts";

/** What ignore rules leave out, as git says it: `.cairnignore` has gitignore's language. */
export interface Rules {
  /** Directory → what its `.cairnignore` says. */
  files: ReadonlyMap<string, Buffer>;
  /** Of one save. */
  excludes: readonly string[];
}

export const NO_RULES: Rules = { files: new Map(), excludes: [] };

export const noGit = spawnSync("git", ["--version"]).error === undefined ? false : "git is not installed";

const RULES_FILE = /(?:^|\/)\.cairnignore$/;
const MIRROR = path.join(SCRATCH, "as-git-sees-it");

/** Those that stand in a folder now. */
export function rulesIn(folder: string, entries: Entries, excludes: readonly string[] = []): Rules {
  const files = new Map<string, Buffer>();
  for (const [name, { type }] of entries) {
    if (type !== "file" || !RULES_FILE.test(name)) continue;
    files.set(name.replace(RULES_FILE, ""), fs.readFileSync(bytes(`${folder}/${name}`)));
  }
  return { files, excludes };
}

export function areSameRules(one: Rules, other: Rules): boolean {
  const said = ({ files, excludes }: Rules): string =>
    JSON.stringify([[...files].map(([name, text]) => [name, text.toString("latin1")]).toSorted(), excludes]);
  return said(one) === said(other);
}

/** Paths that the rules leave out, with all that lies below them. */
export function ignoredBy(rules: Rules, entries: Entries): Set<string> {
  const { files, excludes } = rules;
  if (files.size > 0 && excludes.length > 0) {
    // A save's own patterns only ever leave out more.
    return new Set([...ignoredBy({ files, excludes: [] }, entries), ...ignoredBy({ ...NO_RULES, excludes }, entries)]);
  }
  if (files.size === 0 && excludes.length === 0) return new Set();
  mirror(rules, entries);
  const asked = [...entries.keys()].filter((name) => name !== "").join("\0");
  const said = spawnSync(
    "git",
    ["-C", MIRROR, "-c", "core.ignoreCase=false", "check-ignore", "--no-index", "-z", "--stdin"],
    {
      input: bytes(`${asked}\0`),
    },
  );
  assert.ok(said.status === 0 || said.status === 1, `git: ${said.stderr.toString()}`);
  const named = new Set(
    said.stdout
      .toString("latin1")
      .split("\0")
      .filter((name) => name !== ""),
  );
  const result = new Set<string>();
  // Parents come before what lies in them.
  for (const name of entries.keys()) if (named.has(name) || result.has(parentOf(name) ?? "")) result.add(name);
  return result;
}

export function without(entries: Entries, names: ReadonlySet<string>): Entries {
  return new Map([...entries].filter(([name]) => !names.has(name)));
}

/** Null of a name at the top; the folder itself is nobody's entry. */
export function parentOf(name: string): string | null {
  const slash = name.lastIndexOf("/");
  return slash < 0 ? null : name.slice(0, slash);
}

/** The same names and types in a repository of git, with the rules in its words. */
function mirror({ files, excludes }: Rules, entries: Entries): void {
  if (!fs.existsSync(MIRROR)) execFileSync("git", ["init", "-q", "--template=", MIRROR]);
  for (const name of fs.readdirSync(bytes(MIRROR), { encoding: "buffer" }))
    if (name.toString() !== ".git") fs.rmSync(Buffer.concat([bytes(`${MIRROR}/`), name]), { recursive: true });
  fs.mkdirSync(path.join(MIRROR, ".git/info"), { recursive: true });
  fs.writeFileSync(path.join(MIRROR, ".git/info/exclude"), `${excludes.join("\n")}\n`);
  for (const [name, { type }] of entries) {
    if (name === "") continue;
    const place = bytes(`${MIRROR}/${name}`);
    if (type === "dir") fs.mkdirSync(place);
    else if (type === "link") fs.symlinkSync("nowhere", place);
    else fs.writeFileSync(place, "");
  }
  for (const [name, text] of files) {
    // Rules of a point are asked of a folder that may not have their directory any more.
    if (name === "" || entries.get(name)?.type === "dir") fs.writeFileSync(bytes(`${MIRROR}/${name}/.gitignore`), text);
  }
}

function bytes(latin1: string): Buffer {
  return Buffer.from(latin1, "latin1");
}
