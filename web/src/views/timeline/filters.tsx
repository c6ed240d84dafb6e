import type { Signal } from "@preact/signals";
import type { JSX } from "preact";
import { Icon } from "../../parts/icon.tsx";
import { visible } from "../../parts/name.tsx";
import type { TimelinePoints } from "./points.ts";

/** The words of the filter that stand for something else than text, as in `historyOptions()`. */
const TERM = /(tag|path|since|until|cause):("[^"]*"|\S+)/g;
const DAYS: readonly (readonly [title: string, term: string])[] = [
  ["since yesterday", "since:yesterday"],
  ["in the last 7 days", 'since:"7 days ago"'],
  ["in the last 30 days", 'since:"30 days ago"'],
];

/** The terms of the filter as chips that can be removed, and a menu that adds one. */
export function Filters({
  typed,
  points,
  focus,
}: {
  typed: Signal<string>;
  points: TimelinePoints;
  /** Puts the cursor into the field of the filter. */
  focus(): void;
}): JSX.Element {
  void points.version.value;
  const terms = [...typed.value.matchAll(TERM)].map(([term]) => term);
  const add = (term: string): void => {
    typed.value = [typed.value.trim(), term].filter((each) => each !== "").join(" ");
    if (term.endsWith(":")) focus();
  };
  const remove = (term: string): void =>
    void (typed.value = typed.value.replace(term, "").replaceAll(/\s+/g, " ").trim());
  const { tags, agents } = points.labels();
  const term = (name: string, value: string): string => `${name}:${/\s/.test(value) ? `"${value}"` : value}`;
  return (
    <>
      <select
        class="filter-menu"
        aria-label="Add a filter"
        value=""
        onChange={(event) => {
          add(event.currentTarget.value);
          event.currentTarget.value = "";
        }}
      >
        <option value="" disabled>
          Filter by…
        </option>
        {tags.length > 0 && (
          <optgroup label="Tag">
            {tags.map((tag) => (
              <option key={tag} value={term("tag", tag)}>
                {visible(tag)}
              </option>
            ))}
          </optgroup>
        )}
        <optgroup label="Made">
          <option value="cause:person">by hand</option>
          {agents.map((agent) => (
            <option key={agent} value={term("cause", agent)}>
              by {visible(agent)}
            </option>
          ))}
        </optgroup>
        <optgroup label="Day">
          {DAYS.map(([title, value]) => (
            <option key={title} value={value}>
              {title}
            </option>
          ))}
        </optgroup>
        <optgroup label="File">
          <option value="path:">that changed a file…</option>
        </optgroup>
      </select>
      {terms.length > 0 && (
        <ul class="chips" aria-label="Filters">
          {terms.map((each) => (
            <li key={each} class="badge">
              {visible(each)}
              <button type="button" class="quiet" aria-label={`Remove the filter ${each}`} onClick={() => remove(each)}>
                <Icon name="close" />
              </button>
            </li>
          ))}
        </ul>
      )}
    </>
  );
}
