import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import path from "node:path";
import { Script } from "node:vm";
import { transform } from "esbuild";
import type { Scripts } from "../src/load-script.ts";
import { checkAcyclic, checkConstantExports } from "./script-of.ts";

/**
 * Links the sources into scripts for src/load-script.ts: an object of functions, one a module, by the module's key. A
 * module runs when one of its functions is first called or one of its classes first constructed, or when a module that has
 * run uses its class otherwise or its constant. So a command runs, and V8 reads the code of, only the modules that it uses.
 */

/** The name of the script that has a package, by package. */
type PackageScripts = ReadonlyMap<string, string>;

interface Import {
  readonly isExport: boolean;
  /** Names of the other module and here; null: all of them. */
  readonly names: readonly Name[] | null;
  /** The name here of an object with all of them. */
  readonly whole: string | null;
  /** The other module's file below src, or its package or built-in module. */
  readonly from: string;
  /** The name that esbuild gives the other module in the CommonJS form. */
  readonly alias: string;
}

/** Modules by their file. */
export type Modules = ReadonlyMap<string, Module>;

type Name = readonly [theirs: string, here: string];

interface Module {
  readonly file: string;
  readonly imports: readonly Import[];
  readonly exported: readonly Name[];
  readonly functions: ReadonlySet<string>;
  readonly body: string;
  /** The module in CommonJS form, which tells calls of imports from other uses. */
  readonly commonJs: string;
}

const IMPORT = /^(import|export) (?:(?:([\w$]+)(?:, )?)?(?:\* as ([\w$]+)|(\*)|\{([^}]*)\})? ?from )?"([^"]+)";\n/gm;
const EXPORTED = /^export \{([^}]*)\};\s*$/m;
const FUNCTION = /^(?:async )?function\s?\*?\s?([\w$]+)\(/gm;
const DYNAMIC_IMPORT = /\bimport\("([^"]+)"\)/g;
/** Before a variable there is no part of another name, and no dot of a member; `...name` is a variable. */
const NOT_BEFORE = "(?<![\\w$]|(?<!\\.\\.)\\.)";

/** Reads the modules that `entries` import. `change`: changes the text of a source file. */
export async function readModules(
  root: string,
  entries: readonly string[],
  change: (source: string, file: string) => string,
): Promise<Modules> {
  const modules = new Map<string, Module>();
  const read = async (file: string): Promise<void> => {
    const source = readFileSync(path.join(root, file), "utf8");
    checkConstantExports(source, file);
    const module = await moduleOf(change(source, file), file);
    modules.set(file, module);
  };
  for (let next = [...entries]; next.length > 0;) {
    await Promise.all(next.map(read));
    const named = [...modules.values()].flatMap(({ imports, body, file }) => [
      ...imports.map(({ from }) => from),
      ...[...body.matchAll(DYNAMIC_IMPORT)].map(([, name]) => from(file, name!)),
    ]);
    next = [...new Set(named)].filter((name) => name.startsWith("src/") && !modules.has(name));
  }
  checkAcyclic(new Map([...modules].map(([file, { imports }]) => [file, imports.map(({ from: other }) => other)])));
  return modules;
}

function from(file: string, name: string): string {
  return name.startsWith(".") ? path.join(path.dirname(file), name) : name;
}

async function moduleOf(source: string, file: string): Promise<Module> {
  const options = { loader: "ts", target: "node24", supported: { using: true }, minifySyntax: true } as const;
  const made = await transform(source, { ...options, legalComments: "none", format: "esm" });
  const { code: commonJs } = await transform(source, { ...options, legalComments: "none", format: "cjs" });
  const imports: Import[] = [];
  const body = made.code.replaceAll(
    IMPORT,
    (line, word: string, standard?: string, whole?: string, all?: string, list?: string, name?: string) => {
      // A text that looks like an import, inside a template.
      if (!commonJs.includes(`require(${JSON.stringify(name)})`)) return line;
      imports.push({
        isExport: word === "export",
        names:
          all === undefined
            ? [...(standard === undefined ? [] : [["default", standard] as const]), ...namesIn(list)]
            : null,
        whole: whole ?? null,
        from: from(file, name!),
        alias: `import_${path
          .basename(name!)
          .replace(/\.ts$/, "")
          .replaceAll(/[^\w$]/g, "_")}`,
      });
      return "";
    },
  );
  return {
    file,
    imports,
    exported: namesIn(EXPORTED.exec(body)?.[1]),
    functions: new Set([...body.matchAll(FUNCTION)].map(([, name]) => name!)),
    body: body.replace(EXPORTED, ""),
    commonJs,
  };
}

function namesIn(list = ""): Name[] {
  return [...list.matchAll(/([\w$]+)(?: as ([\w$]+))?/g)].map(([, theirs, here = theirs]) => [theirs!, here!]);
}

/** Returns the names that the modules take from each package; null for all of them. */
export function packageNames(modules: Modules): ReadonlyMap<string, ReadonlySet<string> | null> {
  const taken = new Map<string, Set<string> | null>();
  const take = (name: string, names: readonly string[] | null): void => {
    if (name.startsWith("src/") || name.startsWith("node:")) return;
    const before = taken.get(name);
    taken.set(name, names === null || before === null ? null : new Set([...(before ?? []), ...names]));
  };
  for (const { imports, body, file } of modules.values()) {
    for (const each of imports) {
      const used = each.whole === null ? [] : membersOf(each.whole, body);
      take(each.from, each.names === null || used === null ? null : [...each.names.map(([name]) => name), ...used]);
    }
    for (const [, name] of body.matchAll(DYNAMIC_IMPORT)) take(from(file, name!), null);
  }
  return taken;
}

/** Returns the members of `whole` that `body` names; null if `body` uses the object otherwise. */
function membersOf(whole: string, body: string): string[] | null {
  const uses = [...body.matchAll(new RegExp(`${NOT_BEFORE}${whole}(?![\\w$])(?:\\.([\\w$]+))?`, "g"))];
  return uses.some(([, member]) => member === undefined) ? null : uses.map(([, member]) => member!);
}

/** Returns the text of a script by the group of its modules. `packages`: the script of each package. */
export async function link(modules: Modules, packages: PackageScripts): Promise<Map<string, string>> {
  const groups = new Map<string, string[]>();
  for (const module of [...modules.values()].toSorted((a, b) => (a.file < b.file ? -1 : 1))) {
    const key = keyOf(module.file, packages);
    const group = key.slice(0, key.indexOf(":"));
    const body = `"use strict";\n${textOf(module, modules, packages)}`;
    const { code } = await transform(`(function (__require, exports, __url) {${body}})`, { minifyWhitespace: true });
    const text = `${JSON.stringify(key)}: ${code.replace(/;\s*$/, "")}`;
    groups.set(group, [...(groups.get(group) ?? []), text]);
  }
  return new Map([...groups].map(([group, members]) => [group, `({${members.join(",\n")}})`]));
}

/** Joins scripts into one file. Throws on text that is no script. */
export function joinScripts(scripts: ReadonlyMap<string, string>): Scripts & { readonly text: string } {
  const parts: Record<string, [start: number, length: number]> = {};
  let text = "";
  let start = 0;
  for (const [part, script] of scripts) {
    new Script(script, { filename: part });
    const length = Buffer.byteLength(script);
    parts[part] = [start, length];
    text += `${script}\n`;
    start += length + 1;
  }
  // Cached code is found by the name, so the name depends on all of the text.
  const hash = createHash("sha256").update(text).digest("hex").slice(0, 16);
  return { file: `scripts-${hash}.cjs`, parts, text };
}

/** Returns the key of a source file ("workspace-save:look.ts"), a package ("./valibot-X.cjs") or a built-in module. */
export function keyOf(file: string, packages: PackageScripts): string {
  if (!file.startsWith("src/")) return packages.has(file) ? `./${packages.get(file)}` : file;
  const [room = "", folder = "", ...rest] = file.slice("src/".length).split("/");
  if (folder === "") return `floor:${room}`;
  return rest.length === 0 ? `${room}:${folder}` : `${room}-${folder}:${rest.join("/")}`;
}

function textOf(module: Module, modules: Modules, packages: PackageScripts): string {
  const { file, imports, exported, body } = module;
  const required = (name: string): string => `__require(${JSON.stringify(keyOf(name, packages))})`;
  const lines: string[] = [];
  for (const each of imports) {
    if (each.whole !== null && each.names!.length > 0)
      throw new Error(`${file} has what no script can have: ${each.from} as ${each.whole} and by another name`);
    if (each.whole !== null) lines.push(`const ${each.whole} = ${required(each.from)};`);
    else if (each.isExport) {
      const names = each.names ?? exportsOf(each.from, modules).map((name) => [name, name] as const);
      for (const [theirs, here] of names) lines.push(passed(here, required(each.from), theirs));
    } else if (each.names!.length === 0) lines.push(`${required(each.from)};`);
    else lines.push(...bindings(module, each, modules, required));
  }
  // An exported import is passed on when it is asked for.
  const passedOn = new Map(
    imports.flatMap((each) =>
      each.isExport ? [] : (each.names ?? []).map((name) => [name[1], { each, theirs: name[0] }] as const),
    ),
  );
  for (const [here, as] of exported) {
    const other = passedOn.get(here);
    if (other !== undefined) lines.push(passed(as, required(other.each.from), other.theirs));
  }
  const left = /^(?:import|export)\b.*$/m.exec(body);
  if (left !== null) throw new Error(`${file} has what no script can have: ${left[0].slice(0, 100)}`);
  const text = body
    .replaceAll("import.meta.url", "__url")
    .replaceAll(DYNAMIC_IMPORT, (_call, name: string) => `Promise.resolve().then(() => ${required(from(file, name))})`);
  const given = exported.filter(([here]) => !passedOn.has(here)).map(([here, as]) => `exports.${as} = ${here};\n`);
  return `${lines.join("\n")}\n${text}${given.join("")}`;
}

function passed(as: string, required: string, theirs: string): string {
  return `Object.defineProperty(exports, "${as}", { enumerable: true, configurable: true, get: () => ${required}.${theirs} });`;
}

/**
 * Binds imported names. A function that is only called, or a class that is only constructed, is bound by its first use; the
 * others at once.
 */
function bindings(
  module: Module,
  { names, from: other, alias }: Import,
  modules: Modules,
  required: (name: string) => string,
): string[] {
  const atOnce: string[] = [];
  const lines: string[] = [];
  for (const [theirs, here] of names!) {
    // The module only passes the name on.
    if (!new RegExp(`${NOT_BEFORE}${here.replaceAll("$", "\\$")}(?![\\w$])`).test(module.body)) continue;
    if (theirs === "default" && other.startsWith("node:")) lines.push(`const ${here} = ${required(other)};`);
    else if (isFunction(other, theirs, modules) && isOnlyCalled(module.commonJs, alias, theirs))
      lines.push(`let ${here} = (...$) => (${here} = ${required(other)}.${theirs})(...$);`);
    else if (isOnlyConstructed(module.commonJs, alias, theirs))
      lines.push(`let ${here} = function (...$) { return new (${here} = ${required(other)}.${theirs})(...$); };`);
    else atOnce.push(theirs === here ? theirs : `${theirs}: ${here}`);
  }
  if (atOnce.length > 0) lines.unshift(`const { ${atOnce.join(", ")} } = ${required(other)};`);
  return lines;
}

function isOnlyCalled(commonJs: string, alias: string, name: string): boolean {
  return isOnlyUsed(commonJs, alias, name, (member) => `\\(0, ${member}\\)\\(`);
}

function isOnlyConstructed(commonJs: string, alias: string, name: string): boolean {
  return isOnlyUsed(commonJs, alias, name, (member) => `\\bnew ${member}\\(`);
}

function isOnlyUsed(commonJs: string, alias: string, name: string, so: (member: string) => string): boolean {
  const member = `\\b${alias.replaceAll("$", "\\$")}\\d*\\.${name.replaceAll("$", "\\$")}\\b`;
  const uses = [...commonJs.matchAll(new RegExp(member, "g"))].length;
  return uses > 0 && uses === [...commonJs.matchAll(new RegExp(so(member), "g"))].length;
}

/** True if the module declares `name` as a function, or passes another module's function on. */
function isFunction(file: string, name: string, modules: Modules): boolean {
  if (file.startsWith("node:"))
    return typeof (process.getBuiltinModule(file) as Record<string, unknown>)[name] === "function";
  const module = modules.get(file);
  if (module === undefined) return false;
  const own = module.exported.find(([, as]) => as === name);
  if (own !== undefined && module.functions.has(own[0])) return true;
  for (const { isExport, names, from: other } of module.imports) {
    const given =
      names === null
        ? exportsOf(other, modules).includes(name) && name
        : names.find(([, here]) => here === (isExport ? name : own?.[0]))?.[0];
    if (given) return isFunction(other, given, modules);
  }
  return false;
}

/** Returns the names that a source file exports. */
export function exportsOf(file: string, modules: Modules): string[] {
  const { exported, imports } = modules.get(file)!;
  const passedOn = imports.filter(({ isExport }) => isExport);
  return [
    ...exported.map(([, as]) => as),
    ...passedOn.flatMap(({ names, from: other }) => names?.map(([, as]) => as) ?? exportsOf(other, modules)),
  ];
}
