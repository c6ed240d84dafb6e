import type { SavePointId } from "../ids.ts";
import { currentUser } from "../fs/users.ts";

/** The first port, and how many users have one of their own, so that bookmarks stay good. */
const FIRST_PORT = 7000;
const PORTS = 700;

/** Port at which the page of `cairn ui` answers if no other program has it. */
export function pagePort(): number {
  return FIRST_PORT + (currentUser().uid % PORTS);
}

/** Address of a save point in the page, without the code that signs in. */
export function pageOfPoint(workspace: string, point: SavePointId): string {
  return `http://127.0.0.1:${pagePort()}/#/point?w=${encodeURIComponent(workspace)}&p=${point}`;
}
