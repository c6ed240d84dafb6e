import { readdirSync } from "node:fs";
import { join } from "node:path";
import { CairnError } from "../errors.ts";
import { durableRemove, readSmallFile } from "../fs/durable.ts";
import { isSavePointId, type SavePointId, type WorkspaceId } from "../ids.ts";
import type { ControlPaths } from "./control-layout.ts";
import { writeRecord } from "./write-record.ts";

/** A view that is open: `<id>.json` beside the folder `<id>`. It stays until it is closed, whatever becomes of its process. */
export interface Lease {
  view_id: string;
  save_point_id: SavePointId;
  workspace_id: WorkspaceId;
  /** absolute */
  path: string;
  opened_at: string;
  method: string;
}

const FORMAT = "cairn.view";
const VERSION = 1;
const MAX_LEASE_BYTES = 1 << 16;
const NAME = /^[0-9a-f]{16}$/;

/** Throws `invalid_id` for what can be no view's id. */
export function leasePath(control: ControlPaths, id: string): string {
  if (!NAME.test(id))
    throw new CairnError("invalid_id", `not a view: ${JSON.stringify(id.slice(0, 40))}`, {
      hint: "see `cairn view --list`",
    });
  return join(control.views, `${id}.json`);
}

export function writeLease(control: ControlPaths, lease: Lease): void {
  const record = { format: FORMAT, version: VERSION, ...lease };
  writeRecord(control, leasePath(control, lease.view_id), Buffer.from(`${JSON.stringify(record)}\n`));
}

export function removeLease(control: ControlPaths, id: string): boolean {
  return durableRemove(leasePath(control, id));
}

/** All open views, oldest first. Throws `damaged` for a lease that cannot be read: nobody knows what it protects. */
export function listLeases(control: ControlPaths): Lease[] {
  let names: string[];
  try {
    names = readdirSync(control.views);
  } catch {
    return [];
  }
  return names
    .filter((name) => name.endsWith(".json") && NAME.test(name.slice(0, -5)))
    .flatMap((name) => {
      const bytes = readSmallFile(join(control.views, name), MAX_LEASE_BYTES);
      return bytes === null ? [] : [decodeLease(bytes, join(control.views, name))];
    })
    .sort((a, b) => (a.opened_at < b.opened_at ? -1 : 1));
}

function decodeLease(bytes: Buffer, file: string): Lease {
  try {
    const { format, version, ...lease } = JSON.parse(bytes.toString("utf8")) as Lease & {
      format: string;
      version: number;
    };
    if (format === FORMAT && version === VERSION && isSavePointId(lease.save_point_id) && NAME.test(lease.view_id))
      return lease;
  } catch {
    // Said below.
  }
  throw new CairnError("damaged", `${file} is not a view's lease`, {
    hint: "remove that file and the folder beside it",
  });
}
