/**
 * Turns a bundled package, or a part that packages share, into a script for src/load-script.ts; link.ts does that with
 * the sources. Understands only esbuild's output: imports first, one list of exports last. Each import is a constant,
 * as fast as a module's own variable. So no export may be assigned later (`checkConstantExports`), and scripts may not
 * import each other (`checkAcyclic`).
 */

const IMPORT = /^import (?:\{([^}]*)\} from )?"\.\/([\w.-]+)\.js";\n/gm;
const EXPORTS = /^export \{([^}]*)\};\n?$/m;

/**
 * Throws if a source file, called `file` in the error, exports a variable: importers would keep its first value. Enums
 * and namespaces of TypeScript are allowed, because their value is complete once their file has run.
 */
export function checkConstantExports(source: string, file: string): void {
  const filled = source.replaceAll(/^export var ([\w$]+);\n\(function \(\1\) \{$/gm, "");
  const variable = /^\s*export\s+(?:declare\s+)?(?:let|var)\s+([\w$]+)/m.exec(filled);
  if (variable !== null)
    throw new Error(`${file} exports the variable ${variable[1]}; export a function that tells it`);
}

/** Returns a module's text as a script. Throws if the module has imports or exports of another form. */
export function scriptOf(text: string, name: string): string {
  const exported = [...(EXPORTS.exec(text)?.[1] ?? "").matchAll(/([\w$]+)(?: as ([\w$]+))?/g)];
  const body = text
    .replace(EXPORTS, () => exported.map(([, local, as = local]) => `exports.${as} = ${local};\n`).join(""))
    .replaceAll(IMPORT, (_line, names: string | undefined, from: string) =>
      names === undefined
        ? `require("./${from}.cjs");\n`
        : `const {${names.replaceAll(/([\w$]+) as ([\w$]+)/g, "$1: $2")}} = require("./${from}.cjs");\n`,
    );
  const left = /^(?:import|export)\b.*$|\bimport\(["'].*$/m.exec(body);
  if (left !== null) throw new Error(`${name} has what no script can have: ${left[0].slice(0, 100)}`);
  return `(function (require, exports) {"use strict";${body}\n})`;
}

/** Throws if modules of a bundle import each other. `imports`: the imported modules by module. */
export function checkAcyclic(imports: ReadonlyMap<string, readonly string[]>): void {
  const done = new Set<string>();
  const visit = (name: string, above: readonly string[]): void => {
    if (above.includes(name)) throw new Error(`scripts import each other: ${[...above, name].join(", ")}`);
    if (done.has(name)) return;
    for (const other of imports.get(name) ?? []) visit(other, [...above, name]);
    done.add(name);
  };
  for (const name of imports.keys()) visit(name, []);
}
