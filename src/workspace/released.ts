import type { PlacedWorkspace } from "./control-directory.ts";

/** A released folder is kept no more, though its points may still lie there. */

export function isReleased({ settings }: PlacedWorkspace): boolean {
  return settings["released_at"] !== undefined;
}

/** A workspace's record from its release on. */
export function withRelease(workspace: PlacedWorkspace): PlacedWorkspace {
  return { ...workspace, settings: { ...workspace.settings, released_at: new Date().toISOString() } };
}

/** The same once it is kept again. */
export function withoutRelease(workspace: PlacedWorkspace): PlacedWorkspace {
  const { released_at: _released, ...settings } = workspace.settings;
  return { ...workspace, settings };
}
