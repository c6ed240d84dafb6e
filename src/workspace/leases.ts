import { join } from "node:path";
import { CairnError } from "../errors.ts";
import { decodeView, encodeView, type ViewFile } from "../formats/view.ts";
import { durableRemove } from "../fs/durable.ts";
import { namesIfThere } from "../fs/names-in.ts";
import type { ControlPaths } from "./control-layout.ts";
import { readRecord } from "./read-record.ts";
import { writeRecord } from "./write-record.ts";

/** The leases of open views: `<id>.json` beside the folder `<id>`. */

const NAME = /^[0-9a-f]{16}$/;

/** Throws `invalid_id` for what can be no view's id. */
export function leasePath(control: ControlPaths, id: string): string {
  if (!NAME.test(id))
    throw new CairnError("invalid_id", `not a view: ${JSON.stringify(id.slice(0, 40))}`, {
      hint: "see `cairn view --list`",
    });
  return join(control.views, `${id}.json`);
}

export function writeLease(control: ControlPaths, lease: ViewFile): void {
  writeRecord(control, leasePath(control, lease.view_id), encodeView(lease));
}

export function removeLease(control: ControlPaths, id: string): boolean {
  return durableRemove(leasePath(control, id));
}

/**
 * All open views, oldest first. Throws `damaged`, `newer_version` for a lease that cannot be read: nobody knows what it
 * protects.
 */
export function listLeases(control: ControlPaths): ViewFile[] {
  return namesIfThere(control.views)
    .filter((name) => name.endsWith(".json") && NAME.test(name.slice(0, -5)))
    .flatMap((name) => {
      const hint = "remove that file and the folder beside it";
      const lease = readRecord(join(control.views, name), decodeView, { hint });
      // The control directory may have been moved since.
      return lease === null ? [] : [{ ...lease, path: join(control.views, name.slice(0, -5)) }];
    })
    .sort((a, b) => (a.opened_at < b.opened_at ? -1 : 1));
}
