import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";

/** Rows above and below the visible ones that are rendered too. */
const SPARE = 8;

export interface VirtualListProps {
  /** Number of rows. */
  count: number;
  /** Height of each row in pixels, as the style sets it. */
  rowHeight: number;
  row(index: number): JSX.Element;
  /** Called with the range of rendered rows whenever it changes. */
  onRange?(first: number, end: number): void;
  /** Row that is scrolled into view when it changes. */
  active?: number | undefined;
  label: string;
  role?: "list" | "listbox" | "rowgroup" | "tree";
}

/** A list of any length that renders only its visible rows. */
export function VirtualList(props: VirtualListProps): JSX.Element {
  const { count, rowHeight, row, onRange, active, label, role = "list" } = props;
  const box = useRef<HTMLDivElement>(null);
  const top = useSignal(0);
  const height = useSignal(800);
  useLayoutEffect(() => {
    const watched = new ResizeObserver(([entry]) => (height.value = entry!.contentRect.height));
    watched.observe(box.current!);
    return () => watched.disconnect();
  }, []);
  const first = Math.max(0, Math.min(count, Math.floor(top.value / rowHeight)) - SPARE);
  const end = Math.min(count, Math.ceil((top.value + height.value) / rowHeight) + SPARE);
  useEffect(() => onRange?.(first, end), [first, end, count]);
  // The active row may be loaded later than the list.
  const isShown = active !== undefined && active < count;
  useLayoutEffect(() => {
    const { current } = box;
    if (!isShown || active < 0 || current === null) return;
    const start = active * rowHeight;
    if (start < current.scrollTop) current.scrollTop = start;
    else if (start + rowHeight > current.scrollTop + current.clientHeight)
      current.scrollTop = start + rowHeight - current.clientHeight;
  }, [active, isShown]);
  const rows: JSX.Element[] = [];
  for (let index = first; index < end; index++) rows.push(row(index));
  return (
    <div
      ref={box}
      class="virtual"
      role={role}
      aria-label={label}
      tabIndex={0}
      onScroll={(event) => (top.value = event.currentTarget.scrollTop)}
    >
      <div class="virtual-all" role="presentation" style={{ height: `${count * rowHeight}px` }}>
        <div class="virtual-drawn" role="presentation" style={{ transform: `translateY(${first * rowHeight}px)` }}>
          {rows}
        </div>
      </div>
    </div>
  );
}
