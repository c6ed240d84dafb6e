import { CairnError, throwIfAborted } from "../errors.ts";
import { Fields } from "../formats/fields.ts";
import { checkRetention, type PolicyFile, type StoredRetention } from "../formats/policy.ts";
import { acquireLock } from "../fs/lock.ts";
import type { ControlPaths } from "../workspace/control-layout.ts";
import { readPolicy, writePolicy } from "../workspace/policy.ts";
import type { CallOptions, PolicyEdit, PolicyResult, Retention } from "./contract.ts";

/** What a cleanup without rules of its own goes by, and a save that meets the quota. */
export function policy(control: ControlPaths): PolicyResult {
  return publicPolicy(readPolicy(control));
}

/** Changes what the edit names and keeps the rest; null takes a setting away. Throws `usage`, `busy`. */
export async function setPolicy(control: ControlPaths, edit: PolicyEdit, options: CallOptions): Promise<PolicyResult> {
  throwIfAborted(options.signal);
  const changes: Partial<PolicyFile> = {};
  if (edit.retention !== undefined)
    changes.retention = edit.retention === null ? null : storedRetention(edit.retention);
  if (edit.quotaBytes !== undefined) changes.quota_bytes = checkedQuota(edit.quotaBytes);
  using _lock = await acquireLock(control.lock, {
    purpose: "policy",
    ...(options.lockTimeoutMs === undefined ? {} : { timeoutMs: options.lockTimeoutMs }),
    ...(options.signal === undefined ? {} : { signal: options.signal }),
  });
  const changed = { ...presentOrNothing(control, edit), ...changes };
  writePolicy(control, changed);
  return publicPolicy(changed);
}

/** A damaged policy is replaced by an edit that says everything. */
function presentOrNothing(control: ControlPaths, edit: PolicyEdit): PolicyFile {
  try {
    return readPolicy(control);
  } catch (error) {
    const whole = edit.retention === null || (edit.retention !== undefined && edit.quotaBytes !== undefined);
    if (!whole || (error as CairnError).code !== "damaged") throw error;
    return { retention: null, quota_bytes: null };
  }
}

/** Throws `usage` for what is no number of bytes. */
export function checkedQuota(bytes: number | null): number | null {
  if (bytes === null || (Number.isSafeInteger(bytes) && bytes >= 0)) return bytes;
  throw new CairnError("usage", `not a quota in bytes: ${bytes}`);
}

/** A retention as `policy.json` holds it. Throws `usage` for a value that no rule can have. */
export function storedRetention(retention: Retention): StoredRetention {
  const stored = Object.fromEntries(
    Object.entries(retention)
      .filter(([, value]) => value !== undefined)
      .map(([key, value]) => [key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`), value as unknown]),
  );
  try {
    checkRetention(new Fields(stored, "retention"));
  } catch (error) {
    throw new CairnError("usage", (error as Error).message, { cause: error });
  }
  return stored as StoredRetention;
}

/** The other way round; members that this version does not know are left out. */
export function retentionOf(stored: StoredRetention): Retention {
  const { keep_undo, keep_last, keep_within, keep_hourly, keep_daily } = stored;
  const { keep_weekly, keep_monthly, keep_yearly, keep_tags, max_bytes, max_age } = stored;
  return {
    ...(keep_undo === undefined ? {} : { keepUndo: { ...keep_undo } }),
    ...(keep_last === undefined ? {} : { keepLast: keep_last }),
    ...(keep_within === undefined ? {} : { keepWithin: keep_within }),
    ...(keep_hourly === undefined ? {} : { keepHourly: keep_hourly }),
    ...(keep_daily === undefined ? {} : { keepDaily: keep_daily }),
    ...(keep_weekly === undefined ? {} : { keepWeekly: keep_weekly }),
    ...(keep_monthly === undefined ? {} : { keepMonthly: keep_monthly }),
    ...(keep_yearly === undefined ? {} : { keepYearly: keep_yearly }),
    ...(keep_tags === undefined ? {} : { keepTags: [...keep_tags] }),
    ...(max_bytes === undefined ? {} : { maxBytes: max_bytes }),
    ...(max_age === undefined ? {} : { maxAge: max_age }),
  };
}

function publicPolicy(file: PolicyFile): PolicyResult {
  return { retention: file.retention === null ? null : retentionOf(file.retention), quota_bytes: file.quota_bytes };
}
