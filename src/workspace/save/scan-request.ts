import type { ScanRequest } from "../../archive/scan/task.ts";
import { heldAt, treePlace } from "../points/held-trees.ts";
import type { Point } from "../points/point-files.ts";
import { neverPart, requireMountsKnown } from "../place/registry.ts";
import type { Workspace } from "../open/workspace.ts";

/** Makes the request to scan a workspace's folder by its present rules. Members in `more` replace these. */
export function scanRequest(
  { root }: Workspace,
  { exclude, crossMounts, reread }: ScanInput,
  more: Partial<ScanRequest> = {},
): ScanRequest {
  if (crossMounts === true) requireMountsKnown(root);
  return { root, rules: null, excludes: exclude, skip: neverPart(root, { crossMounts }), crossMounts, reread, ...more };
}

interface ScanInput {
  exclude?: readonly string[] | undefined;
  crossMounts?: boolean | undefined;
  reread?: boolean | undefined;
}

/** Makes the request to scan a point's held tree. Ignore files that are too long hide nothing. */
export function heldRequest(
  workspace: Workspace,
  point: Point,
  more: Pick<ScanRequest, "rules" | "reread">,
): ScanRequest {
  return scanRequest(
    workspace,
    { exclude: point.descriptor.rules.exclude },
    {
      ...more,
      ...heldAt(workspace.points, point),
      passesLongRules: true,
      root: Buffer.from(treePlace(workspace.points, point)),
    },
  );
}
