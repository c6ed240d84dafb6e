import { Server } from "@modelcontextprotocol/sdk/server/index.js";
import { StdioServerTransport } from "@modelcontextprotocol/sdk/server/stdio.js";
import type { Transport } from "@modelcontextprotocol/sdk/shared/transport.js";
import { CallToolRequestSchema, ListToolsRequestSchema } from "@modelcontextprotocol/sdk/types.js";
import type { Client } from "../../contract/index.ts";
import { checkValue, object, refuseUnknown } from "../../contract/schema.ts";
import type { CallOptions, Progress } from "../../contract/words.ts";
import { adviceOf, CairnError, toCairnError, worded } from "../../errors.ts";
import { VERSION } from "../../formats/program.ts";
import { NoDaemon } from "../client/connection.ts";
import type { Tool } from "../../verbs/kinds/tool.ts";
import { describeTool, TOOLS } from "./tools.ts";

export interface OpenWorkspace {
  /** Opens the folder's workspace, or makes the folder one if `makesWorkspace`. */
  (makesWorkspace: boolean): Promise<Client>;
  /** Called if the client's daemon is gone or hangs: the next call needs another client. */
  lost?(): void;
}

const INSTRUCTIONS =
  "Cairn saves the state of the folder that you work in whenever you ask, and restores any of them. Call save before and after each change. If a change went wrong, restore brings back a save point; it saves the current state first, so nothing is lost, and undo reverts the restore.";

/** Serves the tools over a transport until it closes. `open` null: there are no tools, because the folder is not covered. */
export async function serveTools(transport: Transport, open: OpenWorkspace | null): Promise<void> {
  const server = new Server(
    { name: "cairn", title: "Cairn", version: VERSION },
    { capabilities: { tools: {} }, ...(open === null ? {} : { instructions: INSTRUCTIONS }) },
  );
  server.setRequestHandler(ListToolsRequestSchema, () => ({
    tools: Object.entries(open === null ? {} : TOOLS).map(([name, tool]) => describeTool(name, tool)) as never,
  }));
  server.setRequestHandler(CallToolRequestSchema, async ({ params }, { signal, sendNotification }) => {
    const { name, arguments: given = {}, _meta } = params;
    const token = _meta?.progressToken;
    let told = 0;
    const onProgress = ({ phase, done, total }: Progress): void => {
      if (token === undefined) return;
      told = Math.max(told + 1, done ?? 0);
      const progress = {
        progressToken: token,
        progress: told,
        message: phase,
        ...(total === undefined ? {} : { total }),
      };
      void sendNotification({ method: "notifications/progress", params: progress }).catch(() => undefined);
    };
    const warnings: string[] = [];
    try {
      const { data, words } = await call(name, given, open, {
        signal,
        onProgress,
        onWarning: (text) => void warnings.push(text),
      });
      return {
        structuredContent: JSON.parse(JSON.stringify(data)) as Record<string, unknown>,
        content: [words, ...warnings.map((text) => `warning: ${text}`)].map((text) => ({
          type: "text" as const,
          text,
        })),
      };
    } catch (error) {
      if (error instanceof NoDaemon) open?.lost?.();
      const known = toCairnError(error);
      // For a moved folder, or one of another state directory, the error says more.
      const isNew = known.code === "not_a_workspace" && known.details === undefined;
      const advice = isNew ? "call save: it makes the folder a workspace" : forTools(known, name);
      const hint = advice === undefined ? "" : `\n${advice}`;
      return { isError: true, content: [{ type: "text" as const, text: `${known.code}: ${known.message}${hint}` }] };
    }
  });
  const { promise, resolve } = Promise.withResolvers<void>();
  server.onclose = resolve;
  await server.connect(transport);
  await promise;
}

/** Returns a hint in the words of the tools. A hint with a call or an option that no tool has is for a person. */
function forTools(error: CairnError, tool: string): string | undefined {
  const hint = adviceOf(error);
  const isForTools = [hint ?? []].flat().every((part) => {
    if (typeof part === "string") return true;
    const { verbs = [], options = {} } = part;
    const taken = TOOLS[verbs[0] ?? tool]?.takes ?? {};
    return (
      verbs.every((name) => Object.hasOwn(TOOLS, name)) &&
      Object.keys(options).every((name) => Object.hasOwn(taken, name))
    );
  });
  if (!isForTools) return `a person can do this: ${error.hint}`;
  return hint && worded(hint, ({ called }) => called);
}

async function call(
  name: string,
  given: Record<string, unknown>,
  open: OpenWorkspace | null,
  options: CallOptions,
): ReturnType<Tool["run"]> {
  const tool = Object.hasOwn(TOOLS, name) ? TOOLS[name] : undefined;
  if (open === null) throw new CairnError("not_a_workspace", "the folder is not covered by `cairn agent install`");
  if (tool === undefined)
    throw new CairnError("usage", `there is no tool ${JSON.stringify(name)}`, {
      hint: `use one of these tools: ${Object.keys(TOOLS).join(", ")}`,
    });
  const schema = object(tool.takes);
  refuseUnknown(schema, given, name);
  const client = await open(tool.makesWorkspace === true);
  return await tool.run(client, checkValue(schema, given, name), options);
}

/** Serves the tools on standard input and output until the input ends or the signal fires. */
export async function serveOnStdio(open: OpenWorkspace | null, signal: AbortSignal): Promise<void> {
  const transport = new StdioServerTransport();
  const stop = (): void => void transport.close();
  signal.addEventListener("abort", stop, { once: true });
  process.stdin.once("end", stop);
  await serveTools(transport, open);
}
