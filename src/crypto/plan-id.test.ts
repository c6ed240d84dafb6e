import assert from "node:assert/strict";
import { test } from "node:test";
import { CairnError } from "../errors.ts";
import { planIdOf, requirePlan } from "./plan-id.ts";

test("a plan's id depends on every fact and on their order, and joins none", () => {
  const one = planIdOf(["forget", ["a", "b"]]);
  assert.match(one, /^[0-9a-f]{32}$/);
  assert.equal(planIdOf(["forget", ["a", "b"]]), one);
  const others = [
    ["forget", ["b", "a"]],
    ["forget", "a", "b"],
    ["forget", ["a"]],
    ["prune", ["a", "b"]],
  ];
  assert.equal(new Set([one, ...others.map((facts) => planIdOf(facts))]).size, 5);
});

test("a plan that was shown is applied only if it is the plan of now", () => {
  const now = planIdOf(["now"]);
  requirePlan(undefined, now, () => "it would remove 2 points now");
  requirePlan(now, now, () => "it would remove 2 points now");
  assert.throws(
    () => requirePlan(planIdOf(["then"]), now, () => "it would remove 2 points now"),
    (error) => {
      assert.ok(error instanceof CairnError);
      assert.equal(error.code, "stale_plan");
      assert.match(error.message, /is stale: it would remove 2 points now; nothing was changed$/);
      assert.deepEqual(error.details, { plan: now });
      return true;
    },
  );
  for (const shown of [now.slice(0, 8), now.toUpperCase(), ` ${now}`, "", "../../etc"])
    assert.throws(
      () => requirePlan(shown, now, () => "it would remove 2 points now"),
      (error) => error instanceof CairnError && error.code === "usage" && /is no plan's id/.test(error.message),
    );
});
