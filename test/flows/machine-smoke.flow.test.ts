import assert from "node:assert/strict";
import { after, suite, test } from "node:test";
import { cairnOk } from "../fixtures/command.ts";
import { boot, endMachines, findGuest, Guest, vm } from "../fixtures/guest.ts";

/** One life of a virtual machine, with a real guest. The long tier has everything else about machines. */

const files = findGuest();

suite("a virtual machine", { skip: "reason" in files ? files.reason : false }, () => {
  after(() => endMachines());

  test("boots, is saved while it runs, goes on as a clone, and is restored", async () => {
    if ("reason" in files) return;
    const guest = await boot("smoke", files, ["--nic", "user"]);
    const saved = (await guest.counted()).at(-1)!;
    assert.equal(vm("save", "smoke")["has_memory"], true);
    assert.equal((await guest.counted(2)).at(-1)!.token, saved.token, "the guest runs on");

    assert.equal(cairnOk(["vm", "clone", "smoke", "copy"]).data["has_memory"], true);
    const [first] = await new Guest("copy").counted(2);
    assert.equal(first!.token, saved.token, "the clone has the guest's memory");

    const before = (await guest.counted()).at(-1)!;
    vm("restore", "smoke", "latest");
    const [back] = await guest.counted(2);
    assert.ok(back!.count >= saved.count && back!.count <= before.count, `${back!.count} from ${saved.count}`);
    assert.equal(back!.token, saved.token);
  });
});
