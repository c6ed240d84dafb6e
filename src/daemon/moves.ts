import { lstatSync, readlinkSync } from "node:fs";
import { advice, CairnError, line } from "../errors.ts";
import { isSubvolume } from "../fs/linux/btrfs.ts";
import { printablePath, shellPath } from "../fs/paths/safe-path.ts";
import { failpoint } from "../failpoint.ts";
import type { FolderMove, ServedWorkspace } from "../formats/records/daemon-state.ts";
import type { KeptState } from "./state/kept-state.ts";
import { requireConvertible } from "../workspace/care/convert.ts";
import { type Copied, requireNoHolders } from "../workspace/care/replace-folder.ts";
import { checkLocation } from "../workspace/place/guards.ts";
import { controlOf, releasedRegistration } from "../workspace/place/registry.ts";
import { followFolder } from "../workspace/place/move-record.ts";
import {
  finishMove,
  linkAgain,
  type MoveCall,
  type MoveEnd,
  moveFolder,
  planMove,
  planMoveBack,
} from "./move-folder.ts";

/** Throws `refused` for a folder that is no subvolume: there is nothing to make a plain folder of. */
export function requireSubvolume(folder: Buffer): void {
  if (isSubvolume(folder)) return;
  throw new CairnError("refused", `${printablePath(folder)} is a plain folder already`, {
    hint: advice`${line(`service unregister ${shellPath(folder)}`, "release", printablePath(folder))} has the daemon serve it no longer`,
  });
}

/** Throws `refused` and other errors for a folder that must not become a workspace, or that cannot be copied completely. Changes nothing. */
export async function requireMovable(folder: Buffer, { allow, signal }: MoveCall): Promise<void> {
  checkLocation(folder, { allow });
  await requireConvertible(folder, { place: folder.toString("utf8"), allow, signal, to: "plain" });
}

/** Throws `refused` unless a workspace's path is a link to its folder, which no process holds. */
function requireMovableBack(link: string, target: string, { allow }: MoveCall): void {
  const at = lstatSync(link, { throwIfNoEntry: false });
  if (at?.isSymbolicLink() !== true || readlinkSync(link) !== target)
    throw new CairnError(
      "refused",
      `${printablePath(link)} is no longer a link to ${printablePath(target)}, and was left as it is`,
      { hint: "move the present file or folder away, and make the link again" },
    );
  requireNoHolders(Buffer.from(target), allow);
}

/** Moves of folders onto the image and back. The state lists each move until it has ended. */
export class Moves {
  readonly #kept: KeptState;

  constructor(kept: KeptState) {
    this.#kept = kept;
  }

  get left(): readonly FolderMove[] {
    return this.#kept.state.moves ?? [];
  }

  /** Moves a folder (its real path) onto a mount. The caller ends the move once the workspace is listed. */
  async onto(folder: string, mount: string, options: MoveCall): Promise<FolderMove> {
    const move = planMove(folder, mount);
    await this.#carryOut(move, options);
    return move;
  }

  /** Moves a folder back to the path that is now a link to it. */
  async back(link: string, target: string, options: MoveCall): Promise<{ move: FolderMove; copied: Copied }> {
    requireMovableBack(link, target, options);
    const move = planMoveBack(link, target);
    const copied = await this.#carryOut(move, options);
    const { state } = await finishMove(move);
    if (state !== "moved")
      throw new CairnError("conflict", `${printablePath(link)} was changed while the folder was moved back to it`, {
        hint: `look at ${printablePath(move.aside)} and ${printablePath(target)}: nothing was removed`,
      });
    return { move, copied };
  }

  async #carryOut(move: FolderMove, options: MoveCall): Promise<Copied> {
    this.#note(move);
    failpoint("daemon-move.intent");
    return moveFolder(move, options, { note: (noted) => this.#note(noted), end: () => this.end(move) });
  }

  /** Finishes a move that was killed, or takes it back. */
  async finish(move: FolderMove): Promise<MoveEnd> {
    return finishMove(move);
  }

  /** Moves a workspace's records to its folder's own path, to which the folder came back. */
  async follow(served: ServedWorkspace, path: string): Promise<void> {
    await followFolder({ root: served.control_directory, id: served.id }, Buffer.from(path), {});
  }

  /** Moves a released folder's points to the folder on the image, because its path is a link now. False if it has no points. */
  async followReleased(link: string, target: string): Promise<boolean> {
    const released = releasedRegistration(link);
    if (released === null) return false;
    await followFolder({ root: controlOf(released), id: released.workspace_id }, Buffer.from(target), {});
    return true;
  }

  #note(move: FolderMove): void {
    this.#kept.change({ moves: [...this.#others(move), move] });
  }

  end(move: FolderMove): void {
    this.#kept.change({ moves: this.#others(move) });
  }

  #others({ aside }: FolderMove): FolderMove[] {
    return this.left.filter((each) => each.aside !== aside);
  }

  /** Makes the links from old paths to moved folders again, if they are missing. Returns their paths. */
  linkAgain(): string[] {
    return this.#kept.state.workspaces.flatMap(({ link, path }) =>
      link !== undefined && linkAgain(link, path) ? [link] : [],
    );
  }
}
