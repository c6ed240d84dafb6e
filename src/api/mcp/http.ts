import type { IncomingMessage, ServerResponse } from "node:http";
import { StreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/streamableHttp.js";
import type { Transport } from "@modelcontextprotocol/sdk/shared/transport.js";
import { type OpenWorkspace, serveTools } from "./server.ts";

/** Milliseconds after which a reader who takes nothing is cut off. */
const SILENCE_MS = 60_000;

/** Serves the tools for one request whose body was read. There are no sessions. */
export async function serveOnHttp(
  request: IncomingMessage,
  response: ServerResponse,
  { body, open }: { body: unknown; open: OpenWorkspace },
): Promise<void> {
  const transport = new StreamableHTTPServerTransport();
  const gone = new Promise<void>((done) => response.once("close", done));
  const watch = (): void => {
    if (response.writableLength > 0) response.destroy();
    else response.setTimeout(SILENCE_MS);
  };
  response.on("timeout", watch).setTimeout(SILENCE_MS);
  const served = serveTools(transport as Transport, open);
  await transport.handleRequest(request, response, body);
  await gone;
  await transport.close();
  await served;
}
