import type { Client, PathInput, ShowResult } from "../../operations/contract.ts";
import type { CommandDefinition, Outcome } from "../command.ts";
import type { Context } from "../context.ts";
import { parseBase64, usage } from "../input.ts";
import type { Input } from "../input.ts";

export const command: CommandDefinition = {
  name: "show",
  arguments: [
    { name: "<point[:path]>", text: "a save point, and a path from the workspace's root", completes: "points" },
  ],
  options: [{ flags: "--path-b64 <base64>", text: "the path, for a name that is not UTF-8" }],
  examples: [
    { line: "cairn show head", text: "what the point is, and its top entries" },
    { line: "cairn show head~2:src", text: "list a folder" },
    { line: "cairn show 1a2b3c4d:src/main.ts > old.ts", text: "print one file's bytes" },
  ],
  run,
};

// Base64 in one JSON string: above this a string of the platform would not hold it.
const JSON_CONTENT_LIMIT = 256 * 1024 * 1024;

async function run(context: Context, input: Input): Promise<Outcome> {
  const [target, path] = splitTarget(input.required(0), input.text("pathB64"));
  const client = await context.open();
  const options = context.callOptions();
  const shown = await client.show(target, path, options);
  if (shown.kind !== "file") return listing(context, client, shown);
  const size = shown.entries[0]?.size ?? 0;
  if (context.globals.json && size > JSON_CONTENT_LIMIT) {
    throw usage(
      `the file is too large for JSON: ${size} bytes, at most ${JSON_CONTENT_LIMIT}`,
      "leave --json out: the bytes go to stdout",
    );
  }
  return {
    data: shown,
    content: client.read(shown.save_point.save_point_id, path ?? "", options),
    contentData: (content) => ({ ...shown, content_b64: Buffer.from(content).toString("base64") }),
  };
}

function listing(context: Context, client: Client, shown: ShowResult): Outcome {
  return {
    data: shown,
    paged: true,
    async text() {
      const [{ renderListing, renderPoint }, { shortener }] = await Promise.all([
        import("../render/listing.ts"),
        import("../render/points.ts"),
      ]);
      const lines = await renderListing(shown, context.style);
      if (shown.path !== "") return lines.join("\n");
      const { save_point: point } = shown;
      const shorten = await shortener(client, [point.parent_id, point.restored_from]);
      return [...(await renderPoint(point, shorten, context.style)), "", ...lines].join("\n");
    },
  };
}

function splitTarget(text: string, encoded: string | undefined): [string, PathInput | undefined] {
  const colon = text.indexOf(":");
  if (encoded !== undefined) {
    if (colon !== -1) throw usage("POINT:PATH and --path-b64 cannot be given together");
    return [text, parseBase64(encoded, "--path-b64")];
  }
  if (colon === -1) return [text, undefined];
  const path = text
    .slice(colon + 1)
    .replace(/^(?:\.\/+)+/, "")
    .replace(/\/+$/, "");
  if (path.startsWith("/"))
    throw usage(`the path after the colon begins at the workspace's root, without a slash: ${path}`);
  return [text.slice(0, colon), path === "" || path === "." ? undefined : path];
}
