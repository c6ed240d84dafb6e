import { ContextServer } from "../../api/context-server/server.ts";
import { isLoopback, parseListen } from "../../daemon/listen-address.ts";
import { MODEL_WARNING } from "../../context/open-embedder.ts";
import { ContextStore } from "../../context/store.ts";
import type { CommandDefinition, Outcome } from "../command.ts";
import type { Context } from "../context.ts";
import { serverOptions } from "../definitions.ts";
import { type Input, usage } from "../input.ts";
import { aborted } from "../process-signal.ts";
import { printable } from "../render/format.ts";
import { VerbOptions } from "../options.ts";
import { ExportBundleOptions } from "../../contract/context.ts";
import { pick } from "../../contract/schema.ts";
import { VERSION } from "../../formats/program.ts";

const LISTEN = "127.0.0.1:1933";
const KEY_VARIABLE = "CAIRN_CONTEXT_KEY";
/** Milliseconds that a request waits for the store's lock, because clients prefer a wait to an error. */
const WAIT_MS = 60_000;
const UPLOAD_BYTES = 2 ** 30;
const LAYOUT = new VerbOptions(pick(ExportBundleOptions, "layout"));

const SERVER = serverOptions({ listen: LISTEN, secret: "key" });

export const command: CommandDefinition = {
  name: "serve-context",
  options: [
    { ...SERVER.listen, text: `${SERVER.listen.text}; or the path of a Unix socket, for this user only` },
    SERVER.noAuth,
    ...LAYOUT.definitions,
    SERVER.check,
  ],
  examples: [
    { line: "cairn -C knowledge serve-context --no-auth", text: "for this machine only, on port 1933" },
    { line: "cairn -C knowledge serve-context --listen /run/user/1000/context.sock", text: "for this user only" },
    { line: "cairn -C knowledge serve-context --layout B", text: "for clients of OpenViking 0.3" },
  ],
  async run(context, input) {
    const address = addressOf(context, input);
    const apiKey = keyOf(context, input, "path" in address);
    const { layout = "C" } = LAYOUT.read(context, input);
    const store = await ContextStore.open(context.folder(), WAIT_MS);
    if (store.lacksModel) context.note(MODEL_WARNING);
    try {
      const server = await ContextServer.start({
        store,
        address,
        apiKey,
        layout,
        version: VERSION,
        uploadBytes: UPLOAD_BYTES,
        onProblem: (message) => context.diagnose(printable(message)),
      });
      const data = {
        url: server.url,
        path: store.folder,
        authentication: apiKey === null ? "none" : "api-key",
        layout,
      };
      const verb = input.flag("check") ? "would serve" : "serving";
      const outcome: Outcome = {
        data,
        text: () => `${verb} ${printable(store.folder)} at ${context.style.cyan(data.url)}`,
      };
      const stop = async (): Promise<void> => {
        await server.stop();
        await store[Symbol.asyncDispose]();
      };
      if (input.flag("check")) {
        await stop();
        return outcome;
      }
      return {
        ...outcome,
        async afterwards() {
          await aborted(context.signal);
          await stop();
        },
      };
    } catch (error) {
      await store[Symbol.asyncDispose]();
      throw error;
    }
  },
};

function addressOf(context: Context, input: Input): { host: string; port: number } | { path: string } {
  const address = input.text("listen") ?? LISTEN;
  return address.includes("/") ? { path: context.place(address) } : parseListen(address, "--listen");
}

function keyOf(context: Context, input: Input, isSocket: boolean): string | null {
  const open = input.denied("auth");
  if (open) {
    const { host } = isSocket ? { host: "localhost" } : parseListen(input.text("listen") ?? LISTEN, "--listen");
    if (!isLoopback(host)) context.note(`every client that can reach ${host} may read, write and delete here`);
    return null;
  }
  const key = context.env[KEY_VARIABLE];
  if (key !== undefined && key !== "") return key;
  if (isSocket) return null;
  throw usage(
    `no authentication is chosen: set ${KEY_VARIABLE} to the key that clients send, or allow every client with --no-auth`,
  );
}
