import { once } from "node:events";
import net from "node:net";
import { socketOf } from "../../../capture/vm/machine.ts";
import { CairnError, throwIfAborted } from "../../../errors.ts";
import type { CommandDefinition } from "../../command.ts";
import { NAME, onMachine } from "./place.ts";

/** Ctrl-], the same key as in telnet and virsh. */
const LEAVE = 0x1d;

export const command: CommandDefinition = {
  name: "vm console",
  arguments: [NAME],
  examples: [
    { line: "cairn vm console web", text: "connect to the console; Ctrl-] leaves, and the machine keeps running" },
  ],
  async run(context, input) {
    const info = await onMachine(context, input, "inspectMachine");
    if (info.pid === null)
      throw new CairnError("conflict", `the machine ${info.name} is not running`, {
        hint: `see ${info.console_log} for its last output`,
      });
    return {
      data: { name: info.name, console_log: info.console_log },
      // A program reads the log, or opens the socket itself.
      ...(context.globals.json
        ? {}
        : {
            text: () => "",
            afterwards: async () => speak(socketOf(info.pid!, "console"), context.signal),
          }),
    };
  },
};

/** Connects the terminal to a machine's console until either ends, or Ctrl-] is typed. */
async function speak(path: string, signal: AbortSignal): Promise<void> {
  const socket = net.connect(path);
  const { stdin, stdout } = process;
  try {
    await once(socket, "connect", { signal });
  } catch (error) {
    throwIfAborted(signal);
    throw new CairnError("io", "the console of this machine does not answer", { cause: error });
  }
  const terminal = stdin.isTTY ? stdin : null;
  terminal?.setRawMode(true);
  if (terminal !== null) process.stderr.write("connected; Ctrl-] leaves\r\n");
  const typed = (bytes: Buffer): void => {
    const at = terminal === null ? -1 : bytes.indexOf(LEAVE);
    socket.write(at < 0 ? bytes : bytes.subarray(0, at));
    if (at >= 0) socket.end();
  };
  const ended = (): void => void socket.end();
  stdin.on("data", typed).once("end", ended);
  socket.pipe(stdout, { end: false });
  try {
    await once(socket, "close", { signal });
  } catch (error) {
    throwIfAborted(signal);
    throw error;
  } finally {
    terminal?.setRawMode(false);
    stdin.off("data", typed).off("end", ended);
    stdin.pause();
    socket.destroy();
  }
}
