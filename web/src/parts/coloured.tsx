import type { JSX } from "preact";
import { useEffect, useMemo, useState } from "preact/hooks";
import { type Colour, colourFor } from "./colours.ts";
import { visible } from "./name.tsx";

/** Returns the colours of a file's language, once they are loaded; null until then, and for an unknown language. */
export function useColour(path: string): Colour | null {
  const [found, setFound] = useState<{ path: string; colour: Colour | null } | null>(null);
  useEffect(() => {
    let isWanted = true;
    // Without the library the text is shown all the same.
    void colourFor(path)
      .catch(() => null)
      .then((colour) => isWanted && setFound({ path, colour }));
    return () => void (isWanted = false);
  }, [path]);
  return found?.path === path ? found.colour : null;
}

/** Elements that colours may take: more of them make the page slow. */
const MOST_PIECES = 10_000;

/** The text of a file in the colours of its language; without colours if these would take too many elements. */
export function ColouredText({ path, text }: { path: string; text: string }): JSX.Element {
  const colour = useColour(path);
  const lines = useMemo(() => {
    const found = colour?.(text) ?? [];
    const pieces = found.flat();
    return pieces.length > MOST_PIECES || pieces.every(({ kind }) => kind === null) ? null : found;
  }, [colour, text]);
  if (lines === null) return <>{visible(text)}</>;
  return (
    <>
      {lines.map((line, i) => (
        <span key={i}>
          {line.map((piece, j) => (
            <span key={j} class={piece.kind === null ? undefined : `code-${piece.kind}`}>
              {visible(piece.text)}
            </span>
          ))}
          {i < lines.length - 1 && "\n"}
        </span>
      ))}
    </>
  );
}
