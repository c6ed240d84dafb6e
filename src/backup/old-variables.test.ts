import assert from "node:assert/strict";
import { test } from "node:test";
import { OpenRepository } from "./open/open-repository.ts";

test("opening an SFTP repository warns of environment variables of older versions", async () => {
  const env = { PATH: "/nowhere", CAIRN_SFTP_PASSWORD: "secret", CAIRN_SFTP_KEY_FILE: "/key" };
  for (const [repository, said] of [
    ["sftp:host:/srv/repo", ["CAIRN_SFTP_KEY_FILE, CAIRN_SFTP_PASSWORD are ignored"]],
    ["/nowhere/repo", []],
  ] as const) {
    const warnings: string[] = [];
    const onWarning = (text: string): void => void warnings.push(text.replace(/ because .*/, ""));
    const refuse = async (): Promise<never> => Promise.reject(new Error("not opened"));
    await assert.rejects(OpenRepository.open(refuse, { repository, password: "x", env, onWarning }), /not opened/);
    assert.deepEqual(warnings, said);
  }
});
