import { setTimeout as sleep } from "node:timers/promises";
import { withMachine } from "./life.ts";
import { Machine, processIn } from "./machine.ts";
import { resume, runningIn } from "./qemu.ts";

/** Waits until a command has finished its work on a machine. If the command was killed, resumes the guest. */

const LONGEST_MS = 600_000;
const [root, name] = process.argv.slice(2) as [string, string];

process.once("message", () => process.exit());
process.once("disconnect", () => void settle());
if (!process.connected) void settle();

/** Tries until the guest runs or QEMU has ended: a QEMU with a slow disk does not respond at first. */
async function settle(): Promise<void> {
  const end = Date.now() + LONGEST_MS;
  do {
    try {
      await withMachine(root, name, "settle", { lockTimeoutMs: 30_000 }, async (machine) => {
        using qmp = await runningIn(machine.live);
        if (qmp !== null) await resume(qmp);
      });
      break;
    } catch {
      // The next operation on the machine resumes the guest too, or reports the reason.
      await sleep(1000);
    }
  } while (Date.now() < end && processIn(Machine.in(root, name).live) !== null);
  process.exit();
}
