import { existsSync, fstatSync } from "node:fs";
import { sendDatagram } from "../datagram.ts";

/** Socket of systemd's journal for its native protocol, whose fields `journalctl` can search. */

const SOCKET = "/run/systemd/journal/socket";
const STDERR = 2;

/** Returns the journal's socket if standard error is a stream of the journal (by `JOURNAL_STREAM`), else null. */
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

/** True if systemd keeps a journal on this machine. */
export function isJournalKept(): boolean {
  return existsSync(SOCKET);
}

/** Sends one entry, whose values have no line breaks. False if the journal did not take the entry. */
export function sendToJournal(socket: string, members: Readonly<Record<string, string | undefined>>): boolean {
  const lines = Object.entries(members).flatMap(([name, value]) => (value === undefined ? [] : [`${name}=${value}\n`]));
  return sendDatagram(socket, Buffer.from(lines.join("")));
}
