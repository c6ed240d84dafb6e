import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";
import { build } from "vite";

const WEB = path.resolve(import.meta.dirname, "../web");
const TEXT = /\.(?:html|js|css|svg)$/;

/** Builds the page of `cairn ui` into a folder, each text beside its compressed forms. Resolves with the files of packages in it. */
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
    const text = readFileSync(file);
    writeFileSync(`${file}.gz`, gzipSync(text, { level: 9 }));
    writeFileSync(
      `${file}.br`,
      brotliCompressSync(text, { params: { [constants.BROTLI_PARAM_SIZE_HINT]: text.length } }),
    );
  }
  return packages;
}
