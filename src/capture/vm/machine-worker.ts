import { withMachine } from "./life.ts";

/** Waits until a command has done its work on a machine. Where it was killed over it, the machine is settled: its guest runs again. */

const [root, name] = process.argv.slice(2) as [string, string];

process.once("message", () => process.exit());
process.once("disconnect", () => void settle());
if (!process.connected) void settle();

async function settle(): Promise<void> {
  try {
    await withMachine(root, name, "settle", { lockTimeoutMs: 30_000 }, async () => undefined);
  } catch {
    // Whoever looks at it next settles it, or is told why not.
  }
  process.exit();
}
