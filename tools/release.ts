import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { parseArgs } from "node:util";

/**
 * Writes release/: an archive for each architecture, which brings its own Node; the npm packages; SHA256SUMS. The changelog in them
 * has the unreleased changes. Equal sources give equal bytes. `--arch x64` makes one archive only.
 */

const ROOT = path.resolve(import.meta.dirname, "..");
const RELEASE = path.join(ROOT, "release");
const STAGE = path.join(ROOT, ".runtime/release");
const ARCHITECTURES = ["x64", "arm64"];

/** Files of a package that a program loads. */
const LOADED = /\.(?:[cm]?js|json|node|so|zst)$/;
/** Sources and headers of native packages, tests. */
const NOT_LOADED = /\/(?:vendor|doc|test)(?:\/|\.js$)/;

/** Packages that have no licence file, and where the text of their licence is. */
const LICENCE_ELSEWHERE: readonly [name: RegExp, text: string][] = [
  [/^@koromix\/koffi-/, "Its licence is that of koffi, above or below."],
  [/^sqlite-vec/, "By Alex Garcia. Used under the Apache License 2.0, whose text is in LICENSE."],
];

interface Manifest {
  name: string;
  version: string;
  license?: string;
  dependencies?: Record<string, string>;
}

interface LockEntry {
  dev?: boolean;
  link?: boolean;
  os?: string | string[];
  cpu?: string | string[];
}

interface Lock {
  packages: Record<string, LockEntry>;
}

function readJson(...names: string[]): unknown {
  return JSON.parse(readFileSync(path.join(...names), "utf8"));
}

const MANIFEST = readJson(ROOT, "package.json") as Manifest;

function run(program: string, args: readonly string[], cwd: string): string {
  return execFileSync(program, args, { cwd, encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] });
}

/** Returns `changelog` with `fragments` as a list at the end of the version's section, which is made if there is none. */
export function foldChangelog(changelog: string, fragments: readonly string[], version: string): string {
  if (fragments.length === 0) return changelog;
  const items = fragments.map((text) => `- ${text.trim().replaceAll(/\s*\n\s*/g, " ")}\n`).join("");
  const sections = changelog.split(/^(?=## )/m);
  const isVersion = (section: string): boolean => section.startsWith(`## ${version}\n`);
  if (sections.some(isVersion))
    return sections
      .map((each) => (isVersion(each) ? `${each.trimEnd()}\n\n### More\n\n${items}\n` : each))
      .join("")
      .replace(/\n+$/, "\n");
  return [sections[0], `## ${version}\n\n${items}\n`, ...sections.slice(1)].join("");
}

/** Returns a page without pictures and links to files that `isThere` denies: a link becomes its text, "· [proof]" nothing. */
export function withoutDeadLinks(markdown: string, isThere: (file: string) => boolean): string {
  const pictures = /<picture>[^]*?<img [^>]*src="([^"]+)"[^]*?<\/picture>\n*/g;
  const text = markdown.replaceAll(pictures, (whole: string, file: string) => (isThere(file) ? whole : ""));
  const link = /(?: · (?=\[proof\]))?(!?)\[((?:[^\]`]|`[^`]*`)*)\]\(([^)\s]+)\)/g;
  return text.replaceAll(link, (whole: string, picture: string, words: string, target: string) => {
    const [file = ""] = target.split("#");
    if (file === "" || /^\w+:/.test(file) || isThere(file)) return whole;
    return picture === "!" || words === "proof" ? "" : words;
  });
}

/** Removes the dead links of the pages in a package, which has no sources, charts and screenshots. */
function unlink(unpacked: string): void {
  const all = readdirSync(unpacked, { recursive: true, encoding: "utf8" });
  for (const name of all.filter((each) => /^(?:[^/]+|docs\/.*)\.md$/.test(each))) {
    const file = path.join(unpacked, name);
    const isThere = (target: string): boolean => existsSync(path.join(path.dirname(file), target));
    writeFileSync(file, withoutDeadLinks(readFileSync(file, "utf8"), isThere));
  }
}

function foldedChangelog(): string {
  const folder = path.join(ROOT, "changelog/unreleased");
  const names = readdirSync(folder).filter((name) => name.endsWith(".md") && name !== "README.md");
  const fragments = names.toSorted().map((name) => readFileSync(path.join(folder, name), "utf8"));
  return foldChangelog(readFileSync(path.join(ROOT, "CHANGELOG.md"), "utf8"), fragments, MANIFEST.version);
}

/** Builds and packs both npm packages into `to`. Returns the unpacked command and library. */
function packPackages(to: string): string {
  run("npm", ["pack", "--silent", "--pack-destination", STAGE], ROOT);
  run("tar", ["-xzf", `${MANIFEST.name}-${MANIFEST.version}.tgz`], STAGE);
  const unpacked = path.join(STAGE, "package");
  writeFileSync(path.join(unpacked, "CHANGELOG.md"), foldedChangelog());
  unlink(unpacked);
  const packing = ["pack", "--silent", "--ignore-scripts", "--pack-destination", to];
  run("npm", [...packing, unpacked], STAGE);
  run("npm", [...packing, path.join(ROOT, "packages/model")], STAGE);
  return unpacked;
}

/** Installs what the lockfile in `folder` pins for `arch`. Throws if npm cannot fetch it, or if a checksum differs. */
function install(folder: string, arch: string): string {
  const target = [`--cpu=${arch}`, "--os=linux", "--libc=glibc"];
  const quiet = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
  run("npm", ["ci", "--omit=dev", "--include=optional", ...target, ...quiet], folder);
  // npm says nothing of an optional package that it could not fetch.
  const { packages } = readJson(folder, "package-lock.json") as Lock;
  for (const [at, { os, cpu }] of Object.entries(packages))
    if (os?.includes("linux") === true && cpu?.includes(arch) === true && !existsSync(path.join(folder, at)))
      throw new Error(`npm could not fetch ${at}`);
  return path.join(folder, "node_modules");
}

/** Returns the folder of node_modules with the packages that the command loads at run time. */
function fetchPackages(arch: string): string {
  const folder = path.join(STAGE, `packages-${arch}`);
  mkdirSync(folder);
  const { name, version, dependencies } = MANIFEST;
  const lock = readJson(ROOT, "package-lock.json") as Lock;
  const pinned = Object.entries(lock.packages).filter(
    ([at, { dev, link }]) => at.startsWith("node_modules/") && dev !== true && link !== true,
  );
  const own = { name, version, dependencies };
  writeFileSync(path.join(folder, "package.json"), JSON.stringify(own));
  const packages = { "": own, ...Object.fromEntries(pinned) };
  writeFileSync(path.join(folder, "package-lock.json"), JSON.stringify({ ...lock, packages }));
  return install(folder, arch);
}

/** Returns the folder of the Node that tools/bootstrap.sh brings to a clone, with the same checksum. */
function fetchNode(arch: string): string {
  const folder = path.join(STAGE, `node-${arch}`);
  cpSync(path.join(ROOT, "tools/runtime"), folder, { recursive: true });
  return path.join(install(folder, arch), `node-linux-${arch}`);
}

/** Returns the folders of the packages in a node_modules. */
function packagesIn(modules: string): string[] {
  const names = readdirSync(modules).filter((name) => !name.startsWith("."));
  return names
    .flatMap((name) =>
      name.startsWith("@") ? readdirSync(path.join(modules, name)).map((each) => `${name}/${each}`) : name,
    )
    .toSorted()
    .map((name) => path.join(modules, name));
}

/** Throws if a package has no licence, so that nothing is given away without one. */
function licenceOf(folder: string): string {
  const { name, version, license } = readJson(folder, "package.json") as Manifest;
  const texts = readdirSync(folder).filter((each) => /^(?:licen[cs]e|notice)/i.test(each));
  const elsewhere = LICENCE_ELSEWHERE.find(([pattern]) => pattern.test(name))?.[1];
  if (texts.length === 0 && elsewhere === undefined) throw new Error(`${name} has no licence file`);
  const text = texts.map((each) => readFileSync(path.join(folder, each), "utf8").trim()).join("\n\n");
  return `${name} ${version} (${license})\n\n${text || elsewhere}\n`;
}

/** Lays out the archive of an architecture. Returns its folder's name. */
function assemble(arch: string, unpacked: string): string {
  const name = `cairn-${MANIFEST.version}-linux-${arch}`;
  const at = (...names: string[]): string => path.join(STAGE, name, ...names);
  const [node, modules] = [fetchNode(arch), fetchPackages(arch)];
  for (const each of ["bin", "lib", "licences", "share/man"]) mkdirSync(at(each), { recursive: true });
  cpSync(path.join(ROOT, "tools/archive-launcher"), at("bin/cairn"));
  cpSync(path.join(node, "bin/node"), at("lib/node"));
  const packages = [...packagesIn(modules), path.join(ROOT, "packages/model")];
  for (const folder of packages) {
    const target = at("lib/node_modules", (readJson(folder, "package.json") as Manifest).name);
    const isLoaded = (file: string): boolean => LOADED.test(file) && !NOT_LOADED.test(file.slice(folder.length));
    for (const file of readdirSync(folder, { recursive: true, encoding: "utf8" }))
      if (isLoaded(path.join(folder, file))) cpSync(path.join(folder, file), path.join(target, file));
  }
  const own = at("lib/node_modules", MANIFEST.name);
  cpSync(path.join(unpacked, "package.json"), path.join(own, "package.json"));
  const isForPeople = /\/dist\/(?:man|types|THIRD-PARTY-LICENSES\.txt)$/;
  cpSync(path.join(unpacked, "dist"), path.join(own, "dist"), {
    recursive: true,
    filter: (file) => !isForPeople.test(file),
  });
  cpSync(path.join(unpacked, "dist/man"), at("share/man/man1"), { recursive: true });
  for (const each of ["LICENSE", "CHANGELOG.md", "README.md", "SECURITY.md", "docs"])
    cpSync(path.join(unpacked, each), at(each), { recursive: true });
  cpSync(path.join(node, "LICENSE"), at("licences/node.txt"));
  cpSync(path.join(unpacked, "dist/THIRD-PARTY-LICENSES.txt"), at("licences/bundled.txt"));
  writeFileSync(at("licences/packages.txt"), packages.map(licenceOf).join(`\n${"-".repeat(80)}\n\n`));
  return name;
}

/** Seconds since 1970 that all entries of an archive have: of the commit, unless SOURCE_DATE_EPOCH says otherwise. */
function timeOfSources(): string {
  return process.env["SOURCE_DATE_EPOCH"] ?? run("git", ["log", "-1", "--format=%ct"], ROOT).trim();
}

/** Writes `NAME.tar.gz` into `to`: entries by name, without times and owners of this machine. */
function writeArchive(name: string, to: string): void {
  const file = path.join(to, `${name}.tar`);
  const entries = [`--mtime=@${timeOfSources()}`, "--sort=name", "--owner=0", "--group=0", "--numeric-owner"];
  run("tar", ["--create", "--format=gnu", "--mode=u=rwX,go=rX", ...entries, "-f", file, name], STAGE);
  run("gzip", ["-9", "--no-name", file], STAGE);
}

/** Returns an exit status: 1 if an architecture could not be made. */
function main(): number {
  const { values } = parseArgs({ options: { arch: { type: "string" } } });
  const wanted = values.arch === undefined ? ARCHITECTURES : [values.arch];
  if (!wanted.every((each) => ARCHITECTURES.includes(each)))
    throw new Error(`--arch is one of ${ARCHITECTURES.join(", ")}`);
  rmSync(STAGE, { recursive: true, force: true });
  const out = path.join(STAGE, "out");
  mkdirSync(out, { recursive: true });
  const unpacked = packPackages(out);
  const failed = wanted.filter((arch) => {
    try {
      writeArchive(assemble(arch, unpacked), out);
      return false;
    } catch (error) {
      process.stderr.write(`release: no archive for ${arch}: ${(error as Error).message}\n`);
      return true;
    }
  });
  const sums = readdirSync(out)
    .toSorted()
    .map(
      (name) =>
        `${createHash("sha256")
          .update(readFileSync(path.join(out, name)))
          .digest("hex")}  ${name}\n`,
    );
  writeFileSync(path.join(out, "SHA256SUMS"), sums.join(""));
  rmSync(RELEASE, { recursive: true, force: true });
  renameSync(out, RELEASE);
  rmSync(STAGE, { recursive: true });
  process.stdout.write(`release/ has\n${sums.join("")}`);
  if (failed.length === 0) return 0;
  process.stderr.write(`release: incomplete, without ${failed.join(", ")}; run it again where npm can fetch these\n`);
  return 1;
}

if (import.meta.main) process.exitCode = main();
