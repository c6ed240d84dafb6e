import { existsSync, globSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";

/**
 * Writes src/verbs/schemas.ts and each group's index from the files of the verbs; `--check` only compares. It runs before
 * generate-docs.ts, which loads both.
 */

const ROOT = path.resolve(import.meta.dirname, "../src/verbs");

function exported(names: readonly string[], file: string): string {
  const line = `export { ${names.join(", ")} } from "./${file}";\n`;
  return line.length <= 121 ? line : `export {\n${names.map((name) => `  ${name},\n`).join("")}} from "./${file}";\n`;
}

/** Returns the index.ts of each group, with every verb and schema that a file of the folder exports, and schemas.ts. */
async function verbIndexes(): Promise<Record<string, string>> {
  const indexes: Record<string, string> = {};
  let doors = "/** Schemas that the files of the verbs have, for other rooms. */\n";
  for (const index of globSync("*/index.ts", { cwd: ROOT }).toSorted()) {
    const folder = path.join(ROOT, path.dirname(index));
    const schemas: string[] = [];
    indexes[index] = `${readFileSync(path.join(ROOT, index), "utf8").split("\n", 1)[0]!}\n`;
    for (const file of readdirSync(folder).toSorted()) {
      if (!file.endsWith(".ts") || /\.(?:test|run)\.ts$/.test(file) || file === "index.ts") continue;
      const found = Object.entries((await import(path.join(folder, file))) as Readonly<Record<string, object>>);
      const own = found.filter(([name, each]) => /^[A-Z]/.test(name) && "kind" in each).map(([name]) => name);
      const verbs = found.filter(([, each]) => "takes" in each && "output" in each).map(([name]) => name);
      if (own.length + verbs.length > 0) indexes[index] += exported([...own, ...verbs], file);
      schemas.push(...own);
    }
    if (schemas.length > 0) doors += exported(schemas, index);
  }
  return { ...indexes, "schemas.ts": doors };
}

for (const [name, wanted] of Object.entries(await verbIndexes())) {
  const file = path.join(ROOT, name);
  if (existsSync(file) && readFileSync(file, "utf8") === wanted) continue;
  if (process.argv.includes("--check")) {
    console.log(`src/verbs/${name} is not what the verbs say: run \`npm run docs\``);
    process.exitCode = 1;
  } else {
    writeFileSync(file, wanted);
  }
}
