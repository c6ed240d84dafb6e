import { failpoint } from "../failpoint.ts";
import type { FolderMove, ServedWorkspace } from "../formats/records/daemon-state.ts";
import type { KeptState } from "./state/kept-state.ts";
import { requireConvertible } from "../workspace/care/convert.ts";
import { checkLocation } from "../workspace/place/guards.ts";
import { controlOf, releasedRegistration } from "../workspace/place/registry.ts";
import { followFolder } from "../workspace/place/move-record.ts";
import { finishMove, linkAgain, type MoveCall, moveFolder, planMove, planMoveBack } from "./move-folder.ts";

/** Throws `refused` and others for a folder that nobody adopts, and for what a copy does not have or leaves behind. Changes nothing. */
export async function requireMovable(folder: Buffer, { allow, signal }: MoveCall): Promise<void> {
  checkLocation(folder, { allow });
  await requireConvertible(folder, { place: folder.toString("utf8"), allow, signal, to: "plain" });
}

/** Moves of folders onto the image and back, of which the state knows until they have ended. */
export class Moves {
  readonly #kept: KeptState;

  constructor(kept: KeptState) {
    this.#kept = kept;
  }

  /** Moves that a kill has left. */
  get left(): readonly FolderMove[] {
    return this.#kept.state.moves ?? [];
  }

  /** Moves a folder (its real path) onto a mount; to be ended once the workspace is listed. */
  async onto(folder: string, mount: string, options: MoveCall): Promise<FolderMove> {
    return this.#carryOut(planMove(folder, mount), options);
  }

  /** Moves a folder back to the path that is a link to it. */
  async back(link: string, target: string, options: MoveCall): Promise<FolderMove> {
    const move = await this.#carryOut(planMoveBack(link, target), options);
    await finishMove(move);
    return move;
  }

  async #carryOut(move: FolderMove, options: MoveCall): Promise<FolderMove> {
    this.#kept.change({ moves: [...this.left, move] });
    failpoint("daemon-move.intent");
    try {
      await moveFolder(move, options);
      return move;
    } catch (error) {
      this.end(move);
      throw error;
    }
  }

  /** Goes on with one that a kill has left. */
  async finish(move: FolderMove): Promise<"moved" | "not moved" | "unknown"> {
    return finishMove(move);
  }

  /** Has a workspace whose folder is back at its own path follow it there. */
  async follow(served: ServedWorkspace, path: string): Promise<void> {
    await followFolder({ root: served.control_directory, id: served.id }, Buffer.from(path), {});
  }

  /** Has the points of a released folder follow it onto the image, whose path is a link now. False if it has none. */
  async followReleased(link: string, target: string): Promise<boolean> {
    const released = releasedRegistration(link);
    if (released === null) return false;
    await followFolder({ root: controlOf(released), id: released.workspace_id }, Buffer.from(target), {});
    return true;
  }

  end({ aside }: FolderMove): void {
    this.#kept.change({ moves: this.left.filter((each) => each.aside !== aside) });
  }

  /** Makes links that are gone again; returns them. */
  linkAgain(): string[] {
    return this.#kept.state.workspaces.flatMap(({ link, path }) =>
      link !== undefined && linkAgain(link, path) ? [link] : [],
    );
  }
}
