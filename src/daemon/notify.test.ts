import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { text } from "node:stream/consumers";
import { test } from "node:test";
import { notify } from "./notify.ts";

/** Node has no datagram sockets of files; perl prints the one message that it gets. */
const RECEIVER = `
  use Socket; $| = 1;
  socket(S, PF_UNIX, SOCK_DGRAM, 0) or die $!;
  my $path = $ARGV[0]; $path =~ s/^@/\\0/;
  bind(S, pack_sockaddr_un($path)) or die $!;
  print "bound\\n";
  recv(S, my $message, 100, 0) // die $!;
  print $message;
`;

function folder(t: { after: (work: () => void) => void }): string {
  const made = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-notify-"));
  t.after(() => fs.rmSync(made, { recursive: true }));
  return made;
}

for (const kind of ["a path", "an abstract name"])
  test(
    `notify tells the service manager the daemon's state if its socket is ${kind}`,
    {
      skip: spawnSync("perl", ["-MSocket", "-e", "1"]).status === 0 ? false : "perl is not installed",
    },
    async (t) => {
      const name = path.join(folder(t), "notify");
      const address = kind === "a path" ? name : `@${name}`;
      const receiver = spawn("perl", ["-e", RECEIVER, address], { stdio: ["ignore", "pipe", "inherit"] });
      t.after(() => receiver.kill());
      await once(receiver.stdout, "readable");
      assert.equal(String(receiver.stdout.read()), "bound\n");
      notify("READY=1", { NOTIFY_SOCKET: address });
      assert.equal(await text(receiver.stdout), "READY=1");
    },
  );

test("notify succeeds if no service manager listens", (t) => {
  notify("READY=1", {});
  notify("READY=1", { NOTIFY_SOCKET: path.join(folder(t), "nobody") });
  notify("READY=1", { NOTIFY_SOCKET: `/${"x".repeat(200)}` });
});
