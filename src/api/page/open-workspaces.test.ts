import assert from "node:assert/strict";
import { test } from "node:test";
import type { CairnLibrary, Client } from "../../contract/index.ts";
import { CairnError } from "../../errors.ts";
import { OpenWorkspaces } from "./open-workspaces.ts";

process.env["CAIRN_SOCKET"] = "none";

interface Counted {
  workspaces: OpenWorkspaces;
  libraries: number;
  opened: string[];
  closed: string[];
  /** Paths that are no workspaces now. */
  gone: Set<string>;
}

function counting(): Counted {
  const counted: Omit<Counted, "workspaces"> = { libraries: 0, opened: [], closed: [], gone: new Set() };
  const open = async (path: string): Promise<Client> => {
    counted.opened.push(path);
    if (counted.gone.has(path)) throw new CairnError("not_a_workspace", path);
    return { close: async () => void counted.closed.push(path) } as unknown as Client;
  };
  const workspaces = new OpenWorkspaces(async () => {
    counted.libraries++;
    return { open } as unknown as CairnLibrary;
  });
  return Object.assign(counted, { workspaces });
}

const noDaemon = (): CairnError => new CairnError("no_daemon", "gone");

test("a workspace is opened once, and the least recently used workspace is closed", async () => {
  const { workspaces, opened, closed } = counting();
  const paths = Array.from({ length: 17 }, (_, i) => `/${i}`);
  for (const path of [...paths.slice(0, 16), "/0"]) await workspaces.with(path, async () => undefined);
  assert.deepEqual([opened.length, closed], [16, []]);
  await workspaces.with("/1", async () => {
    await workspaces.with("/16", async () => undefined);
    await workspaces.with("/17", async () => undefined);
  });
  assert.deepEqual(closed, ["/2", "/3"], "one that is in use is not");
  await workspaces.close();
  assert.equal(closed.length, opened.length);
});

test("a call is repeated once with a new library if its daemon is gone", async () => {
  const counted = counting();
  const { workspaces, closed } = counted;
  let calls = 0;
  const answer = await workspaces.with("/a", async () => {
    if (calls++ === 0) throw noDaemon();
    return 7;
  });
  assert.deepEqual([answer, calls, counted.libraries, closed], [7, 2, 2, ["/a"]]);
  await assert.rejects(
    workspaces.with("/a", async () => Promise.reject(noDaemon())),
    { code: "no_daemon" },
  );
  assert.equal(counted.libraries, 3, "only once more");
});

test("a folder that was not or is no longer a workspace is opened again by the next call", async () => {
  const { workspaces, opened, closed, gone } = counting();
  gone.add("/a");
  const use = async (): Promise<string> => workspaces.with("/a", async () => "used");
  await assert.rejects(use(), { code: "not_a_workspace" });
  gone.delete("/a");
  assert.equal(await use(), "used");
  const stale = new CairnError("not_a_workspace", "released");
  await assert.rejects(
    workspaces.with("/a", async () => Promise.reject(stale)),
    stale,
  );
  assert.deepEqual([await use(), opened.length, closed.length], ["used", 3, 1]);
});
