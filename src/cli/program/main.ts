import { VERSION } from "../../formats/program.ts";

/** Runs the command of this process. Answers `--version` before other modules are loaded. */
export async function main(): Promise<void> {
  const argv = process.argv.slice(2);
  if (argv.length === 1 && (argv[0] === "--version" || argv[0] === "-V")) {
    process.stdout.write(`${VERSION}\n`);
    return;
  }
  const [{ runProcess }, { openLibrary }] = await Promise.all([import("./process.ts"), import("../library.ts")]);
  await runProcess(argv, openLibrary);
}
