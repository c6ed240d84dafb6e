import { sendDatagram } from "./datagram.ts";

/** Tells systemd the daemon's state, as sd_notify(3) does. Does nothing without `NOTIFY_SOCKET`. */
export function notify(state: string, env = process.env): void {
  const path = env["NOTIFY_SOCKET"];
  if (path !== undefined && path !== "") sendDatagram(path, Buffer.from(state), { waits: true });
}
