import { type Signal, useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { nameOf, type PathRef, toInput, toText } from "./address.ts";
import { client } from "./session.ts";

/** True for a name that browsers can show as a picture. */
export function isPicture(path: string): boolean {
  return /\.(?:png|jpe?g|gif|webp|avif|bmp)$/i.test(path);
}

/** The address of a file's content, for one use; null until it is there. `point` null: the folder as it is now. */
export function useContentAddress(
  { workspace, point, at }: { workspace: string; point: string | null; at: PathRef },
  { isWanted, onProblem }: { isWanted: boolean; onProblem(message: string): void },
): Signal<string | null> {
  const address = useSignal<string | null>(null);
  useEffect(() => {
    if (!isWanted) return;
    void client()
      .ticket({ workspace, target: point, path: toInput(at), as: "file", name: nameOf(at.path) })
      .then(({ url }) => (address.value = url))
      .catch((error: unknown) => onProblem((error as Error).message));
  }, [point, toText(at)]);
  return address;
}
