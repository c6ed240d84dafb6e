import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { hasCode, testFolder } from "../../keep/testing-folder.ts";

/** A repository that the page makes, killed and failing at each step. */

const FIRST_USE = new URL("first-use.ts", import.meta.url).href;
const OPEN_WORKSPACES = new URL("open-workspaces.ts", import.meta.url).href;
const LIBRARY = new URL("../../compose.ts", import.meta.url).href;

interface Asked {
  status: number | null;
  answer: { repository: string; password_file: string; made: boolean };
  error: { code: string } | null;
}

async function scene(t: TestContext) {
  const { library, root, folder } = await testFolder(t, { a: "one" });
  const repository = join(root, "repository");
  const passwords = join(root, "state/cairn/passwords");
  const files = (): string[] => (existsSync(passwords) ? readdirSync(passwords) : []);
  const ask = (failpoint = "", place = repository): Asked => {
    const script = `
      import { answerFirstUse } from ${JSON.stringify(FIRST_USE)};
      import { OpenWorkspaces } from ${JSON.stringify(OPEN_WORKSPACES)};
      import { openLibrary } from ${JSON.stringify(LIBRARY)};
      const workspaces = new OpenWorkspaces(async () => openLibrary());
      const members = ${JSON.stringify({ workspace: folder, repository: place })};
      const done = { answer: null, error: null };
      try { done.answer = await answerFirstUse("/repositories", members, { workspaces, isReadOnly: false }); }
      catch ({ code, message }) { done.error = { code, message }; }
      console.log(JSON.stringify(done));`;
    const args = ["--input-type=module-typescript", "--eval", script];
    const { status, stdout, stderr } = spawnSync(process.execPath, args, {
      env: { ...process.env, CAIRN_FAILPOINT: failpoint },
      encoding: "utf8",
    });
    if (failpoint === "") assert.equal(status, 0, stderr);
    else assert.match(stderr, new RegExp(`failpoint ${failpoint}`));
    return { status, ...(stdout === "" ? { answer: null!, error: null } : (JSON.parse(stdout) as Asked)) };
  };
  return { library, root, repository, passwords, files, ask };
}

for (const failpoint of ["new-repository.password", "new-repository.made"])
  test(`a new repository of the page that was killed at ${failpoint} is opened by its password file afterwards`, async (t) => {
    const { library, repository, passwords, files, ask } = await scene(t);
    ask(failpoint);
    assert.equal(existsSync(join(repository, "config")), failpoint === "new-repository.made");
    const [file, ...others] = files();
    assert.deepEqual(others, []);
    const { answer, error } = ask();
    assert.equal(error, null);
    assert.deepEqual(answer, { repository, password_file: join(passwords, file!), made: true });
    assert.deepEqual(files(), [file]);
    const password = readFileSync(answer.password_file, "utf8").trim();
    await (await library.openRepository({ repository, password })).close();
  });

test("a new repository of the page that fails leaves no password file, and never removes an earlier one", async (t) => {
  const { library, root, repository, files, ask } = await scene(t);
  writeFileSync(join(root, "file"), "in the way");
  assert.notEqual(ask("", join(root, "file/repository")).error, null);
  assert.deepEqual(files(), [], "nothing was made");
  await (await library.initRepository({ repository, password: "of somebody else" })).close();
  assert.equal(ask().error?.code, "already_exists");
  assert.deepEqual(files(), [], "the new password does not open the repository");
  const other = join(root, "other");
  const { answer } = ask("", other);
  const [file] = files();
  const password = readFileSync(answer.password_file, "utf8").trim();
  await assert.rejects(library.openRepository({ repository, password }), hasCode("wrong_password"));
  assert.equal(ask("", other).error, null, "the same password opens it");
  assert.deepEqual(files(), [file]);
});
