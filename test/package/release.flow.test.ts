import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { VERSION } from "../../src/formats/program.ts";
import { LONG } from "../fixtures/long.ts";
import { Clone, type Outcome, registryAnswers } from "./clone.ts";

const ARCHITECTURE = process.arch;
const NAME = `cairn-${VERSION}-linux-${ARCHITECTURE}`;

/** Copies the libraries that a program is linked with into a root. */
function bringLibraries(root: string, program: string): void {
  const linked = spawnSync("ldd", [program], { encoding: "utf8" }).stdout;
  for (const [library] of linked.matchAll(/\/\S+(?= \()/g)) bring(root, library, library);
}

function bring(root: string, file: string, to: string): void {
  const target = path.join(root, to);
  mkdirSync(path.dirname(target), { recursive: true });
  if (!existsSync(target)) copyFileSync(realpathSync(file), target);
}

/** Runs a line of the shell in a root that has nothing but `/dev`, `/proc` and what was brought into it. */
function runIn(root: string, line: string): Outcome {
  const script = `for each in dev proc; do mkdir -p "$0/$each" && mount --rbind "/$each" "$0/$each" || exit 99; done
PATH=/usr/local/bin:/bin
exec /usr/sbin/chroot "$0" /bin/sh -c "$1"`;
  const env = { PATH: "/usr/bin:/bin", HOME: "/home", NO_COLOR: "1" };
  return spawnSync("unshare", ["--mount", "/bin/sh", "-c", script, root, line], { encoding: "utf8", env });
}

function whyNoRoot(): string | null {
  if (process.geteuid?.() !== 0) return "needs root";
  const { status } = spawnSync("unshare", ["--mount", "mount", "--rbind", "/dev", "/dev"], { stdio: "ignore" });
  return status === 0 ? null : "nothing can be mounted here";
}

test(
  "a release archive works on a machine without Node, and equal sources give equal bytes",
  { timeout: 600_000 },
  async (t) => {
    if (!LONG)
      return t.skip("takes three minutes, and pack.flow.test.ts installs the same packages; CAIRN_TEST_LONG=1 runs it");
    if (!registryAnswers()) return t.skip("the npm registry cannot be reached");
    using clone = new Clone();
    const env = { SOURCE_DATE_EPOCH: "1790000000" };
    const make = (): string => {
      const made = clone.run("npm", ["run", "--silent", "release", "--", "--arch", ARCHITECTURE], {
        cwd: clone.folder,
        env,
      });
      assert.equal(made.status, 0, made.stderr);
      return readFileSync(path.join(clone.folder, "release/SHA256SUMS"), "utf8");
    };
    const sums = make();
    const release = path.join(clone.folder, "release");
    const archive = path.join(release, `${NAME}.tar.gz`);
    const at = (...names: string[]): string => path.join(clone.scratch, NAME, ...names);

    await t.test("SHA256SUMS lists the archive and both packages", () => {
      assert.deepEqual(
        sums
          .trim()
          .split("\n")
          .map((line) => line.slice(66)),
        [`${NAME}.tar.gz`, `cairnstate-${VERSION}.tgz`, `cairnstate-model-${VERSION}.tgz`],
      );
      assert.equal(clone.run("sha256sum", ["--check", "--strict", "SHA256SUMS"], { cwd: release }).status, 0);
      assert.ok(sums.includes(createHash("sha256").update(readFileSync(archive)).digest("hex")));
    });

    await t.test("the archive has only the command, man pages, licences and the folded changelog", () => {
      assert.equal(clone.run("tar", ["-xzf", archive], { cwd: clone.scratch }).status, 0);
      const listed = (...names: string[]): string[] => readdirSync(at(...names)).toSorted();
      assert.deepEqual(listed(), [
        "CHANGELOG.md",
        "LICENSE",
        "README.md",
        "SECURITY.md",
        "bin",
        "docs",
        "lib",
        "licences",
        "share",
      ]);
      assert.deepEqual(
        [listed("bin"), listed("lib"), listed("share", "man")],
        [["cairn"], ["node", "node_modules"], ["man1"]],
      );
      const modules = listed("lib/node_modules");
      const wanted = ["@koromix", "cairnstate", "cairnstate-model", "koffi", "smol-toml", "sqlite-vec", "yauzl"];
      assert.deepEqual(
        wanted.filter((name) => !modules.includes(name)),
        [],
      );
      assert.ok(!modules.includes("typescript") && !existsSync(at("lib/node_modules/cairnstate/dist/types")));
      for (const name of ["cairn.1", "cairn-backup-use.1"]) assert.ok(existsSync(at("share/man/man1", name)), name);
      const licences = readFileSync(at("licences/packages.txt"), "utf8");
      for (const name of modules.filter((each) => !each.startsWith("@") && each !== "cairnstate"))
        assert.match(licences, new RegExp(`^${name} [\\d.]+ \\(`, "m"));
      for (const name of ["node.txt", "bundled.txt"])
        assert.ok(readFileSync(at("licences", name), "utf8").length > 1000);
      const fragments = path.join(clone.folder, "changelog/unreleased");
      const changes = readFileSync(at("CHANGELOG.md"), "utf8");
      for (const name of readdirSync(fragments).filter((each) => each !== "README.md")) {
        const [first] = readFileSync(path.join(fragments, name), "utf8").split("\n");
        assert.ok(changes.includes(`- ${first}`), name);
      }
      // What would differ between two machines.
      const entries = clone.run("tar", ["-tvzf", archive, "--full-time", "--utc"]).stdout.trim().split("\n");
      const fields = entries.map((line) => line.split(/\s+/));
      const same = fields.map(([mode, owner, , date, time]) => `${mode!.slice(1)} ${owner} ${date} ${time}`);
      const either = ["rw-r--r--", "rwxr-xr-x"].map((mode) => `${mode} 0/0 2026-09-21 14:13:20`);
      assert.deepEqual([...new Set(same)].toSorted(), either);
    });

    await t.test(
      "the archive's command saves, restores and hooks an agent in a root without Node, even through a link",
      (inRoot) => {
        const why = whyNoRoot();
        if (why !== null) return inRoot.skip(why);
        const root = path.join(clone.scratch, "root");
        for (const name of ["tmp", "home/work", "opt", "usr/local/bin"])
          mkdirSync(path.join(root, name), { recursive: true });
        bring(root, "/bin/sh", "/bin/sh");
        bring(root, "/usr/bin/readlink", "/bin/readlink");
        // Beside libc Node needs the library of C++, which apt brings to each Debian.
        for (const each of ["/bin/sh", "/usr/bin/readlink", at("lib/node")]) bringLibraries(root, each);
        cpSync(at(), path.join(root, "opt/cairn of ann"), { recursive: true });
        symlinkSync("../../../opt/cairn of ann/bin/cairn", path.join(root, "usr/local/bin/cairn"));
        writeFileSync(path.join(root, "home/work/letter"), "dear Ben");
        const began = performance.now();
        const ran = runIn(
          root,
          `command -v node && exit 98
        cd /home/work && cairn save && cairn agent install claude-code && echo 'dear Cleo' > letter && cairn restore head letter`,
        );
        inRoot.diagnostic(`a point, a hooked agent and a restore after ${Math.round(performance.now() - began)} ms`);
        assert.equal(ran.status, 0, ran.stdout + ran.stderr);
        assert.match(ran.stdout, /checked: a hook saved this folder/);
        assert.equal(readFileSync(path.join(root, "home/work/letter"), "utf8"), "dear Ben");
        const direct = runIn(root, "cd '/opt/cairn of ann/bin' && ./cairn --version && sh cairn --version");
        assert.equal(direct.stdout, `${VERSION}\n${VERSION}\n`, direct.stderr);
        // Native packages and the model.
        const found = runIn(
          root,
          `cd /home && cairn context init notes && cairn -C notes context add viking://resources/letter.md work/letter && cairn -C notes context find epistle --mode semantic`,
        );
        assert.match(found.stdout, /letter\.md/, found.stderr);
      },
    );

    await t.test("a second release of the same sources has the same bytes", () => {
      assert.equal(make(), sums);
    });
  },
);
