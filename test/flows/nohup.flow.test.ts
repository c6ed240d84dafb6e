import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import path from "node:path";
import { test, type TestContext } from "node:test";
import { buildCommand, cairnOk, ROOT, SCRATCH } from "../fixtures/command.ts";
import { eventually } from "../fixtures/eventually.ts";
import { newFolder } from "../fixtures/work.ts";

/** Signals that the caller ignores stay ignored: `nohup cairn …` outlives its terminal. Real terminals hang up here. */

/** Starts a command on a terminal of its own. A line on stdin ends the terminal (`hang up`) or is typed (`interrupt`). */
const SCRIPT = `
import os, pty, sys
pid, fd = pty.fork()
if pid == 0:
    os.execvp(sys.argv[1], sys.argv[1:])
for line in sys.stdin:
    if line.strip() == "interrupt": os.write(fd, b"\\x03")
    else: os.close(fd)
    break
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
`;

/** The launchers that people run: of a clone, of npm, of an archive. */
function launchers(): [name: string, launcher: string][] {
  const command = buildCommand();
  const archive = fs.mkdtempSync(path.join(SCRATCH, "archive-"));
  fs.mkdirSync(path.join(archive, "bin"));
  fs.mkdirSync(path.join(archive, "lib/node_modules"), { recursive: true });
  fs.copyFileSync(path.join(ROOT, "tools/archive-launcher"), path.join(archive, "bin/cairn"));
  fs.symlinkSync(process.execPath, path.join(archive, "lib/node"));
  fs.symlinkSync(ROOT, path.join(archive, "lib/node_modules/cairnstate"));
  const npm = path.join(archive, "bin/of npm");
  fs.symlinkSync(command, npm);
  return [
    ["clone", path.join(ROOT, "cairn")],
    ["npm", npm],
    ["archive", path.join(archive, "bin/cairn")],
  ];
}

/** Starts `cairn run` of a program that waits for a file and then writes into the workspace. `words` stand before the launcher. */
async function started(
  t: TestContext,
  { words, launcher }: { words: readonly string[]; launcher: string },
): Promise<{ folder: string; send: (line: string) => void; go: () => void; ended: Promise<string> }> {
  const folder = newFolder("outlives");
  const place = fs.mkdtempSync(path.join(SCRATCH, "terminal-"));
  const [begun, go] = [path.join(place, "begun"), path.join(place, "go")];
  const program = `echo x > '${begun}'; until [ -e '${go}' ]; do read -t 0.05 -r _ < /dev/zero || :; done 2>/dev/null; echo done > result`;
  const run = [launcher, "-C", folder, "run", "--", "bash", "-c", program];
  const child = spawn("python3", ["-c", SCRIPT, ...words, ...run], {
    cwd: place,
    env: { ...process.env, PATH: `${path.dirname(process.execPath)}:${process.env["PATH"]}` },
    stdio: ["pipe", "pipe", "inherit"],
  });
  t.after(() => child.kill());
  let said = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => (said += text));
  const ended = once(child, "close").then(() => said.trim());
  await eventually("the program runs", () => fs.existsSync(begun));
  return {
    folder,
    send: (line) => child.stdin.end(`${line}\n`),
    go: () => fs.writeFileSync(go, ""),
    ended,
  };
}

for (const [name, launcher] of launchers())
  test(`nohup keeps a command and its program alive after a hang-up, with the launcher of ${name}`, async (t) => {
    cairnOk(["save", newFolder("first")]);
    const { folder, send, go, ended } = await started(t, { words: ["nohup"], launcher });
    send("hang up");
    go();
    assert.equal(await ended, "0");
    assert.equal(fs.readFileSync(path.join(folder, "result"), "utf8"), "done\n");
    const points = cairnOk(["-C", folder, "history"]).data["save_points"] as unknown[];
    assert.ok(points.length > 0, "the state after the program is saved");
  });

test("an ignored interrupt stays ignored, and without nohup a hang-up ends the command", async (t) => {
  const [, launcher] = launchers()[2]!;
  const ignoring = await started(t, { words: ["sh", "-c", `trap '' INT; exec "$@"`, "sh"], launcher });
  ignoring.send("interrupt");
  ignoring.go();
  assert.equal(await ignoring.ended, "0");
  assert.ok(fs.existsSync(path.join(ignoring.folder, "result")));
  const plain = await started(t, { words: [], launcher });
  plain.send("hang up");
  assert.notEqual(await plain.ended, "0");
  assert.equal(fs.existsSync(path.join(plain.folder, "result")), false);
});
