import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { gzipSync } from "node:zlib";
import { build } from "vite";

const WEB = path.resolve(import.meta.dirname, "../web");
const TEXT = /\.(?:html|js|css|svg)$/;

/** Builds the page of `cairn ui` into a folder, each text compressed. Resolves with the files of packages in it. */
export async function buildPage(outDir: string): Promise<Record<string, object>> {
  const packages: Record<string, object> = {};
  await build({
    root: WEB,
    configFile: path.join(WEB, "vite.config.ts"),
    logLevel: "warn",
    // On a slow machine the bundler would warn of the time that plugins take.
    build: { outDir, rolldownOptions: { checks: { bundlerTimings: false } } },
    plugins: [
      {
        name: "packages",
        generateBundle(_options, made) {
          for (const each of Object.values(made))
            for (const id of each.type === "chunk" ? each.moduleIds : [])
              if (id.includes("/node_modules/")) packages[path.relative(path.dirname(WEB), id)] = {};
        },
      },
    ],
  });
  for (const name of readdirSync(outDir, { recursive: true, encoding: "utf8" }).filter((each) => TEXT.test(each))) {
    const file = path.join(outDir, name);
    writeFileSync(`${file}.gz`, gzipSync(readFileSync(file), { level: 9 }));
    rmSync(file);
  }
  return packages;
}
