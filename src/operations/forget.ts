import { existsSync } from "node:fs";
import { CairnError } from "../errors.ts";
import { printablePath } from "../fs/safe-path.ts";
import { controlPaths } from "../workspace/control-layout.ts";
import { realPathOf } from "../workspace/find-workspace.ts";
import { controlOf, lockRegistry, readRegistration, unregister } from "../workspace/registry.ts";

/**
 * Forgets where the points of a folder lay, when its control directory is gone for good. False when the folder was not
 * known. Throws `conflict` while the control directory is there: then `release` is meant.
 */
export async function forget(path: string): Promise<boolean> {
  const folder = realPathOf(path);
  using _registry = await lockRegistry({ purpose: "release" });
  const registration = readRegistration(folder);
  if (registration === null) return false;
  const control = controlOf(registration);
  if (existsSync(controlPaths(control).file)) {
    throw new CairnError("conflict", `the points of ${printablePath(folder)} are still there, in ${control}`, {
      hint: "use cairn release",
    });
  }
  return unregister(folder);
}
