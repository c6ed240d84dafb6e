import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { buildCommand, cairn, cairnOk, SCRATCH } from "../fixtures/command.ts";

/** A state that travels as a directory: written, copied, proven, and made a workspace again. */

let count = 0;
const fresh = (name: string): string => path.join(SCRATCH, `${name}-${count++}`);

/** A folder with what a plain copy loses easily, and a point of it. */
function newWorkspace(): string {
  const folder = fresh("folder");
  fs.mkdirSync(path.join(folder, "deep/empty"), { recursive: true });
  fs.writeFileSync(path.join(folder, "a.txt"), "alpha\n");
  fs.linkSync(path.join(folder, "a.txt"), path.join(folder, "deep/hard"));
  fs.symlinkSync("../a.txt", path.join(folder, "deep/link"));
  fs.writeFileSync(Buffer.concat([Buffer.from(`${folder}/`), Buffer.from([0xff, 0x62])]), "no UTF-8");
  fs.writeFileSync(path.join(folder, "sparse"), "");
  fs.truncateSync(path.join(folder, "sparse"), 8 << 20);
  fs.chmodSync(path.join(folder, "deep"), 0o700);
  cairnOk(["save", folder, "-m", "first"]);
  return folder;
}

function exported(): { folder: string; directory: string; digest: unknown } {
  const folder = newWorkspace();
  const directory = fresh("exported");
  const { data } = cairnOk(["export", "head", "--to", directory, "-C", folder]);
  return { folder, directory, digest: data["state_digest"] };
}

test("import and clone of an export directory give the same state, also from a copy of it", () => {
  const { directory, digest } = exported();
  const copy = fresh("copy");
  fs.cpSync(directory, copy, { recursive: true, preserveTimestamps: true, verbatimSymlinks: true });
  fs.chmodSync(path.join(copy, "content/deep"), 0o700);
  for (const [verb, from] of [
    ["import", directory],
    ["clone", directory],
    ["clone", copy],
  ] as const) {
    const to = fresh(verb);
    const { data } = cairnOk([verb, "--from", from, to]);
    assert.equal(data["state_digest"], digest);
    const { cause } = data["save_point"] as { cause: { kind: string; from?: { description: string } } };
    assert.deepEqual(
      [cause.kind, cause.from?.description],
      verb === "import" ? ["import", "first"] : ["clone", undefined],
    );
    assert.equal(cairnOk(["status", "-C", to]).data["clean"], true);
    if (from === copy) continue;
    assert.equal(fs.statSync(path.join(to, "a.txt")).ino, fs.statSync(path.join(to, "deep/hard")).ino);
    assert.ok(fs.statSync(path.join(to, "sparse")).blocks < 100);
  }
});

test("export refuses a path that is too long and suggests restore --to", () => {
  const folder = fresh("long");
  fs.mkdirSync(folder);
  const script = 'for (let i = 0; i < 22; i++) { fs.mkdirSync("d".repeat(200)); process.chdir("d".repeat(200)); }';
  execFileSync(process.execPath, ["-e", script], { cwd: folder });
  cairnOk(["save", folder]);
  const directory = fresh("exported");
  const { error, status, stdout } = cairn(["export", "head", "--to", directory, "-C", folder]);
  assert.deepEqual([error?.code, status, stdout.length < 1000], ["unsupported", 2, true], stdout);
  assert.match(error!.hint!, /restore POINT --to DIR/);
  assert.ok(!fs.existsSync(directory));
  cairnOk(["restore", "head", "--to", fresh("restored"), "-C", folder]);
});

test("export refuses a target inside its own workspace and names the target", () => {
  const folder = fresh("own");
  fs.mkdirSync(folder);
  cairnOk(["save", folder]);
  const inside = path.join(folder, "exported");
  const { error, status } = cairn(["export", "head", "--to", inside, "-C", folder]);
  assert.deepEqual([status, error?.message], [7, `${inside} lies inside the workspace`]);
  assert.deepEqual(fs.readdirSync(folder), []);
});

test("a tar file of an export unpacks to an export directory and imports with the same state", () => {
  const folder = newWorkspace();
  const [tar, directory] = [`${fresh("packed")}.tar`, fresh("unpacked")];
  const { data } = cairnOk(["export", "head", "--to", tar, "-C", folder]);
  assert.ok(fs.statSync(tar).size < 1 << 20, "holes are not packed");
  assert.equal(cairn(["export", "head", "--to", tar, "-C", folder]).error?.code, "already_exists");
  fs.mkdirSync(directory);
  execFileSync("tar", ["-xpf", tar, "-C", directory]);
  const made = fresh("made");
  for (const [option, from] of [
    ["--from", tar],
    ["--from", directory],
  ] as const)
    assert.equal(cairnOk(["import", option, from, fresh("made")]).data["state_digest"], data["state_digest"]);
  const bytes = fs.readFileSync(tar);
  const at = bytes.indexOf("alpha\n");
  for (const [spoilt, message] of [
    [bytes.subarray(0, at + 3), /is not a complete tar file/],
    [
      Buffer.from(bytes).fill("A", at, at + 1),
      /content\/a.txt of [^ ]*\.tar does not match its checksum in the envelope/,
    ],
    [Buffer.from("no tar"), /is not a complete tar file/],
  ] as const) {
    fs.writeFileSync(tar, spoilt);
    const done = cairn(["import", "--from", tar, made]);
    assert.equal(done.error?.code, "damaged");
    assert.match(done.error!.message, message);
  }
  assert.deepEqual(
    fs.readdirSync(path.dirname(tar)).filter((name) => name.startsWith(".cairn-tmp")),
    [],
  );
  assert.equal(cairn(["import", "--from", tar, "--from", directory, made]).error?.code, "usage");
});

test("clone refuses an export directory with a changed, missing or extra file and names the file", () => {
  const { directory } = exported();
  const refused = (code: string, name: RegExp): void => {
    const to = fresh("refused");
    const done = cairn(["clone", "--from", directory, to]);
    assert.equal(done.error?.code, code, done.stdout);
    assert.match(done.error!.message, name);
    assert.ok(!fs.existsSync(to));
  };
  const files = fs.readdirSync(path.join(directory, "content"), { recursive: true, encoding: "latin1" });
  for (const name of files) {
    const file = Buffer.from(path.join(directory, "content", name), "latin1");
    if (!fs.lstatSync(file).isFile()) continue;
    const bytes = fs.readFileSync(file);
    const shown = new RegExp(
      name.replace("\xff", ".*").replace("deep/hard", "a.txt|deep/hard").replace("a.txt", "a.txt|deep/hard"),
    );
    for (const spoilt of [bytes.subarray(0, -1), Buffer.from(bytes).fill(bytes[0]! ^ 1, 0, 1)]) {
      fs.writeFileSync(file, spoilt);
      refused("damaged", shown);
    }
    fs.writeFileSync(file, bytes);
  }
  const more = path.join(directory, "content/more");
  fs.writeFileSync(more, "");
  refused("damaged", /content\/more .* is not listed/);
  fs.rmSync(more);
  const link = path.join(directory, "content/deep/link");
  fs.rmSync(link);
  refused("damaged", /content\/deep\/link .* is missing/);
  fs.symlinkSync("/etc/passwd", link);
  refused("damaged", /is a link with another target/);
  fs.rmSync(link);
  fs.symlinkSync("../a.txt", link);
  fs.chmodSync(path.join(directory, "content/deep"), 0o755);
  refused("damaged", /does not have the exported state digest/);
  fs.chmodSync(path.join(directory, "content/deep"), 0o700);
  cairnOk(["clone", "--from", directory, fresh("whole")]);
});

test("import distinguishes a missing, an invalid and a newer envelope", () => {
  const { directory } = exported();
  const file = path.join(directory, "snapshot.json");
  const text = fs.readFileSync(file, "utf8");
  const refused = (code: string, message: RegExp): void => {
    const done = cairn(["import", "--from", directory, fresh("refused")]);
    assert.equal(done.error?.code, code);
    assert.match(done.error!.message, message);
  };
  fs.writeFileSync(file, text.slice(0, 100));
  refused("damaged", /not valid JSON/);
  fs.writeFileSync(file, text.replace('"version": 1', '"version": 2'));
  refused("newer_version", /version 2/);
  fs.writeFileSync(file, text.replace('"content/a.txt"', '"content/../../x"'));
  refused("damaged", /inside the directory/);
  fs.rmSync(file);
  refused("not_found", /is not an export directory/);
  assert.equal(cairn(["clone", fresh("x")]).error?.code, "usage");
});

test("of several exports to one target exactly one succeeds, and an existing target is left unchanged", async () => {
  const folder = newWorkspace();
  const to = fresh("raced");
  const run = async (): Promise<number | null> => {
    const child = spawn(process.execPath, [buildCommand(), "export", "head", "--to", to, "-C", folder], {
      stdio: "ignore",
    });
    return await new Promise((resolve) => child.once("exit", resolve));
  };
  const ended = await Promise.all([run(), run(), run()]);
  assert.deepEqual(ended.toSorted(), [0, 4, 4]);
  cairnOk(["clone", "--from", to, fresh("clone")]);
  assert.equal(cairn(["export", "head", "--to", to, "-C", folder]).error?.code, "already_exists");
  assert.deepEqual(
    fs.readdirSync(path.dirname(to)).filter((name) => name.startsWith(".cairn-tmp")),
    [],
  );
});
