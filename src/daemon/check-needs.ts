import { statSync } from "node:fs";
import type { BackupRepository, RepositoryOptions } from "../contract/index.ts";
import { adviceOf, CairnError, toCairnError } from "../errors.ts";
import { checkAlarmSyntax } from "../keep/alarm.ts";
import { printablePath } from "../fs/paths/safe-path.ts";
import type { DaemonConfig } from "./config.ts";
import { passwordOf } from "../keep/tasks.ts";

/** Milliseconds for a repository to answer. */
const PATIENCE_MS = 60_000;

interface Needs {
  /** The error with which a daemon with this configuration would not start; null if it would. */
  whyRefused: () => CairnError | null;
  /** Listens on the address and lets it go. A program that has it now may be the daemon. */
  listen: (address: string) => Promise<void>;
  openRepository: (options: RepositoryOptions) => Promise<BackupRepository>;
  /** Reads the certificate and its key. */
  readTls: (certificate: string, key: string) => unknown;
}

/**
 * Tries all that a daemon with this configuration will need: folders, group, certificate, password files, repositories.
 * Changes nothing. Throws `usage` that names each thing that is missing or does not open, with the hint of the first.
 */
export async function checkNeeds({ alarm, backup, http }: DaemonConfig, needs: Needs): Promise<void> {
  const failed: CairnError[] = [];
  const attempt = async (what: string, work: () => unknown): Promise<boolean> => {
    try {
      await work();
      return true;
    } catch (error) {
      const known = toCairnError(error);
      failed.push(new CairnError(known.code, `${what}: ${known.message}`, { hint: adviceOf(known) }));
      return false;
    }
  };
  const { certificate, key, listen } = http;
  if (certificate !== null && key !== null) await attempt("http", () => needs.readTls(certificate, key));
  if (listen !== null) await attempt("http.listen", async () => needs.listen(listen));
  const { on_failure: onFailure } = alarm;
  if (onFailure !== null) await attempt("alarm.on_failure", async () => checkAlarmSyntax(onFailure));
  for (const row of backup) {
    const { repository, workspace } = row;
    const shown = `[[backup]] ${printablePath(repository)}`;
    if (workspace !== null) await attempt(shown, () => statSync(workspace));
    let password = new Uint8Array();
    if (!(await attempt(shown, async () => (password = Uint8Array.from(await passwordOf(row)))))) continue;
    await attempt(shown, async () => {
      const signal = AbortSignal.timeout(PATIENCE_MS);
      await using _open = await needs.openRepository({ repository, password: async () => password, signal });
    });
  }
  const refused = needs.whyRefused();
  if (refused !== null && failed.length === 0) throw refused;
  if (refused !== null) failed.unshift(refused);
  const [first] = failed;
  if (first === undefined) return;
  throw new CairnError("usage", failed.map(({ message }) => message).join("\n"), {
    hint: adviceOf(first) ?? "correct the configuration: the daemon would start with it, but this part would not work",
  });
}
