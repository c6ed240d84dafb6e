import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import path from "node:path";
import { test } from "node:test";
import { SCHEMAS } from "../../src/verbs/names.ts";
import { CLIENT_VERBS, LIBRARY_VERBS, REPOSITORY_VERBS } from "../../src/verbs/index.ts";
import { VERSION } from "../../src/formats/program.ts";
import { Clone, type Outcome, registryAnswers } from "./clone.ts";

const ROOT = path.resolve(import.meta.dirname, "../..");

/** Bytes of the core: of its download, and of its files. */
const MOST_BYTES = { packed: 2_050_000, unpacked: 7_800_000 };

interface Packed {
  filename: string;
  version: string;
  /** Bytes of the file that is downloaded. */
  size: number;
  unpackedSize: number;
  files: { path: string }[];
}

interface Manifest {
  peerDependencies: Record<string, string>;
}

/** Starts a registry that has the packed package, and sends npm to `upstream` for all others. Its address is `url`. */
async function registryWith(
  archive: string,
  manifest: object,
  upstream: string,
): Promise<AsyncDisposable & { url: string }> {
  const bytes = readFileSync(archive);
  const integrity = `sha512-${createHash("sha512").update(bytes).digest("base64")}`;
  const server = createServer((request, response) => {
    const { url = "/" } = request;
    const tarball = `http://${request.headers.host}/cairnstate.tgz`;
    const versions = { [VERSION]: { ...manifest, dist: { tarball, integrity } } };
    if (url === "/cairnstate")
      response.end(JSON.stringify({ name: "cairnstate", "dist-tags": { latest: VERSION }, versions }));
    else if (url === "/cairnstate.tgz") response.end(bytes);
    else response.writeHead(302, { location: new URL(url.slice(1), upstream).href }).end();
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  return { url: `http://127.0.0.1:${port}/`, [Symbol.asyncDispose]: async () => void server.close() };
}

test(
  "the npm package has only what a user needs, and works after an installation elsewhere",
  { timeout: 300_000 },
  async (t) => {
    if (!registryAnswers()) return t.skip("the npm registry cannot be reached");
    using clone = new Clone();
    assert.equal(clone.run(clone.launcher, ["--version"]).stdout.trim(), VERSION);
    const pack = (...more: string[]): Packed => {
      const args = ["pack", "--json", "--silent", "--pack-destination", clone.scratch, ...more];
      const packed = clone.run("npm", args, { cwd: clone.folder });
      assert.equal(packed.status, 0, packed.stderr);
      const [made] = JSON.parse(packed.stdout.slice(packed.stdout.indexOf("["))) as Packed[];
      assert.ok(made !== undefined);
      return made;
    };
    const [tarball, model] = [pack(), pack("-w", "cairnstate-model")];
    const names = tarball.files.map((file) => file.path);

    await t.test("the package has only code, types, man pages, docs and licences", () => {
      for (const name of [
        "LICENSE",
        "README.md",
        "package.json",
        "dist/cli.js",
        "dist/index.cjs",
        "dist/client-browser.js",
        "dist/index.js",
        "dist/types/client-browser.d.ts",
        "dist/types/index.d.ts",
        "dist/man/cairn.1",
        "dist/openapi.json",
        "dist/man/cairn-backup-create.1",
        "docs/json.md",
        "dist/THIRD-PARTY-LICENSES.txt",
      ]) {
        assert.ok(names.includes(name), name);
      }
      const others = names.filter(
        (name) =>
          !/^dist\/[\w.-]+\.c?js$|^dist\/types\/.*\.d\.ts$|^dist\/man\/[\w-]+\.1$|^dist\/openapi\.json$|^dist\/page\/(?:assets\/)?[\w.-]+$|^dist\/(?:THIRD-PARTY)|^docs\/|^(?:LICENSE|(?:CHANGELOG|README|SECURITY)\.md|package\.json)$/.test(
            name,
          ),
      );
      assert.deepEqual(others, []);
      assert.deepEqual(
        names.filter((name) => /test/.test(name)),
        [],
      );
      t.diagnostic(`the core has ${tarball.size} bytes, ${tarball.unpackedSize} unpacked`);
      assert.ok(tarball.size <= MOST_BYTES.packed && tarball.unpackedSize <= MOST_BYTES.unpacked);
    });

    await t.test("the package of the model has Cairn's version, the model and its licence", () => {
      assert.equal(model.version, VERSION);
      const manifest = JSON.parse(readFileSync(path.join(clone.folder, "package.json"), "utf8")) as Manifest;
      assert.deepEqual(manifest.peerDependencies, { "cairnstate-model": VERSION });
      assert.deepEqual(model.files.map((file) => file.path).toSorted(), [
        "LICENSE",
        "NOTICE",
        "README.md",
        "package.json",
        "static-minilm-256.zst",
      ]);
    });

    const home = path.join(clone.scratch, "consumer");
    mkdirSync(home);
    writeFileSync(path.join(home, "package.json"), '{"name":"consumer","private":true,"type":"module"}');
    const archive = path.join(clone.scratch, tarball.filename);
    const node = path.join(clone.folder, ".runtime/bin");
    const env = { PATH: `${node}:${clone.environment()["PATH"]}` };
    const npm = (...args: string[]): void => {
      const options = ["--ignore-scripts", "--no-audit", "--no-fund"];
      const done = clone.run("npm", ["install", ...options, ...args], { cwd: home, env });
      assert.equal(done.status, 0, done.stderr);
    };
    npm(archive);
    const prefix = path.join(clone.scratch, "global");
    const forAll = ["-g", "--prefix", prefix];

    await t.test("a global installation brings the man pages of all commands", () => {
      npm(...forAll, archive);
      const pages = names.filter((name) => name.startsWith("dist/man/")).map((name) => path.basename(name));
      assert.deepEqual(readdirSync(path.join(prefix, "share/man/man1")).toSorted(), pages.toSorted());
    });

    await t.test(
      "a context store is searched by words, and also by meaning if the package of the model is installed",
      () => {
        const commands = [path.join(home, "node_modules/.bin/cairn"), path.join(prefix, "bin/cairn")];
        const run = (command: string, ...args: string[]): Outcome => {
          const done = clone.run(command, args, { env, cwd: home });
          assert.equal(done.status, 0, done.stderr);
          return done;
        };
        const places = ["in the project", "for all"];
        const stores = places.map((name) => ["-C", path.join(home, name), "context"]);
        writeFileSync(path.join(home, "bread.md"), "The sourdough starter is fed with flour and water.\n");
        for (const [at, command] of commands.entries()) {
          assert.match(run(command, "context", "init", places[at]!).stderr, /npm install -g cairnstate-model/);
          run(command, ...stores[at]!, "add", "viking://resources/bread.md", path.join(home, "bread.md"));
          const { stdout, stderr } = run(command, ...stores[at]!, "find", "leaven or flour");
          assert.match(stdout, /bread\.md/);
          assert.match(stderr, /npm install -g cairnstate-model/);
          assert.match(run(command, ...stores[at]!, "find", "leaven for baking").stdout, /nothing was found/);
        }
        npm(path.join(clone.scratch, model.filename));
        npm(...forAll, path.join(clone.scratch, model.filename));
        for (const [at, command] of [clone.launcher, ...commands].entries()) {
          const { stdout, stderr } = run(
            command,
            ...stores[at % 2]!,
            "find",
            "leaven for baking",
            "--mode",
            "semantic",
          );
          assert.match(stdout, /bread\.md/);
          assert.equal(stderr, "");
        }
      },
    );

    await t.test("the installed command answers", () => {
      const outcome = clone.run(path.join(home, "node_modules/.bin/cairn"), ["--version"], { env, cwd: home });
      assert.equal(outcome.stdout.trim(), VERSION, outcome.stderr);
    });

    await t.test("the installed command saves and restores a folder", () => {
      const folder = path.join(clone.scratch, "work");
      mkdirSync(folder);
      writeFileSync(path.join(folder, "a.txt"), "one");
      const cairn = path.join(home, "node_modules/.bin/cairn");
      for (const args of [
        ["init", folder, "--control-dir", path.join(clone.scratch, "control")],
        ["save", folder],
      ]) {
        const outcome = clone.run(cairn, args, { env, cwd: home });
        assert.equal(outcome.status, 0, outcome.stderr);
      }
      writeFileSync(path.join(folder, "a.txt"), "two");
      const outcome = clone.run(cairn, ["-C", folder, "restore", "latest"], { env, cwd: home });
      assert.equal(outcome.status, 0, outcome.stderr);
      assert.equal(readFileSync(path.join(folder, "a.txt"), "utf8"), "one");
    });

    const uses = [
      ["--input-type=module", "--eval", 'console.log(typeof (await import("cairnstate")).openOrInit)'],
      ["--input-type=commonjs", "--eval", 'console.log(typeof require("cairnstate").openOrInit)'],
      ["--input-type=module", "--eval", 'console.log(typeof (await import("cairnstate/client")).connect)'],
    ];
    await t.test("the library can be imported and required", () => {
      for (const use of uses) {
        const outcome = clone.run("node", use, { env, cwd: home });
        assert.equal(outcome.stdout.trim(), "function", outcome.stderr);
      }
      const same = `import { CairnError } from "cairnstate"; import { CairnError as its } from "cairnstate/client"; console.log(CairnError === its)`;
      const outcome = clone.run("node", ["--input-type=module", "--eval", same], { env, cwd: home });
      assert.equal(outcome.stdout.trim(), "true", outcome.stderr);
    });

    await t.test("the library names the Node version it needs if an older Node imports it", (older) => {
      const old = clone.run("node", ["--version"]).stdout.trim().slice(1);
      if (Number.parseInt(old, 10) >= 24) return older.skip("the machine's own Node is new enough");
      const withoutModules = Number.parseInt(old, 10) < 20 ? [] : [["--no-experimental-require-module", ...uses[1]!]];
      for (const use of [...uses, ...withoutModules]) {
        const { status, stderr } = clone.run("node", use, { cwd: home });
        assert.equal(status, 1);
        assert.ok(stderr.includes(`Error: cairnstate: Node 24 or newer is needed, this is ${old} (`), stderr);
      }
    });

    await t.test(
      "npm and npx install the command into a clean home, and an older Node prints one line",
      async (npx) => {
        const manifest = JSON.parse(readFileSync(path.join(clone.folder, "package.json"), "utf8")) as object;
        await using registry = await registryWith(archive, manifest, clone.environment()["npm_config_registry"]!);
        const clean = path.join(clone.scratch, "clean");
        mkdirSync(clean);
        const forHome = { HOME: clean, npm_config_registry: registry.url, npm_config_update_notifier: "false" };
        const run = async (program: string, args: string[], more = {}): Promise<Outcome> =>
          clone.start(program, args, { env: { ...forHome, ...more }, cwd: clean }).outcome;
        const brought = await run("npx", ["--yes", "cairnstate", "--version"], env);
        assert.deepEqual([brought.status, brought.stdout.trim()], [0, VERSION], brought.stderr);
        const installed = await run("npm", ["install", "-g", "--prefix", path.join(clean, "npm"), "cairnstate"], env);
        assert.equal(installed.status, 0, installed.stderr);
        const onPath = (name: string): string => `${path.join(clean, "npm/bin")}:${name}`;
        const answered = await run("cairn", ["--version"], { PATH: onPath(env.PATH) });
        assert.equal(answered.stdout.trim(), VERSION, answered.stderr);

        const old = clone.run("node", ["--version"]).stdout.trim().slice(1);
        if (Number.parseInt(old, 10) >= 24) return npx.skip("the machine's own Node is new enough");
        const path20 = clone.environment()["PATH"]!;
        for (const [program, ...args] of [
          ["npx", "--yes", "cairnstate", "--version"],
          ["cairn", "save"],
        ] as const) {
          const { status, stdout, stderr } = await run(program, args, { PATH: onPath(path20) });
          const lines = stderr
            .trim()
            .split("\n")
            .filter((line) => !line.startsWith("npm "));
          assert.deepEqual([status, stdout, lines.length], [2, "", 1], stderr);
          assert.match(
            lines[0]!,
            /^cairn: Node 24 or newer is needed, this is \d+\.\d+\.\d+ \(.*\): install it from https:.*archive/,
          );
        }
      },
    );

    await t.test("man finds the pages of an installation on the path", (man) => {
      if (spawnSync("man", ["--version"]).error !== undefined) return man.skip("man is not installed");
      for (const page of ["cairn", "cairn-backup-use"]) {
        const found = clone.run("man", ["-w", page], { env: { PATH: `${prefix}/bin:/usr/bin:/bin` } });
        assert.equal(path.basename(found.stdout.trim()), `${page}.1`, found.stderr);
      }
    });

    await t.test("TypeScript finds the library's types under strict settings", () => {
      const program =
        'import { openOrInit, type SavePoint } from "cairnstate";\nimport { connect } from "cairnstate/client";\nexport type P = SavePoint;\nconsole.log(typeof openOrInit);\nexport const made = async (): Promise<P> => (await connect({ socket: "/s" }).open("/a")).save();\nexport const told = async (): Promise<string | undefined> => {\n  for await (const event of connect().events({ types: ["save"] })) if (event.type === "save") return event.data.save_point_id;\n  return (await connect().jobs()).next ?? undefined;\n};\n';
      // Each type by its name, and each verb by what it takes and gives.
      const verbs = Object.entries({
        Client: CLIENT_VERBS,
        CairnLibrary: LIBRARY_VERBS,
        BackupRepository: REPOSITORY_VERBS,
      });
      const types = [...Object.keys(SCHEMAS), "BackupRepository", "CairnLibrary", "Client"];
      const named = [
        `import type { ${types.join(", ")} } from "cairnstate";`,
        `export type All = [${types.join(", ")}];`,
        ...verbs.flatMap(([table, each]) =>
          Object.keys(each).map(
            (verb) =>
              `export type ${table}_${verb} = [Parameters<${table}["${verb}"]>, ReturnType<${table}["${verb}"]>];`,
          ),
        ),
      ];
      writeFileSync(path.join(home, "use.ts"), program);
      writeFileSync(path.join(home, "names.ts"), named.join("\n"));
      const outcome = clone.run("node", ["use.ts"], { env, cwd: home });
      assert.equal(outcome.stdout.trim(), "function", outcome.stderr);
      const options = { strict: true, skipLibCheck: false, module: "nodenext", target: "es2024", noEmit: true };
      const forNode = { lib: ["es2024"], types: ["node"], typeRoots: [path.join(ROOT, "node_modules/@types")] };
      // With what TypeScript itself brings, and with Node's types in place of the DOM's.
      for (const more of [{ types: [] }, forNode]) {
        const config = { compilerOptions: { ...options, ...more }, files: ["use.ts", "names.ts"] };
        writeFileSync(path.join(home, "tsconfig.json"), JSON.stringify(config));
        const checked = clone.run("node", [path.join(ROOT, "node_modules/typescript/bin/tsc"), "-p", home], { env });
        assert.equal(checked.status, 0, checked.stdout);
      }
    });
  },
);
