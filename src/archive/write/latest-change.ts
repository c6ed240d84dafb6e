/** Clocks are put back by a little now and then. */
const SLACK_MS = 1000;

/** The latest change time of what was made by a moment, both in ms since 1970. */
export function latestChange(moment: number): number {
  return moment + SLACK_MS;
}
