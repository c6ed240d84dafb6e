import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import type { PageServer } from "../../api/page/server.ts";
import { readRegular } from "../../fs/regular-file.ts";
import { currentUser } from "../../fs/users.ts";
import { hasDisplay, type OpenedPage, openInBrowser } from "../browser.ts";
import type { CommandDefinition } from "../command.ts";
import type { Context } from "../context.ts";
import { usage } from "../input.ts";
import { openLibrary } from "../library.ts";
import { lastView, noteView } from "../page-address.ts";
import { pageAgents } from "../page-agents.ts";
import { aborted } from "../process-signal.ts";
import { printable } from "../render/format.ts";

/** The built page, beside the built command. */
const PAGE = fileURLToPath(
  new URL(import.meta.url.endsWith(".ts") ? "../../../dist/page/" : "./page/", import.meta.url),
);
export const command: CommandDefinition = {
  name: "ui",
  arguments: [
    {
      name: "[dir]",
      text: "the workspace to begin with; default: the one at or above the current folder",
      completes: "folders",
    },
  ],
  options: [
    {
      flags: "--address",
      text: "use a random address 127.x.y.z instead of a name, for a browser that does not find names in .localhost",
    },
    { flags: "--no-open", text: "only print the address, and open no browser" },
    { flags: "--read-only", text: "refuse everything that changes a workspace" },
  ],
  examples: [
    { line: "cairn ui", text: "show save points in the browser, compare them, and bring files back" },
    { line: "cairn ui ~/project --read-only", text: "only look" },
  ],
  async run(context, input) {
    if (context.globals.controlDirectory !== undefined)
      throw usage("ui shows the workspaces of your registry, and --control-dir names one that may not be in it");
    const start = await startOf(context, input.argument(0));
    const { CODE_MS, PageServer } = await import("../../api/page/server.ts");
    const server = await PageServer.start({
      openLibrary,
      page: PAGE,
      agents: pageAgents(),
      isReadOnly: input.flag("readOnly"),
      start,
      view: lastView(start),
      byAddress: input.flag("address"),
      onView: noteView,
      onProblem: (message) => context.diagnose(printable(message)),
    });
    const url = server.address();
    const { env } = context;
    let opened: OpenedPage | undefined;
    if (!input.denied("open") && hasDisplay(env)) {
      const address = server.address(() => opened?.remove());
      opened = openInBrowser(address, { env, lifeMs: CODE_MS, onProblem: (message) => context.diagnose(message) });
      setTimeout(() => opened?.remove(), CODE_MS).unref();
    }
    return {
      data: { url, path: start, read_only: input.flag("readOnly") },
      text: () => [`open ${context.style.cyan(url)}`, ...linesOf(context, server)].join("\n"),
      async afterwards() {
        const asking = context.globals.json || !isAtTerminal() ? undefined : createInterface({ input: process.stdin });
        asking?.on("line", () => context.diagnose(`open ${server.address()}`));
        await aborted(context.signal);
        asking?.close();
        opened?.remove();
        await server.stop();
      },
    };
  },
};

/** Returns the first workspace to show. Throws `not_a_workspace` if the named folder is no workspace. */
async function startOf(context: Context, named: string | undefined): Promise<string | null> {
  const library = await context.library();
  if (context.chosenFolder(named) === undefined) return library.find(context.cwd, context.callOptions());
  return (await context.open(named)).workspace.path;
}

function linesOf({ env }: Context, server: PageServer): string[] {
  const [, , address, sshPort] = (env["SSH_CONNECTION"] ?? "").split(" ");
  const far = address === undefined ? [] : [`on your own machine first run: ${tunnel(server, address, sshPort)}`];
  return [...far, "the code signs in once, within ten minutes; Enter prints another; Ctrl-C ends the server"];
}

function tunnel({ host, port }: PageServer, address: string, sshPort = "22"): string {
  const at = sshPort === "22" ? "" : ` -p ${sshPort}`;
  // A random address is the page's name too, so the own machine must have the same one.
  const from = host === "127.0.0.1" ? port : `${host}:${port}`;
  return printable(`ssh${at} -L ${from}:${host}:${port} ${currentUser().username}@${address}`);
}

/** True if this process may read a line from the terminal: the system stops a background process that reads. */
function isAtTerminal(): boolean {
  if (!process.stdin.isTTY) return false;
  const stat = readRegular("/proc/self/stat").toString("latin1");
  const [, , group, , , foreground] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return group === foreground;
}
