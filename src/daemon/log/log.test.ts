import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { text } from "node:stream/consumers";
import { test } from "node:test";
import { journalOf, sendToJournal } from "./journal.ts";
import { logText, membersOf, openLog } from "./log.ts";

/** Node has no datagram sockets of files; perl prints the one message that it gets. */
const RECEIVER = `
  use Socket; $| = 1;
  socket(S, PF_UNIX, SOCK_DGRAM, 0) or die $!;
  bind(S, pack_sockaddr_un($ARGV[0])) or die $!;
  print "bound\\n";
  recv(S, my $message, 65536, 0) // die $!;
  print $message;
`;

test(
  "the journal receives an entry with its fields, and a line break in a name adds no field",
  { skip: spawnSync("perl", ["-MSocket", "-e", "1"]).status === 0 ? false : "perl is not installed" },
  async (t) => {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-journal-"));
    t.after(() => fs.rmSync(folder, { recursive: true }));
    const socket = path.join(folder, "socket");
    const receiver = spawn("perl", ["-e", RECEIVER, socket], { stdio: ["ignore", "pipe", "inherit"] });
    t.after(() => receiver.kill());
    await once(receiver.stdout, "readable");
    assert.equal(String(receiver.stdout.read()), "bound\n");
    const hostile = Buffer.concat([Buffer.from("/w\nPRIORITY=0\nCAIRN_UID=0\n\u001b[2J"), Buffer.from([0xff])]);
    const members = membersOf(`save ${hostile.toString("latin1")}`, {
      workspace: hostile,
      verb: "save",
      uid: 1000,
      duration_ms: 12.4,
      outcome: "ok",
      priority: "warning",
    });
    assert.equal(sendToJournal(socket, members), true);
    const lines = (await text(receiver.stdout)).trimEnd().split("\n");
    assert.deepEqual(
      lines.map((line) => line.slice(0, line.indexOf("="))),
      [
        "MESSAGE",
        "PRIORITY",
        "SYSLOG_IDENTIFIER",
        "CAIRN_WORKSPACE",
        "CAIRN_VERB",
        "CAIRN_UID",
        "CAIRN_DURATION_MS",
        "CAIRN_OUTCOME",
      ],
    );
    assert.equal(lines[1], "PRIORITY=4");
    assert.equal(lines[5], "CAIRN_UID=1000");
    assert.equal(lines[6], "CAIRN_DURATION_MS=12");
    assert.doesNotMatch(lines.join(""), /\u001b/);
  },
);

test("the log uses the journal if standard error is the journal's stream, else it writes lines with times", () => {
  const { dev, ino } = fs.fstatSync(2, { bigint: true });
  assert.equal(journalOf({ JOURNAL_STREAM: `${dev}:${ino}` }, "/s"), "/s");
  for (const other of [undefined, "", "1:2", `${dev}:${ino}x`, "nonsense"])
    assert.equal(journalOf(other === undefined ? {} : { JOURNAL_STREAM: other }, "/s"), null);
  const lines: string[] = [];
  openLog((line) => lines.push(line), {})("two\nlines", { verb: "save" });
  assert.match(lines.join("\n"), /^\d{4}-\d\d-\d\dT[\d:.]+Z two\\nlines$/);
});

test("sendToJournal returns false if the journal refuses an entry", () => {
  assert.equal(sendToJournal("/nowhere/socket", { MESSAGE: "x" }), false);
});

test("logText removes user and password from an address, and cuts long lines", () => {
  assert.equal(
    logText("rest:https://ann:s3cret@host/a and sftp://x:y@z, https://host/b@c"),
    "rest:https://host/a and sftp://z, https://host/b@c",
  );
  assert.ok(logText("x".repeat(100_000)).length < 4100);
});
