/** A time of RFC 3339 that stands as a word of its own, not in a name. */
const TIME_IN_TEXT = /(?<=^|\s)(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z)(?=$|[\s,;:.])/;

/** Returns the parts of a text: at odd places its times, at even places the text between them. */
export function timesIn(text: string): string[] {
  return text.split(TIME_IN_TEXT);
}
