import { existsSync } from "node:fs";
import { join } from "node:path";
import { isSilent } from "../../../fs/silent-mounts.ts";
import type { Client } from "../../../contract/index.ts";
import type { Context } from "../../context.ts";

/** Runs a restore, and reports agents whose hooks it removed: the point may be older than their installation. */
export async function tellingOfHooks<T>(context: Context, client: Client, restore: () => Promise<T>): Promise<T> {
  const root = client.workspacePath();
  if (isSilent(root) || ![".claude", ".codex", ".gemini", ".opencode"].some((name) => existsSync(join(root, name))))
    return restore();
  const { installedFor } = await import("../../../agents/tools.ts");
  const before = installedFor(root, context.env);
  const result = await restore();
  const after = new Set(installedFor(root, context.env));
  for (const tool of before.filter((each) => !after.has(each)))
    context.note(
      `this state does not have the hooks of ${tool}; to install them again: ${context.commandLine(["agent", "install", tool, "--for", "everybody"])}`,
    );
  return result;
}
