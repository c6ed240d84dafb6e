import { setTimeout as sleep } from "node:timers/promises";
import type { SocketServer } from "../../api/socket/server.ts";
import type { TcpServer } from "../../api/socket/tcp.ts";
import { TlsFiles } from "../../api/tls-files.ts";
import { tryToListen } from "../../api/listen.ts";
import { whyRefused } from "../../daemon/bootstrap.ts";
import { checkNeeds } from "../../daemon/check-needs.ts";
import { readConfig } from "../../daemon/config.ts";
import { parseListen } from "../../daemon/listen-address.ts";
import { openLog } from "../../daemon/log/log.ts";
import { notify } from "../../daemon/notify.ts";
import { daemonPlaces } from "../../daemon/places.ts";
import { toCairnError } from "../../errors.ts";
import type { CommandDefinition } from "../command.ts";
import { openOwnLibrary } from "../library.ts";
import { aborted } from "../process-signal.ts";
import { printable } from "../render/format.ts";

/** Milliseconds after which a stop no longer waits. */
const STOP_MS = 9_500;

export const command: CommandDefinition = {
  name: "daemon",
  options: [
    {
      flags: "--rebuild-state",
      text: "rebuild an unreadable state: detect the backend, and find the workspaces by their records",
    },
    {
      flags: "--check",
      text: "only check: read the configuration, test the folders, password files and repositories that it names, and print the socket",
    },
  ],
  examples: [
    { line: "cairn daemon", text: "serve this user's workspaces until Ctrl-C; as root, the workspaces of all users" },
    { line: "kill -HUP PID", text: "make the daemon read its configuration again" },
  ],
  async run(context, input) {
    const places = daemonPlaces();
    const data = { socket: places.socket, state_directory: places.state, config: places.config, url: null };
    if (input.flag("check")) {
      const library = await openOwnLibrary();
      const config = readConfig(places);
      await checkNeeds(config, {
        whyRefused: () => whyRefused(places, { config, rebuildState: input.flag("rebuildState") }),
        listen: async (listen) => tryToListen(parseListen(listen, "http.listen")),
        openRepository: async (options) => library.openRepository(options),
        readTls: (certificate, key) => new TlsFiles(certificate, key).read(),
      });
      return { data, text: () => `would serve on ${printable(places.socket)}; state in ${printable(places.state)}` };
    }
    // Each wait for the kernel takes a thread of Node's pool. The pool has four threads unless this is set before its first use.
    process.env["UV_THREADPOOL_SIZE"] ??= "12";
    const log = openLog((line) => context.diagnose(line));
    const [{ Daemon }, socketServer, tcpServer] = await Promise.all([
      import("../../daemon/daemon.ts"),
      import("../../api/socket/server.ts"),
      import("../../api/socket/tcp.ts"),
    ]);
    const daemon = await Daemon.start({
      places,
      rebuildState: input.flag("rebuildState"),
      openLibrary: openOwnLibrary,
      log,
    });
    const { group, connections, request_bytes: requestBytes, calls } = daemon.config.socket;
    const limits = { group, connections, requestBytes, calls };
    let server: SocketServer | undefined;
    let tcp: TcpServer | null;
    try {
      server = await socketServer.SocketServer.start(daemon, { path: places.socket, ...limits, log });
      tcp = await tcpServer.TcpServer.start(daemon, { ...limits, log });
    } catch (error) {
      await server?.stop();
      await daemon.stop();
      throw error;
    }
    const served = server;
    const url = tcp?.url ?? null;
    // Outside the daemon SIGHUP ends the process.
    process.removeAllListeners("SIGHUP");
    process.on("SIGHUP", () => {
      try {
        daemon.reload();
      } catch (error) {
        log(toCairnError(error).message, { priority: "error" });
      }
    });
    notify("READY=1");
    const reconciled = daemon.reconcile().catch((error: unknown) => log(toCairnError(error).message));
    return {
      data: { ...data, state_directory: places.state, url },
      text: () =>
        `serving on ${context.style.cyan(printable(places.socket))}${url === null ? "" : ` and ${context.style.cyan(url)}`}; state in ${printable(places.state)}`,
      async afterwards() {
        await aborted(context.signal);
        notify("STOPPING=1");
        const late = sleep(STOP_MS, true);
        const ended = async (): Promise<boolean> => {
          daemon.letGo();
          await Promise.all([served.stop(), tcp?.stop()]);
          await reconciled;
          await daemon.stop();
          return false;
        };
        if (await Promise.race([ended(), late]))
          log("some operations did not end in time: the next start finishes them or rolls them back");
      },
    };
  },
};
