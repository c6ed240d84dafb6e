import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import path from "node:path";
import { oneOf } from "../../../../test/crash/rounds.ts";
import { type EngineClauses, removeFolder } from "../../../../test/fixtures/engine-clauses.ts";
import { assertFolder, readFolder } from "../../../../test/fixtures/folder-state.ts";
import { assertHeldTidy } from "../../../../test/fixtures/held-place.ts";
import { makeFirst, makeSecond, makeUnsaved } from "../../../../test/fixtures/two-states.ts";
import type { CairnError } from "../../../errors.ts";
import { walkDigests } from "../testing-walk.ts";

/** A point equals the folder at the time of the save. A call is done or not done. The folder always exists. */
export function momentClauses({ clause, holds, atomic }: EngineClauses): void {
  clause(
    "a point does not contain writes after its save, even if the point is sealed later",
    async ({ client, folder, volume }) => {
      const before = { state: readFolder(folder), digest: walkDigests(folder).state };
      const open = fs.openSync(path.join(folder, "same/updated.txt"), "r+");
      const { save_point_id: id } = await client.save();
      // Through a descriptor that was open, in place, by size, and by name.
      fs.writeSync(open, "LATER", 0);
      fs.closeSync(open);
      fs.appendFileSync(path.join(folder, "big"), "later");
      fs.rmSync(path.join(folder, "goes"), { recursive: true });
      fs.writeFileSync(path.join(folder, "later"), "later\n");
      assert.deepEqual(await client.seal(), { sealed: holds ? 1 : 0 });
      const { save_points } = await client.history(undefined, 0, { all: true });
      assert.equal(save_points[0]!.payload_root_hash, before.digest);
      const to = path.join(volume.root, "to");
      await client.restore({ target: id, to });
      assertFolder(to, before.state, "as it was saved");
      assert.equal((await client.status()).clean, false);
    },
    { fill: makeFirst },
  );

  // Writes that are synced before the next write belong to one moment, also if the file is named as changing.
  for (const sync of atomic ? [false, true] : [false])
    clause(
      `a point names files that a process wrote${sync ? " and synced" : ""} during the save, and is otherwise consistent if the engine is atomic`,
      async (place, t) => {
        const { client, folder, volume } = place;
        // Two files with the same number, one after the other, each replaced whole.
        const script = `const fs = require("fs"); process.chdir(process.argv[1]);
for (let i = 1; ; i++) {
  for (const name of ["first", "second"]) {
    fs.writeFileSync("new", \`\${i} \`.repeat(20000), { flush: ${sync} }); fs.renameSync("new", name);
  }
  if (i === 2) fs.writeSync(1, "go");
}`;
        const writer = spawn(process.execPath, ["-e", script, folder], { stdio: ["ignore", "pipe", "inherit"] });
        t.after(() => writer.kill("SIGKILL"));
        await once(writer.stdout, "data");
        const points: { id: string; named: string[] }[] = [];
        for (let i = 0; i < 5; i++) {
          const { save_point_id: id, complete, left_out: left } = await client.save();
          assert.equal(complete, left.length === 0);
          points.push({ id, named: left.map(({ path: name }) => name) });
        }
        writer.kill("SIGKILL");
        await once(writer, "exit");
        await client.seal();
        for (const { id, named } of points) {
          const to = path.join(volume.root, `to-${id}`);
          await client.restore({ target: id, to });
          const numbers = ["first", "second"].map((name) => {
            // A folder that is named as changing may lack entries.
            if (!fs.existsSync(path.join(to, name)))
              return assert.ok(named.includes(name) || named.includes(""), `${name} is not there`);
            const [number, ...others] = new Set(fs.readFileSync(path.join(to, name), "utf8").trim().split(" "));
            if (sync || !named.includes(name)) assert.deepEqual(others, [], `${name} has parts of several`);
            return Number(number);
          });
          removeFolder(volume, to);
          if (!atomic || (named.length > 0 && !sync)) continue;
          const ahead = numbers[0]! - numbers[1]!;
          assert.ok(ahead === 0 || ahead === 1, `${numbers.join(" and ")}`);
        }
        assert.deepEqual((await client.verifyAll()).problems, []);
        assertHeldTidy(place, "written to");
      },
      { fill: makeFirst },
    );

  clause(
    "an aborted save makes one complete point or none, and leaves no temporary files",
    async (place) => {
      const { client, folder } = place;
      await client.save();
      await client.seal();
      const codes = new Set<string>();
      for (const ms of [0, 1, 3, 8, 20]) {
        fs.appendFileSync(path.join(folder, "big"), `${ms}`);
        const before = (await client.history(undefined, 0, { all: true })).save_points.length;
        const stop = new AbortController();
        const timer = setTimeout(() => stop.abort(), ms);
        if (ms === 0) stop.abort();
        const code = await client.save({ signal: stop.signal }).then(
          () => "done",
          (error: CairnError) => error.code,
        );
        clearTimeout(timer);
        codes.add(code);
        const { save_points: points, damaged } = await client.history(undefined, 0, { all: true });
        assert.deepEqual([points.length, damaged], [before + (code === "done" ? 1 : 0), []], code);
        assertHeldTidy(place, `stopped after ${ms} ms`);
      }
      assert.ok(codes.has("interrupted") && codes.size <= 2, [...codes].join());
      await client.save();
      await client.seal();
      assert.equal(
        (await client.history(undefined, 0, { all: true })).save_points[0]!.payload_root_hash,
        walkDigests(folder).state,
      );
      assert.deepEqual((await client.verifyAll()).problems, []);
      assertHeldTidy(place, "stopped");
    },
    { fill: makeFirst },
  );

  clause(
    "an aborted restore leaves the folder unchanged or completely restored",
    async (place) => {
      const { client, folder } = place;
      const first = readFolder(folder);
      const { save_point_id: id } = await client.save();
      makeSecond(folder);
      makeUnsaved(folder);
      const unsaved = readFolder(folder);
      for (const ms of [0, 5, 20, 60]) {
        const stop = new AbortController();
        const timer = setTimeout(() => stop.abort(), ms);
        if (ms === 0) stop.abort();
        const code = await client.restore({ target: id, signal: stop.signal }).then(
          () => "done",
          (error: CairnError) => error.code,
        );
        clearTimeout(timer);
        assert.equal(oneOf(folder, { first, unsaved }, `after ${ms} ms`), code === "done" ? "first" : "unsaved");
        assert.ok(code === "done" || code === "interrupted", code);
        if (code === "done") await client.undo();
        assertFolder(folder, unsaved, "undone");
        assertHeldTidy(place, `stopped after ${ms} ms`);
      }
      await client.save();
      await client.seal();
      assertHeldTidy(place, "stopped");
    },
    { fill: makeFirst },
  );

  clause(
    "during a restore the folder's path and its unchanged entries always exist",
    async ({ client, folder }, t) => {
      const method = atomic ? "exchange" : "entries";
      const points = [await client.save()];
      makeSecond(folder);
      points.push(await client.save());
      const script = `
import os, sys
count = 0
os.write(1, b"r")
while not os.path.exists(sys.argv[2]):
    os.stat(sys.argv[1]); os.stat(sys.argv[1] + "/same/kept.txt"); count += 1
print(count)
`;
      const stop = `${folder}.stop`;
      const watcher = spawn("python3", ["-c", script, folder, stop], { stdio: ["ignore", "pipe", "inherit"] });
      t.after(() => watcher.kill());
      const ended = once(watcher, "close");
      await once(watcher.stdout, "data");
      let said = "";
      watcher.stdout.on("data", (text: Buffer) => (said += text.toString()));
      for (let i = 0; i < (atomic ? 20 : 8); i++) {
        const restored = await client.restore({ target: points[i % 2]!.save_point_id, method });
        assert.equal(restored.method, method);
      }
      fs.writeFileSync(stop, "");
      const [code] = (await ended) as [number];
      assert.equal(code, 0);
      assert.ok(Number(said) > 100, said);
    },
    { fill: makeFirst },
  );
}
