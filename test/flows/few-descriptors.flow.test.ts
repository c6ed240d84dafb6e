import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";

const SRC = new URL("../../src/", import.meta.url).href;

/** What each way of starting a program comes to in a process that has ever more descriptors left. */
function outcomes(): Record<string, string[]> {
  const script = `
    import fs from "node:fs";
    const { SshProcess } = await import("${SRC}repository/storage/sftp/ssh.ts");
    const { runJuicefsClone } = await import("${SRC}clones/juicefs-command.ts");
    const { processOutput } = await import("${SRC}change/run.ts");
    const ways = {
      ssh: async () => new SshProcess({ host: "x", command: "true" }, { data() {}, end() {} }, { mayAsk: false }).kill(),
      juicefs: async () => runJuicefsClone(Buffer.from("/"), Buffer.from("/nowhere"), { program: "/bin/true" }),
      command: async () => {
        for await (const _ of processOutput({ command: ["true"], cwd: "/" }));
      },
    };
    const said = {};
    for (const [name, start] of Object.entries(ways)) {
      said[name] = [];
      for (let free = 0; free < 16; free++) {
        const full = [];
        try { for (;;) full.push(fs.openSync("/dev/null")); } catch {}
        for (const fd of full.splice(0, free)) fs.closeSync(fd);
        said[name].push(await start().then(() => "started", (error) => error.code));
        for (const fd of full) fs.closeSync(fd);
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    }
    console.log(JSON.stringify(said));`;
  const args = ["-c", 'ulimit -n 128 && exec "$@"', "sh", process.execPath, "--input-type=module", "-e", script];
  return JSON.parse(execFileSync("sh", args, { encoding: "utf8" })) as Record<string, string[]>;
}

test("starting a program fails with the code io if no file descriptors are left", () => {
  const { ssh, juicefs, command } = outcomes();
  for (const said of [ssh!, juicefs!, command!]) assert.equal(said[0], "io");
  assert.deepEqual([...new Set(ssh)], ["io", "started"]);
  // It did start, and made no clone.
  assert.deepEqual([...new Set(juicefs)], ["io", "unsupported"]);
  assert.deepEqual([...new Set(command)], ["io", "started"]);
});

test(
  "save and verify succeed or fail with a retryable error if few file descriptors are left",
  { timeout: 240_000 },
  (t) => {
    const root = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-few-"));
    t.after(() => fs.rmSync(root, { recursive: true, force: true }));
    const script = `
    import fs from "node:fs";
    const { openLibrary } = await import("${SRC}compose.ts");
    const work = "${root}/work";
    fs.mkdirSync(work + "/deep/er", { recursive: true });
    const client = await (await openLibrary()).init(work);
    for (let i = 0; i < 40; i++) fs.writeFileSync(work + (i % 2 ? "/deep/er/f" : "/f") + i, String(i));
    await client.save();
    await client.verify("latest");
    const said = [];
    for (let free = 0; free < 48; free++) {
      for (let i = 0; i < 40; i++) fs.writeFileSync(work + (i % 2 ? "/deep/er/f" : "/f") + i, free + "." + i);
      const full = [];
      try { for (;;) full.push(fs.openSync("/dev/null")); } catch {}
      for (const fd of full.splice(0, free)) fs.closeSync(fd);
      said.push(await client.save().then(({ complete }) => (complete ? "whole" : "LACKS"), (error) => error.retryable ? "again" : error.code + error.message));
      said.push(await client.verify("latest").then(({ problems }) => (problems.length === 0 ? "whole" : "DAMAGED"), (error) => error.retryable ? "again" : error.code + error.message));
      for (const fd of full) fs.closeSync(fd);
    }
    console.log(JSON.stringify(said));`;
    const args = ["-c", 'ulimit -n 256 && exec "$@"', "sh", process.execPath, "--input-type=module", "-e", script];
    const env = { ...process.env, XDG_STATE_HOME: path.join(root, "state") };
    const said = JSON.parse(execFileSync("sh", args, { encoding: "utf8", env })) as string[];
    assert.deepEqual([...new Set(said)].toSorted(), ["again", "whole"], said.join(" "));
  },
);
