import { readdirSync, readFileSync, mkdirSync, renameSync, rmSync, statSync, writeFileSync, chmodSync } from "node:fs";
import { execFileSync } from "node:child_process";
import path from "node:path";
import { parseArgs } from "node:util";
import { build, type BuildOptions, type Metafile, type Plugin, transform } from "esbuild";
import { openApi } from "../src/api/socket/openapi.ts";
import { buildPage } from "./build-page.ts";
import { manualPages } from "./command-pages.ts";
import {
  browserDeclarations,
  clientDeclarations,
  contractDeclarations,
  libraryDeclarations,
} from "./print-declarations.ts";
import type { Scripts } from "../src/load-script.ts";
import { exportsOf, joinScripts, keyOf, link, type Modules, packageNames, readModules } from "./link.ts";
import { checkAcyclic, checkConstantExports, scriptOf } from "./script-of.ts";

/**
 * Makes dist/: the command, the library and every `*-worker.ts` as entry points that share chunks; one file with the
 * scripts that the command, its threads and the library run; the page of `cairn ui`.
 * `--only-command` (what ./cairn asks for) leaves out the type declarations and man pages.
 */

const ROOT = path.resolve(import.meta.dirname, "..");
const RUNTIME = path.join(ROOT, ".runtime");
const DIST = path.join(ROOT, "dist");
/** Native code cannot be bundled; these two are the package's only dependencies. */
const EXTERNAL = ["koffi"];
/** Milliseconds that chunks of older builds stay: another process may still load them. */
const KEEP_OLD_CHUNKS_MS = 3_600_000;

const WORKER_URL = /new URL\(\s*(["'])[^"']*?([\w-]+-worker)\.ts\1\s*,\s*import\.meta\.url,?\s*\)/g;

/** All output lies flat in dist/, so a worker lies beside each chunk that may start it. */
const workersBesideChunks: Plugin = {
  name: "workers-beside-chunks",
  setup(setup) {
    setup.onLoad({ filter: /\.ts$/ }, (file) => {
      return { contents: workersBeside(readFileSync(file.path, "utf8"), file.path), loader: "ts" };
    });
  },
};

function workersBeside(source: string, file: string): string {
  const contents = source.replace(WORKER_URL, (_match, _quote, name: string) => {
    return `new URL("./${name}.js", import.meta.url)`;
  });
  if (/-worker\.ts["']/.test(contents.replaceAll(/^\s*(import|export)\b.*$/gm, "")))
    throw new Error(
      `${file}: start a worker as new Worker(new URL("./name-worker.ts", import.meta.url)); the build finds no other form`,
    );
  return contents;
}

/**
 * Makes npm's command a script of the shell and of Node. The shell reads which signals are ignored, which Node does not
 * keep; see tools/archive-launcher.
 */
function throughShell(source: string): string {
  const [first, ...rest] = source.split("\n");
  if (first !== "#!/usr/bin/env node") throw new Error("entry.ts must begin with its interpreter");
  const read = `while read -r name CAIRN_IGNORED; do [ "$name" = SigIgn: ] && break; done 2>/dev/null </proc/self/status`;
  return ["#!/bin/sh", `":" //; ${read}; export CAIRN_IGNORED; exec node "$0" "$@"`, ...rest].join("\n");
}

function entryPoints(): Record<string, string> {
  const entries: Record<string, string> = {
    cli: "src/cli/program/entry.ts",
    index: "src/index.ts",
    client: "src/client.ts",
  };
  for (const file of readdirSync(path.join(ROOT, "src"), { recursive: true, encoding: "utf8" })) {
    if (!file.endsWith("-worker.ts")) continue;
    const name = path.basename(file, ".ts");
    if (entries[name] !== undefined) throw new Error(`two workers are called ${name}`);
    entries[name] = path.join("src", file);
  }
  return entries;
}

interface Manifest {
  readonly name: string;
  readonly version: string;
  readonly license?: string;
  /** As it was written before. */
  readonly licenses?: readonly { readonly type: string }[];
}

/** Returns the licence texts of all bundled packages. */
function thirdPartyNotices(inputs: Record<string, object>): string {
  const folders = new Set<string>();
  for (const input of Object.keys(inputs)) {
    const match = /^(.*node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(input);
    if (match?.[1] !== undefined) folders.add(match[1]);
  }
  const parts = [...folders].toSorted().map((folder) => {
    const manifest = JSON.parse(readFileSync(path.join(ROOT, folder, "package.json"), "utf8")) as Manifest;
    const licence = readdirSync(path.join(ROOT, folder)).find((name) => /^licen[cs]e/i.test(name));
    const text = licence === undefined ? "" : readFileSync(path.join(ROOT, folder, licence), "utf8").trim();
    return `${manifest.name} ${manifest.version} (${manifest.license ?? manifest.licenses?.[0]?.type})\n\n${text}\n`;
  });
  return `The files in this folder contain parts of these packages.\n\n${parts.join(`\n${"-".repeat(80)}\n\n`)}`;
}

const BUNDLED = {
  absWorkingDir: ROOT,
  chunkNames: "[name]-[hash]",
  bundle: true,
  splitting: true,
  format: "esm",
  platform: "node",
  target: "node24",
  // Node 24 has it. What esbuild makes of it throws, in a loop, the error of an earlier round once more.
  supported: { using: true },
  external: EXTERNAL,
  // Its form for Node asks for its parts in a way that no bundler sees.
  alias: { "jsonc-parser": "jsonc-parser/lib/esm/main.js" },
  minifySyntax: true,
  legalComments: "none",
  metafile: true,
  logLevel: "warning",
} as const satisfies BuildOptions;

/** Entry points of the library. The library shares code with the command, so both are scripts. */
const LIBRARY = ["src/index.ts", "src/client.ts"];
/** Source files that become scripts: the code of the command, of its threads and of the library. */
const SCRIPTS = ["src/cli/program/main.ts", "src/thread-main.ts", ...LIBRARY];

async function bundle(stage: string): Promise<void> {
  const made = await makeScripts(stage);
  const result = await build({
    ...BUNDLED,
    entryPoints: entryPoints(),
    outdir: stage,
    entryNames: "[name]",
    // Packages that are no modules ask for Node's own so.
    banner: { js: "const require = (name) => process.getBuiltinModule(name);" },
    plugins: [scriptsInstead(made), workersBesideChunks],
  });
  await makeEntry(stage, result.metafile);
  takeBuiltinsDirectly(stage);
  await makeRequired(stage);
  const page = await buildPage(path.join(stage, "page"));
  const inputs = { ...made.inputs, ...result.metafile.inputs, ...page };
  writeFileSync(path.join(stage, "THIRD-PARTY-LICENSES.txt"), thirdPartyNotices(inputs));
  writeFileSync(path.join(stage, "cli.js"), throughShell(readFileSync(path.join(stage, "cli.js"), "utf8")));
  chmodSync(path.join(stage, "cli.js"), 0o755);
}

/**
 * Makes the command's first file anew, as one module with all that a hook needs to find that it has nothing to do: each
 * further module costs a start 1 ms.
 */
async function makeEntry(stage: string, { outputs }: Metafile): Promise<void> {
  const chunkOf = (source: string): string =>
    path.basename(Object.keys(outputs).find((file) => outputs[file]!.entryPoint === source)!);
  const main = chunkOf("src/cli/program/main.ts");
  rmSync(path.join(stage, chunkOf("src/agents/hook-start.ts")));
  const mainApart: Plugin = {
    name: "main-apart",
    setup: ({ onResolve }) => onResolve({ filter: /^\.\/main\.ts$/ }, () => ({ path: `./${main}`, external: true })),
  };
  const entryPoints = { cli: "src/cli/program/entry.ts" };
  await build({ ...BUNDLED, entryPoints, outdir: stage, splitting: false, plugins: [mainApart], allowOverwrite: true });
}

/**
 * Bundles the entry point for `require`. It checks the version of Node first, because an old Node can require no
 * module.
 */
async function makeRequired(stage: string): Promise<void> {
  const contents = 'require("./src/node-version.ts");\nmodule.exports = require("./index.js");\n';
  await build({
    ...BUNDLED,
    stdin: { contents, resolveDir: ROOT },
    outfile: path.join(stage, "index.cjs"),
    splitting: false,
    format: "cjs",
    external: ["./index.js"],
  });
}

interface MadeScripts {
  readonly modules: Modules;
  readonly scripts: Scripts;
  readonly inputs: Metafile["inputs"];
}

/**
 * Makes the scripts that src/load-script.ts loads. Modules of Node cannot be scripts: Node gives out no compiled code
 * of a module that has run. Their `__url` is the value of `import.meta.url` in dist.
 */
async function makeScripts(stage: string): Promise<MadeScripts> {
  const modules = await readModules(ROOT, SCRIPTS, workersBeside);
  const { packages, texts, inputs } = await makePackages(stage, modules);
  const { text, ...scripts } = joinScripts(new Map([...(await link(modules, packages)), ...texts]));
  writeFileSync(path.join(stage, scripts.file), text);
  return { modules, scripts, inputs };
}

interface MadePackages {
  /** The name of a package's script, by package. */
  readonly packages: Map<string, string>;
  /** Scripts by the key of their module. */
  readonly texts: Map<string, string>;
  readonly inputs: Metafile["inputs"];
}

/** Bundles what the modules use of packages. */
async function makePackages(stage: string, modules: Modules): Promise<MadePackages> {
  const outdir = path.join(stage, "packages");
  const taken = packageNames(modules);
  const nameOf = (name: string): string => name.replaceAll(/[^\w]+/g, "-").replace(/^-/, "");
  const { metafile } = await build({
    ...BUNDLED,
    entryPoints: [...taken].map(([name, names]) => ({
      in: names === null ? name : `taken:${name}`,
      out: nameOf(name),
    })),
    outdir,
    entryNames: "[name]-[hash]",
    plugins: [takenOf(taken)],
  });
  takeBuiltinsDirectly(outdir);
  const texts = new Map<string, string>();
  for (const name of readdirSync(outdir)) {
    const key = `./${scriptName(name)}`;
    const text = scriptOf(readFileSync(path.join(outdir, name), "utf8"), name);
    // Without comments the text is ASCII, which is half as long in memory, and there at once.
    const { code } = await transform(`({${JSON.stringify(key)}: ${text}})`, { minifyWhitespace: true });
    texts.set(key, code);
  }
  rmSync(outdir, { recursive: true });
  const outputs = Object.keys(metafile.outputs).map((file) => path.basename(file));
  const packages = new Map(
    [...taken.keys()].map((name) => {
      const made = outputs.find((output) => output.replace(/-[^-]*$/, "") === nameOf(name));
      return [name, scriptName(made!)] as const;
    }),
  );
  checkAcyclic(
    new Map(Object.entries(metafile.outputs).map(([file, { imports }]) => [file, imports.map((each) => each.path)])),
  );
  for (const file of Object.keys(metafile.inputs).filter((input) => /^node_modules\/.*\.m?js$/.test(input)))
    checkConstantExports(readFileSync(path.join(ROOT, file), "utf8"), file);
  return { packages, texts, inputs: metafile.inputs };
}

/** Entry points that export the names that the sources take of a package. */
function takenOf(taken: ReadonlyMap<string, ReadonlySet<string> | null>): Plugin {
  return {
    name: "taken-of-packages",
    setup(setup) {
      setup.onResolve({ filter: /^taken:/ }, ({ path: name }) => ({ path: name.slice(6), namespace: "taken" }));
      setup.onLoad({ filter: /.*/, namespace: "taken" }, ({ path: name }) => {
        const names = [...taken.get(name)!].join(", ");
        return { contents: `export { ${names} } from "${name}";`, resolveDir: ROOT };
      });
    },
  };
}

function scriptName(moduleName: string): string {
  return moduleName.replace(/\.js$/, ".cjs");
}

/** Replaces a source file by a module that runs the file in the scripts and has the same exports. */
function scriptsInstead({ modules, scripts }: MadeScripts): Plugin {
  return {
    name: "scripts-instead",
    setup(setup) {
      setup.onLoad({ filter: /\/(?:main|thread-main|index|client)\.ts$/ }, (at) => {
        const file = path.relative(ROOT, at.path);
        if (!SCRIPTS.includes(file)) return undefined;
        const key = JSON.stringify(keyOf(file, new Map()));
        const table = JSON.stringify(scripts);
        const contents = LIBRARY.includes(file)
          ? libraryLoader(key, table, exportsOf(file, modules))
          : mainLoader(key, table, path.basename(file, ".ts"));
        return { contents, resolveDir: ROOT };
      });
    },
  };
}

function mainLoader(key: string, scripts: string, name: string): string {
  const cache = name === "main" ? "cacheOf(process.argv.slice(2))" : `"cairn-${name}"`;
  return `import { cacheOf, endUncaught, loadModule, nameSources } from "./src/load-script.ts";
    const loaded = loadModule(${key}, ${scripts}, import.meta.url, ${cache});
    const { exports, keep } = loaded;
    nameSources(loaded);
    ${name === "main" ? 'process.on("uncaughtException", endUncaught);' : ""}
    // Wrong words have status 2, and are no command.
    process.once("exit", (status) => status === 2 || keep());
    export const main = async () => exports.main(keep);`;
}

function libraryLoader(key: string, scripts: string, exports: readonly string[]): string {
  // A Node that is too old cannot read the second.
  return `import "./src/node-version.ts";
    import { loadLibrary } from "./src/load-script.ts";
    export const { ${exports.join(", ")} } = loadLibrary(${key}, ${scripts}, import.meta.url);`;
}

const BUILTIN_IMPORT = /^import (?:\{([^}]*)\}|\* as ([\w$]+)|([\w$]+)) from "(node:[\w/]+)";\n/gm;

/** commander imports this module, but most commands never use it. It loads the network modules, in 3 ms. */
const LAZY_BUILTIN = "node:child_process";
/** An object of functions that load the module when they are called. */
const LAZY_FUNCTIONS = `new Proxy({}, { get: (_, name) => (...args) => process.getBuiltinModule("${LAZY_BUILTIN}")[name](...args) })`;

/**
 * Takes built-in modules without Node's ES module around them, which reads every export. For a file that only needs
 * `node:fs`, those reads would load streams, readline and promises.
 */
function takeBuiltinsDirectly(stage: string): void {
  for (const name of readdirSync(stage)) {
    if (!name.endsWith(".js")) continue;
    // The entry must start on a Node that is too old to have the call.
    const [call, none] = name === "cli.js" ? ["getBuiltinModule?.", " ?? {}"] : ["getBuiltinModule", ""];
    const file = path.join(stage, name);
    const taken: string[] = [];
    const take = (
      _line: string,
      names: string | undefined,
      whole: string | undefined,
      main: string | undefined,
      module: string,
    ): string => {
      const target =
        names === undefined ? (whole ?? main ?? "") : `{${names.replaceAll(/([\w$]+) as ([\w$]+)/g, "$1: $2")}}`;
      taken.push(
        `const ${target} = ${module === LAZY_BUILTIN ? LAZY_FUNCTIONS : `globalThis.process.${call}("${module}")${none}`};\n`,
      );
      return "";
    };
    const [, interpreter = "", rest = ""] = /^(#!.*\n)?([^]*)$/.exec(readFileSync(file, "utf8"))!;
    const code = rest.replaceAll(BUILTIN_IMPORT, take);
    writeFileSync(file, interpreter + taken.join("") + code);
  }
}

/** Writes the library's declarations: the compiler's for types without a schema, and the printed contract. */
function declarations(stage: string): void {
  const out = path.join(stage, "types");
  const emitted = path.join(stage, "emitted");
  const tsc = path.join(ROOT, "node_modules/typescript/bin/tsc");
  const options = ["-p", path.join(ROOT, "tools/tsconfig.declarations.json"), "--outDir", emitted];
  execFileSync(process.execPath, [tsc, ...options], { stdio: "inherit", cwd: ROOT });
  const read = (name: string): string => readFileSync(path.join(emitted, name), "utf8");
  mkdirSync(path.join(out, "contract"), { recursive: true });
  for (const name of ["errors.d.ts", "ids.d.ts"]) writeFileSync(path.join(out, name), read(name));
  writeFileSync(
    path.join(out, "contract/index.d.ts"),
    contractDeclarations(read("contract/index.d.ts"), read("contract/repositories.d.ts")),
  );
  writeFileSync(
    path.join(out, "index.d.ts"),
    libraryDeclarations(readFileSync(path.join(ROOT, "src/index.ts"), "utf8")),
  );
  writeFileSync(
    path.join(out, "client.d.ts"),
    clientDeclarations(
      readFileSync(path.join(ROOT, "src/client.ts"), "utf8"),
      ["connection.ts", "service.ts"].map((name) => readFileSync(path.join(ROOT, "src/api/client", name), "utf8")),
    ),
  );
  writeFileSync(
    path.join(out, "client-browser.d.ts"),
    browserDeclarations(readFileSync(path.join(ROOT, "src/client-browser.ts"), "utf8")),
  );
  rmSync(emitted, { recursive: true });
}

/** Bundles the client of a web page as one module without packages. */
async function makeBrowserClient(stage: string): Promise<void> {
  await build({
    absWorkingDir: ROOT,
    entryPoints: ["src/client-browser.ts"],
    outfile: path.join(stage, "client-browser.js"),
    bundle: true,
    format: "esm",
    platform: "browser",
    target: "es2022",
    logLevel: "warning",
  });
}

async function writeManualPages(stage: string): Promise<void> {
  mkdirSync(path.join(stage, "man"));
  for (const [name, text] of await manualPages()) writeFileSync(path.join(stage, "man", name), text);
}

/** Moves chunks first and entry points last, so that a process that starts meanwhile finds all chunks of its entry. */
function moveIntoPlace(stage: string): void {
  mkdirSync(DIST, { recursive: true });
  const names = readdirSync(stage).toSorted((a, b) => Number(isEntry(a)) - Number(isEntry(b)));
  for (const name of names) {
    const target = path.join(DIST, name);
    if (statSync(path.join(stage, name)).isDirectory()) rmSync(target, { recursive: true, force: true });
    renameSync(path.join(stage, name), target);
  }
  const current = new Set(names);
  for (const name of readdirSync(DIST)) {
    const file = path.join(DIST, name);
    const age = Date.now() - statSync(file).mtimeMs;
    if (!current.has(name) && age > KEEP_OLD_CHUNKS_MS) rmSync(file, { recursive: true });
  }
}

function isEntry(name: string): boolean {
  return name === "cli.js" || name === "client.js" || /^index\.c?js$/.test(name) || name.endsWith("-worker.js");
}

/** Removes the files that a killed build left. */
function removeLeftovers(): void {
  mkdirSync(RUNTIME, { recursive: true });
  for (const name of readdirSync(RUNTIME)) {
    const pid = /^build-(\d+)$/.exec(name)?.[1];
    if (pid !== undefined && !isAlive(Number(pid))) rmSync(path.join(RUNTIME, name), { recursive: true, force: true });
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return pid !== process.pid;
  } catch {
    return false;
  }
}

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { "only-command": { type: "boolean" }, clean: { type: "boolean" } } });
  removeLeftovers();
  const work = path.join(RUNTIME, `build-${process.pid}`);
  const stage = path.join(work, "dist");
  const stamp = path.join(work, "built");
  mkdirSync(stage, { recursive: true });
  // Made before any source is read: an edit during the build is newer than the stamp.
  writeFileSync(stamp, "");
  try {
    await bundle(stage);
    if (values["only-command"] !== true) {
      declarations(stage);
      await makeBrowserClient(stage);
      await writeManualPages(stage);
      writeFileSync(path.join(stage, "openapi.json"), `${JSON.stringify(openApi())}\n`);
    }
    if (values.clean === true) rmSync(DIST, { recursive: true, force: true });
    moveIntoPlace(stage);
    renameSync(stamp, path.join(RUNTIME, "built"));
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

await main();
