import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { browserDeclarations, contractDeclarations } from "./print-declarations.ts";

const ROOT = path.resolve(import.meta.dirname, "..");

/** Interfaces as the compiler would emit them, without the members that are no verbs. */
const EMITTED = ["Client", "CairnLibrary", "BackupRepository"]
  .map((name) => `export interface ${name} {\n}\n`)
  .join("");

test("every module whose types the package exports is in the list of names", () => {
  const modules = (file: string, pattern: RegExp): string[] =>
    [...readFileSync(path.join(ROOT, "src", file), "utf8").matchAll(pattern)].map(([, name]) => name!).toSorted();
  assert.deepEqual(
    modules("verbs/names.ts", /^import \* as \w+ from "\.\.\/contract\/([\w-]+)\.ts"/gm),
    modules("contract/index.ts", /^export type \* from "\.\/([\w-]+)\.ts"/gm),
  );
});

test("the package's declarations export every type that they name", () => {
  const printed = contractDeclarations(EMITTED);
  const known = new Set([...printed.matchAll(/^export (?:interface|type) (\w+)/gm)].map(([, name]) => name!));
  const builtIn = new Set(
    "AbortSignal AsyncIterable Buffer ControlId ErrorCode Promise Readonly Record SavePointId Uint8Array WorkspaceId".split(
      " ",
    ),
  );
  const code = printed.replaceAll(/\/\*\*[^]*?\*\//g, "").replaceAll(/"[^"]*"/g, "");
  const used = new Set([...code.matchAll(/(?<=[:<|(,] ?|extends )\b([A-Z]\w+)\b(?!\?|:)/g)].map(([, name]) => name!));
  assert.deepEqual(
    [...used].filter((name) => !known.has(name) && !builtIn.has(name)),
    [],
  );
});

test("the printed declarations equal the types of the schemas", (t) => {
  const folder = mkdtempSync(path.join(ROOT, ".runtime/printed-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const printed = contractDeclarations(EMITTED).replaceAll('.js"', '.ts"').replaceAll('"../', '"../../src/');
  writeFileSync(path.join(folder, "printed.d.ts"), printed);
  const names = [...printed.matchAll(/^export (?:interface|type) (\w+)/gm)]
    .map(([, name]) => name!)
    // Its verbs answer with the others.
    .filter((name) => name !== "CairnLibrary");
  assert.ok(names.length > 100);
  const lines = names.map((name) =>
    ["Client", "BackupRepository"].includes(name)
      ? `const of${name}: Same<{ [K in keyof P.${name}]: P.${name}[K] }, Pick<C.${name}, keyof P.${name}>> = true;`
      : `const of${name}: Same<P.${name}, C.${name}> = true;`,
  );
  const source = readFileSync(path.join(ROOT, "src/client-browser.ts"), "utf8");
  writeFileSync(
    path.join(folder, "browser.d.ts"),
    browserDeclarations(source).replaceAll(/"\.\/(.*)\.js"/g, '"../../src/$1.ts"'),
  );
  lines.push(
    "const calls: Same<B.VerbCalls, Pick<S.VerbCalls, keyof B.VerbCalls>> = true;",
    "const client: Same<B.About & B.TicketOptions, S.About & S.TicketOptions> = true;",
  );
  const modules = ["contract/index.ts", "verbs/schemas.ts"].map((file) => `export type * from "../../src/${file}";\n`);
  writeFileSync(path.join(folder, "types.ts"), modules.join(""));
  const check = `import type * as C from "./types.ts";\nimport type * as P from "./printed.d.ts";
import type * as B from "./browser.d.ts";\nimport type * as S from "../../src/client-browser.ts";
type Same<A, B> = [A] extends [B] ? ([B] extends [A] ? true : "narrower") : "wider";\n${lines.join("\n")}\n`;
  writeFileSync(path.join(folder, "check.ts"), check);
  const { compilerOptions } = JSON.parse(readFileSync(path.join(ROOT, "tsconfig.json"), "utf8")) as {
    compilerOptions: object;
  };
  const config = {
    compilerOptions: { ...compilerOptions, typeRoots: [path.join(ROOT, "node_modules/@types")] },
    files: ["check.ts", "../../src/verbs/index.ts"],
  };
  writeFileSync(path.join(folder, "tsconfig.json"), JSON.stringify(config));
  const ran = spawnSync(process.execPath, [path.join(ROOT, "node_modules/typescript/bin/tsc"), "-p", folder], {
    encoding: "utf8",
  });
  assert.equal(ran.stdout, "");
});
