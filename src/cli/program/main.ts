/** Runs the command of this process. */
export async function main(): Promise<void> {
  const [{ runProcess }, { openLibrary }] = await Promise.all([import("./process.ts"), import("../library.ts")]);
  // The timers and crontab lines of earlier versions call `backup due`.
  const isOldName = process.argv[2] === "backup" && process.argv[3] === "due";
  await runProcess(process.argv.slice(isOldName ? 3 : 2), openLibrary);
}
