import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { cairn, cairnOk, type RunOptions, SCRATCH, startCairn } from "../fixtures/command.ts";
import { eventually } from "../fixtures/eventually.ts";
import { filesOf, newRepository, type TestRepository } from "../fixtures/repository.ts";
import { newFolder } from "../fixtures/work.ts";

const OWN: RunOptions = { own: true };

/** A repository with one snapshot of a file that fills many packs and no pipe. */
async function backedUp(
  name: string,
): Promise<{ place: TestRepository; text: string; to: (line: string) => string[] }> {
  const place = await newRepository(`${name}-repository`);
  const folder = newFolder(name);
  const text = Array.from({ length: 700_000 }, (_, i) => `${i * 7919}\n`).join("");
  fs.writeFileSync(path.join(folder, "dump.sql"), text);
  cairnOk(["backup", "create", folder, ...place.options]);
  const to = (line: string): string[] => [
    "backup",
    "restore",
    "latest",
    "dump.sql",
    "--to-command",
    line,
    ...place.options,
  ];
  return { place, text, to };
}

test("backup restore --to-command writes a file to a command, whose exit status counts", async () => {
  const { text, to, place } = await backedUp("to-command");
  const copy = path.join(SCRATCH, "to-command-copy");
  const { data } = cairnOk(to(`cat > ${copy}; echo whole >> ${copy}`), OWN);
  assert.equal(fs.readFileSync(copy, "utf8"), `${text}whole\n`);
  assert.deepEqual([data["path"], data["bytes"]], ["dump.sql", text.length]);
  for (const line of ["cat > /dev/null; exit 3", "head -c 10 > /dev/null; exit 3", "exit 3"]) {
    const failed = cairn(to(line), OWN);
    assert.deepEqual([failed.status, failed.error?.message], [1, "the command ended with status 3"], line);
  }
  // A command that ends well without reading everything, for example `head`, is named.
  for (const [line, most] of [
    ["head -c 10 > /dev/null", 1 << 20],
    ["true", 0],
    ["exec < /dev/null; cat", 0],
  ] as const) {
    const part = cairn(to(line), OWN);
    const { bytes, unread_bytes: unread } = part.data as { bytes: number; unread_bytes: number };
    assert.deepEqual([part.status, bytes <= most, bytes + unread], [10, true, text.length], line);
    assert.match(part.warnings.join("\n"), new RegExp(`ended without reading [0-9,]+ bytes of dump\\.sql`));
  }
  assert.match(cairn(to("kill -TERM $$"), OWN).error!.message, /status 143/);
  const folder = ["backup", "restore", "latest", "--to-command", "cat", ...place.options];
  for (const words of [folder, [...to("cat"), "--to", copy], [...to("cat"), "--sparse"], to(" ")])
    assert.equal(cairn(words, OWN).status, 2, words.join(" "));
});

test("a command never sees the end of a file that is damaged", async () => {
  const { place, to, text } = await backedUp("to-damaged");
  const copy = path.join(SCRATCH, "damaged-copy");
  // The last pack of the content; the ones before are sound.
  const packs = filesOf(place, "data").map((each) => {
    const name = path.join(place.location, "data", each);
    return { name, size: fs.statSync(name).size };
  });
  const { name, size } = packs.toSorted((a, b) => b.size - a.size)[0]!;
  const bytes = fs.readFileSync(name);
  bytes[Math.floor(size * 0.9)]! ^= 1;
  fs.chmodSync(name, 0o600);
  fs.writeFileSync(name, bytes);
  const failed = cairn(to(`cat > ${copy}; echo whole >> ${copy}`), OWN);
  assert.deepEqual([failed.status, failed.error?.code], [6, "damaged"]);
  const got = fs.existsSync(copy) ? fs.readFileSync(copy, "utf8") : "";
  assert.ok(!got.includes("whole") && got.length < text.length && text.startsWith(got), String(got.length));
});

test("a command never sees the end of a file whose restore is killed", async () => {
  const { to, text } = await backedUp("to-killed");
  for (const signal of ["SIGKILL", "SIGTERM"] as const) {
    const copy = path.join(SCRATCH, `killed-copy-${signal}`);
    const pid = `${copy}.pid`;
    execFileSync("mkfifo", [`${copy}.wait`]);
    const running = startCairn(
      to(
        `echo $$ > ${pid}; head -c 100000 > ${copy}; read -r line < ${copy}.wait; cat >> ${copy}; echo whole >> ${copy}`,
      ),
      OWN,
    );
    // The command waits, so that the pipe is full and the rest is still to come.
    await eventually("a part", () => fs.existsSync(copy) && fs.statSync(copy).size === 100_000);
    const reader = Number(fs.readFileSync(pid, "utf8"));
    running.child.kill(signal);
    await running.ended.catch(() => undefined);
    await eventually("the end of the command", () => !fs.existsSync(`/proc/${reader}`));
    assert.equal(fs.readFileSync(copy, "utf8"), text.slice(0, 100_000), signal);
  }
});
