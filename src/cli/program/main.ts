/** Runs the command of this process. */
export async function main(): Promise<void> {
  const [{ runProcess }, { openLibrary }] = await Promise.all([import("./process.ts"), import("../library.ts")]);
  await runProcess(process.argv.slice(2), openLibrary);
}
