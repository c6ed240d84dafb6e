import type { SavePointId } from "../ids.ts";
import { currentUser } from "../fs/users.ts";

/** The first port, and the number of users who have their own port, so that bookmarks stay valid. */
const FIRST_PORT = 7000;
const PORTS = 700;

/** The port of the page of `cairn ui`, if no other program has it. */
export function pagePort(): number {
  return FIRST_PORT + (currentUser().uid % PORTS);
}

/** Address of a save point in the page, without the sign-in code. */
export function pageOfPoint(workspace: string, point: SavePointId): string {
  return `http://127.0.0.1:${pagePort()}/#/point?w=${encodeURIComponent(workspace)}&p=${point}`;
}
