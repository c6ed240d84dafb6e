import type { JSX } from "preact";

/** Paths of the icons, on a grid of 16 units; the icon has the colour of the text around it. */
const PATHS = {
  archive: "M2 2.500h12v3H2zM3 5.500v8h10v-8M6.500 8.500h3",
  close: "m4 4 8 8m0-8-8 8",
  compare: "M5.500 3v10M2.500 5.500 5.500 2.500l3 3M10.500 13V3M7.500 10.500l3 3 3-3",
  download: "M8 2v8m-3.5-3L8 10.500 11.500 7M3 13.500h10",
  file: "M4 2h5l3 3v9H4zM9 2v3h3",
  folder: "M2 4h4l1.500 1.500H14V13H2z",
  fork: "M5 4.500v7M5 8c0-2 6-1 6-3.500M5 4.500A1.300 1.300 0 1 0 5 2a1.300 1.300 0 0 0 0 2.500zM11 4.500A1.300 1.300 0 1 0 11 2a1.300 1.300 0 0 0 0 2.500zM5 14a1.300 1.300 0 1 0 0-2.500A1.300 1.300 0 0 0 5 14z",
  history: "M2.500 8a5.500 5.500 0 1 1 1.600 3.900M2.500 4v4h4M8 5v3.500l2.500 1.500",
  link: "M6.500 9.500 9.500 6.500M7 5l1.500-1.500a2.800 2.800 0 0 1 4 4L11 9M9 11l-1.500 1.500a2.800 2.800 0 0 1-4-4L5 7",
  menu: "M2 4.500h12M2 8h12M2 11.500h12",
  pin: "m9.500 2 4.500 4.500-2.500.500-2.500 2.500-.500 3.500L3 7.500 6.500 7 9 4.500zM5.500 10.500 2 14",
  question: "M5.500 6a2.500 2.500 0 1 1 3.500 2.300c-.700.300-1 .800-1 1.700M8 12.500v.500",
  redo: "M10 3 13.500 6.500 10 10M13.500 6.500H6a3.500 3.500 0 0 0 0 7h3",
  restore: "M3 8a5 5 0 1 0 1.500-3.500L3 6M3 2.500V6h3.500",
  search: "M7 12A5 5 0 1 0 7 2a5 5 0 0 0 0 10zm3.600-1.400L14 14",
  tag: "M2 2h6l6 6-6 6-6-6zM5 5h.010",
  undo: "M6 3 2.500 6.500 6 10M2.500 6.500H10a3.500 3.500 0 0 1 0 7H7",
  warning: "M8 2 1.500 13.500h13zM8 6.500v3M8 11.500v.500",
} as const;
export type IconName = keyof typeof PATHS;

export function Icon({ name, label }: { name: IconName; label?: string }): JSX.Element {
  const spoken = label === undefined ? { "aria-hidden": true as const } : { role: "img" as const, "aria-label": label };
  return (
    <svg class="icon" viewBox="0 0 16 16" width="16" height="16" {...spoken}>
      <path d={PATHS[name]} />
    </svg>
  );
}
