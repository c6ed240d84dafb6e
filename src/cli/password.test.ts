import assert from "node:assert/strict";
import test from "node:test";
import { CairnError } from "../errors.ts";
import { readPassword, type PasswordSources } from "./password.ts";

const SOURCES: PasswordSources = { variable: "PASSWORD", env: process.env, cwd: "/", question: "password" };

test(
  "a command that reads stdin finds it at its end, from the line and from a variable",
  { timeout: 10_000 },
  async () => {
    const command = "cat; echo pw";
    assert.equal(await readPassword({ ...SOURCES, command }), "pw");
    const env = { ...process.env, CAIRN_TO_PASSWORD_COMMAND: command };
    assert.equal(await readPassword({ ...SOURCES, env, variable: "TO_PASSWORD" }), "pw");
  },
);

test("a command that gives no password is told by how it ended", async () => {
  const told = async (command: string, how: RegExp): Promise<void> => {
    await assert.rejects(
      readPassword({ ...SOURCES, command }),
      (error) => error instanceof CairnError && error.code === "usage" && how.test(error.message),
    );
  };
  await told("exit 3", /password ended with status 3$/);
  await told("kill -KILL $$", /password was ended by SIGKILL$/);
});
