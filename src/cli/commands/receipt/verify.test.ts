import assert from "node:assert/strict";
import { test } from "node:test";
import type { Context } from "../../context.ts";
import type { Input } from "../../input.ts";
import { PLAIN } from "../../render/style.ts";
import { command } from "./verify.ts";

for (const [trusted, code] of [
  [true, undefined],
  [false, "refused"],
] as const)
  test(`receipt verify ${trusted ? "succeeds for a known key" : "fails with `refused` for an unknown key"}`, async () => {
    const verifyReceipt = async (): Promise<object> => ({ trusted, receipt: {}, public_key: "k" });
    const library = async (): Promise<object> => ({ verifyReceipt });
    const context = { callOptions: () => ({}), library, absolute: (path: string) => path, style: PLAIN };
    const input = { text: () => undefined, required: () => "receipt.json" };
    const outcome = await command.run!(context as unknown as Context, input as unknown as Input);
    assert.equal(outcome.error?.code, code);
  });
