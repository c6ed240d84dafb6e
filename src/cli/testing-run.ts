/** Runs the command line in this process on a fake library and keeps what it wrote. Test only. */
import { join } from "node:path";
import { runCli } from "./program/cli.ts";
import type { CliInput, OutputSink } from "./program/cli.ts";
import type { Envelope } from "./envelope.ts";
import { fakeLibrary } from "./testing-fake-library.ts";
import type { FakeLibrary } from "./testing-fake-library.ts";

// What a command starts is this command again, on the fake library, and not the test's file.
process.argv[1] = join(import.meta.dirname, "testing-entry.ts");

export interface RunSettings {
  fake?: FakeLibrary;
  cwd?: string;
  env?: Record<string, string | undefined>;
  terminal?: boolean;
  signal?: AbortSignal;
}

export interface Ran {
  status: number;
  stdout: string;
  stderr: string;
  fake: FakeLibrary;
}

export async function runFake(argv: readonly string[], settings: RunSettings = {}): Promise<Ran> {
  const fake = settings.fake ?? fakeLibrary();
  const [stdout, stderr] = [keepingSink(settings.terminal ?? false), keepingSink(settings.terminal ?? false)];
  const input: CliInput = {
    argv,
    cwd: settings.cwd ?? "/tmp/cairn-fake/project",
    env: { PAGER: "", ...settings.env },
    stdout: stdout.sink,
    stderr: stderr.sink,
    signal: settings.signal ?? new AbortController().signal,
    openLibrary: () => Promise.resolve(fake.library),
  };
  const status = await runCli(input);
  return { status, stdout: stdout.text(), stderr: stderr.text(), fake };
}

/** The same with `--json`; stdout has to be exactly one line with one object. */
export async function runJson(
  argv: readonly string[],
  settings: RunSettings = {},
): Promise<Ran & { envelope: Envelope }> {
  const ran = await runFake(["--json", ...argv], settings);
  const lines = ran.stdout.split("\n");
  if (lines.length !== 2 || lines[1] !== "") throw new Error(`not one line: ${JSON.stringify(ran.stdout)}`);
  return { ...ran, envelope: JSON.parse(lines[0] ?? "") as Envelope };
}

/** Keeps what is written to it. */
export function keepingSink(isTerminal: boolean): { sink: OutputSink; text(): string } {
  const pieces: Buffer[] = [];
  const sink: OutputSink = {
    write(chunk) {
      pieces.push(Buffer.from(chunk));
      return Promise.resolve();
    },
    isTerminal,
    columns: 80,
    closed: false,
  };
  return { sink, text: () => Buffer.concat(pieces).toString() };
}
