import { existsSync, fstatSync } from "node:fs";
import { sendDatagram } from "../datagram.ts";

/** systemd's journal by its native protocol, whose fields are searched for by `journalctl`. */

const SOCKET = "/run/systemd/journal/socket";
const STDERR = 2;

/** The journal's socket where standard error is a stream of it, as `JOURNAL_STREAM` says; else null. */
export function journalOf(env: Readonly<Record<string, string | undefined>>, socket = SOCKET): string | null {
  const [, device, inode] = /^(\d+):(\d+)$/.exec(env["JOURNAL_STREAM"] ?? "") ?? [];
  if (device === undefined || inode === undefined) return null;
  try {
    const { dev, ino } = fstatSync(STDERR, { bigint: true });
    return String(dev) === device && String(ino) === inode ? socket : null;
  } catch {
    return null;
  }
}

/** True where systemd keeps a journal on this machine. */
export function isJournalKept(): boolean {
  return existsSync(SOCKET);
}

/** Sends one entry, whose values have no line break in them. False where the journal did not take it. */
export function sendToJournal(socket: string, members: Readonly<Record<string, string | undefined>>): boolean {
  const lines = Object.entries(members).flatMap(([name, value]) => (value === undefined ? [] : [`${name}=${value}\n`]));
  return sendDatagram(socket, Buffer.from(lines.join("")));
}
