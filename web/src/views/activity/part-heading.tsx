import type { ComponentChildren, JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import type { ActivityPart } from "../../app/address.ts";
import { route } from "../../app/route.ts";

/** Milliseconds in which the content above a heading is expected to be loaded. */
const LOADING_MS = 3_000;

/** A heading that is scrolled into view if the address names its part of the activity. */
export function PartHeading({
  part,
  level: Level = "h2",
  children,
}: {
  part: ActivityPart;
  level?: "h2" | "h3";
  children: ComponentChildren;
}): JSX.Element {
  const heading = useRef<HTMLHeadingElement>(null);
  const at = route.value;
  const isAsked = at.view === "activity" && at.part === part;
  useEffect(() => {
    const own = heading.current;
    if (!isAsked || own === null) return undefined;
    // Content above the heading is loaded later, and moves the heading.
    const sized = new ResizeObserver(() => own.scrollIntoView());
    sized.observe(own.parentElement!);
    const late = setTimeout(() => sized.disconnect(), LOADING_MS);
    return () => {
      clearTimeout(late);
      sized.disconnect();
    };
  }, [isAsked]);
  return <Level ref={heading}>{children}</Level>;
}
