/** The command line as a process on the fake library, for tests of signals, pipes and terminals. Test only. */
import { runProcess } from "./program/process.ts";
import { CairnError } from "../errors.ts";
import { fakeLibrary, SAVED } from "./testing-fake-library.ts";
import type { CallOptions } from "../contract/index.ts";

const fake = fakeLibrary({
  backupRepository: () => ({
    repository: "/srv/backups",
    password_file: null,
    password_command: null,
    age_identity: null,
  }),
  save: async (options: CallOptions) => {
    if (process.env["FAKE_SAVE"] === undefined) return SAVED;
    process.stderr.write("waiting\n");
    const alive = setInterval(() => options.onProgress?.({ phase: "scanning", done: 1 }), 20);
    await new Promise((stopped) => options.signal?.addEventListener("abort", stopped));
    if (process.env["FAKE_SAVE"] === "hold") await new Promise(() => undefined);
    clearInterval(alive);
    throw new CairnError("interrupted", "stopped by the caller");
  },
});
await runProcess(process.argv.slice(2), () => Promise.resolve(fake.library));
