/** Keys of the grid: it is one tab stop, and arrows move inside it; digits rate, P picks. */

import type { Marks } from "./protocol";

/**
 * Return where a key leads.
 *
 * @param at Cell that has the focus.
 * @param columns Cells in a row.
 * @param page Rows in sight.
 * @returns Another cell, `at` itself at an edge, or null for keys that are not ours.
 */
export function move(
  key: string,
  at: number,
  columns: number,
  page: number,
  count: number,
): number | null {
  const within = (next: number) => (next >= 0 && next < count ? next : at);
  const far = columns * Math.max(1, page - 1);
  switch (key) {
    case "ArrowLeft":
      return within(at - 1);
    case "ArrowRight":
      return within(at + 1);
    case "ArrowUp":
      return within(at - columns);
    case "ArrowDown":
      // From the last full row into one that is not.
      return Math.floor(at / columns) < Math.floor((count - 1) / columns)
        ? Math.min(at + columns, count - 1)
        : at;
    case "PageUp":
      return at - far >= 0 ? at - far : at % columns;
    case "PageDown":
      return Math.min(at + far, count - 1);
    case "Home":
      return 0;
    case "End":
      return count - 1;
    default:
      return null;
  }
}

/**
 * Return what a key says about a picture, or null for other keys.
 *
 * @param marks What is said about it so far.
 */
export function saidBy(event: KeyboardEvent, { picked }: Marks): Partial<Marks> | null {
  // By place where the row of digits has other signs, as on French keyboards.
  const digit = /^[0-5]$/.exec(event.key)?.[0] ?? /^Digit([0-5])$/.exec(event.code)?.[1];
  if (digit) {
    return { rating: Number(digit) };
  }
  return event.key.toLowerCase() === "p" ? { picked: !picked } : null;
}

/** Whether a key comes with one that makes it somebody else's. */
export function isModified(event: KeyboardEvent): boolean {
  return event.ctrlKey || event.metaKey || event.altKey || event.shiftKey;
}
