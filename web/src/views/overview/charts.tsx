import type { HistoryDaysResult } from "cairnstate/client";
import type { JSX } from "preact";
import { count, plural, size } from "../../parts/numbers.ts";
import { dayName } from "../../parts/values.tsx";
import { growthOf } from "./facts.ts";

/** Size of the drawings in units of their own; the style sheet gives them their place before the answer comes. */
const WIDTH = 240;
const HEIGHT = 40;
const BAR = 8;

/** Charts of a folder's growth, and of the bytes of its points beside those of whole copies. */
export function Charts({
  sizes,
  stored,
}: {
  sizes: HistoryDaysResult | null | undefined;
  stored: number;
}): JSX.Element {
  return (
    <div class="charts">
      {sizes === undefined || sizes === null || sizes.days.length === 0 ? null : (
        <>
          <Growth sizes={sizes} />
          <Deduplication sizes={sizes} stored={stored} />
        </>
      )}
    </div>
  );
}

function Growth({ sizes }: { sizes: HistoryDaysResult }): JSX.Element | null {
  const steps = growthOf(sizes);
  const [first, last] = [steps[0], steps.at(-1)];
  if (first === undefined || last === undefined) return null;
  const y = (height: number): number => HEIGHT - 1 - height * (HEIGHT - 4);
  const line = steps.map(
    ({ at, height }, i) => `${i === 0 ? "M" : "H"}${at * WIDTH} ${i === 0 ? "" : "V"}${y(height)}`,
  );
  const path = `${line.join("")}H${WIDTH}`;
  const words =
    first.day === last.day
      ? `The folder has ${size(last.bytes)}`
      : `The folder ${last.bytes < first.bytes ? "shrank" : "grew"} from ${size(first.bytes)} on ${dayName(first.day)} to ${size(last.bytes)} on ${dayName(last.day)}`;
  return (
    <figure>
      <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" role="img" aria-label={words}>
        <title>{words}</title>
        <path class="chart-area" d={`${path}V${HEIGHT}H0Z`} />
        <path class="chart-line" d={path} />
      </svg>
      <figcaption>
        folder: {size(last.bytes)}
        {first.day !== last.day && <span class="faint"> since {dayName(first.day)}</span>}
      </figcaption>
    </figure>
  );
}

function Deduplication({ sizes, stored }: { sizes: HistoryDaysResult; stored: number }): JSX.Element {
  const { total, copies_bytes: copies } = sizes;
  const most = Math.max(copies, stored, 1);
  const words = `${plural(total, "save point")} take up ${size(stored)}; as copies of the folder they would take up about ${size(copies)}`;
  const times = copies / Math.max(stored, 1);
  return (
    <figure>
      <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" role="img" aria-label={words}>
        <title>{words}</title>
        <rect class="chart-area" x="0" y="6" width={(copies / most) * WIDTH} height={BAR} />
        <rect class="chart-bar" x="0" y="22" width={Math.max((stored / most) * WIDTH, 1)} height={BAR} />
      </svg>
      <figcaption>
        kept: {size(stored)}
        {times >= 2 && <span class="faint">, {count(Math.round(times))}× less</span>}
      </figcaption>
    </figure>
  );
}
