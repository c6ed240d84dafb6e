import { type Signal, useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { nameOf, type PathRef, toInput, toText } from "./address.ts";
import { client } from "./session.ts";

/** True if the name has the ending of a picture that browsers can show. */
export function isPicture(path: string): boolean {
  return /\.(?:png|jpe?g|gif|webp|avif|bmp)$/i.test(path);
}

/**
 * Returns an address that gives a file's content once; null until the server has made it. `point` null: the present
 * folder.
 */
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
