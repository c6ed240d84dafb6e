import assert from "node:assert/strict";
import fs from "node:fs";
import { makeRepository } from "../../src/backup/testing-repository.ts";
import type { BackupRepository } from "../../src/contract/index.ts";
import { makeFirst, makeSecond } from "../fixtures/two-states.ts";
import type { Live } from "./replay.ts";

/** A repository with two backups, and the checks of commands during which the power was cut. */

export const PASSWORD = "correct horse";

export async function withRepository<T>(
  live: Live,
  work: (repository: BackupRepository) => Promise<T>,
  password = PASSWORD,
): Promise<T> {
  await using repository = await (await live.library()).openRepository({ repository: live.at("repository"), password });
  return await work(repository);
}

/** A repository with backups of two points. */
export async function twoBackups(live: Live): Promise<readonly string[]> {
  await makeRepository({ repository: live.at("repository"), password: PASSWORD });
  fs.writeFileSync(live.at("password"), `${PASSWORD}\n`);
  makeFirst(live.folder);
  for (const make of [() => undefined, () => makeSecond(live.folder)]) {
    make();
    await live.save();
    const client = await live.client();
    await withRepository(live, async (into) => client.createBackup(into));
  }
  return ["-r", live.at("repository"), "--password-file", live.at("password")];
}

/** All snapshots are there and whole; returns how many there are. */
export async function checkedSnapshots(live: Live): Promise<number> {
  return withRepository(live, async (repository) => {
    const { problems } = await repository.verify();
    // A note is a pack that an interrupted run left.
    assert.deepEqual(
      problems.filter(({ severity }) => severity !== "note"),
      [],
    );
    const { snapshots } = await repository.list();
    return snapshots.length;
  });
}

/** A later backup succeeds. */
export async function backUpAgain(live: Live): Promise<void> {
  const client = await live.client();
  await withRepository(live, async (into) => client.createBackup(into, { skipIfUnchanged: true }));
}
