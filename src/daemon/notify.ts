import { sendDatagram } from "./datagram.ts";

/** Tells systemd how the daemon is, as sd_notify(3) does; nothing where nobody asked. */
export function notify(state: string, env = process.env): void {
  const path = env["NOTIFY_SOCKET"];
  if (path !== undefined && path !== "") sendDatagram(path, Buffer.from(state), { waits: true });
}
