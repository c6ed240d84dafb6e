import { decodePolicy, encodePolicy, NO_POLICY, type PolicyFile } from "../formats/policy.ts";
import { durableWrite } from "../fs/durable.ts";
import type { ControlPaths } from "./control-layout.ts";
import { readRecord } from "./read-record.ts";

const MAX_POLICY_BYTES = 1 << 20;

/** The policy of a control directory; nothing set where there is no file. Throws `damaged`, `newer_version`. */
export function readPolicy(control: ControlPaths): PolicyFile {
  const hint = "set the policy again: cairn cleanup --clear-policy, then --set-policy";
  const policy = readRecord(control.policy, decodePolicy, { maxBytes: MAX_POLICY_BYTES, hint });
  return policy ?? NO_POLICY;
}

/** Replaces the policy durably. For the holder of the control directory's lock. */
export function writePolicy(control: ControlPaths, policy: PolicyFile): void {
  durableWrite(control.policy, encodePolicy(policy));
}
