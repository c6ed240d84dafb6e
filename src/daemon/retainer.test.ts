import assert from "node:assert/strict";
import { test } from "node:test";
import { Retainer } from "./retainer.ts";

test("rules that are given while points are removed count at once and from then on", async () => {
  const used: unknown[] = [];
  const [began, goOn] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  const again = Promise.withResolvers<void>();
  const retainer = new Retainer(async (rules) => {
    used.push(rules());
    began.resolve();
    if (used.length > 1) again.resolve();
    await goOn.promise;
    used.push(rules());
    return { removed: 0, failed: [] };
  });
  retainer.start({ keep: { keepLast: 1 }, every_ms: 1 }, "2020-01-01T00:00:00Z");
  await began.promise;
  retainer.start({ keep: { keepLast: 9 }, every_ms: 1 }, null);
  goOn.resolve();
  await again.promise;
  await retainer.stop();
  assert.deepEqual(used.slice(0, 3), [{ keepLast: 1 }, { keepLast: 9 }, { keepLast: 9 }]);
});
