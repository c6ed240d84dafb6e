import { CairnError, toCairnError } from "../errors.ts";
import { decodePolicy, encodePolicy, type PolicyFile } from "../formats/policy.ts";
import { durableWrite, readSmallFile } from "../fs/durable.ts";
import type { ControlPaths } from "./control-layout.ts";

const MAX_POLICY_BYTES = 1 << 20;

/** The policy of a control directory; nothing set where there is no file. Throws `damaged`, `newer_version`. */
export function readPolicy(control: ControlPaths): PolicyFile {
  const bytes = readSmallFile(control.policy, MAX_POLICY_BYTES);
  if (bytes === null) return { retention: null, quota_bytes: null };
  try {
    return decodePolicy(bytes);
  } catch (error) {
    const failed = toCairnError(error);
    throw new CairnError(failed.code, `${control.policy}: ${failed.message}`, {
      hint: "set the policy again: cairn cleanup --clear-policy, then --set-policy",
      cause: error,
    });
  }
}

/** Replaces the policy durably. For the holder of the control directory's lock. */
export function writePolicy(control: ControlPaths, policy: PolicyFile): void {
  durableWrite(control.policy, encodePolicy(policy));
}
