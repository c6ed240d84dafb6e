import assert from "node:assert/strict";
import { test } from "node:test";
import { linkWithoutService } from "./identity.ts";
import type { MachineRecord } from "./machine.ts";
import type { Qmp } from "./qmp.ts";

test("a guest that gets another identity or network device runs without a link until it has answered", async () => {
  const upFor = async (record: object): Promise<boolean> => {
    const ran: string[] = [];
    const qmp = { run: async (command: string) => (ran.push(command), []) } as unknown as Qmp;
    await linkWithoutService(qmp, { hardware: { nics: [{}] }, ...record } as unknown as MachineRecord);
    return ran.includes("set_link");
  };
  assert.equal(await upFor({ foreignNics: false, identity: "same" }), true);
  assert.equal(await upFor({ foreignNics: false, identity: "new" }), false);
  assert.equal(await upFor({ foreignNics: true, identity: "new" }), false);
});
