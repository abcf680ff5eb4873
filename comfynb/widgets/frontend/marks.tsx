/** What is said about a picture: stars and a pick, by pointer, by Tab and arrows, by a key. */

import type { Client } from "./client";
import { whyNot } from "./controls";
import { isModified, move, saidBy } from "./keys";
import { HIGHEST, type Marks } from "./protocol";
import { type CellSignals, MADE, marksOf } from "./store";
import { markWords } from "./words";

const STAR = "m12 3.3 2.7 5.5 6.1.9-4.4 4.3 1 6-5.4-2.8L6.6 20l1-6-4.4-4.3 6.1-.9z";
const FLAG = "M6 21V4h12l-3 4.5 3 4.5H6";

function Icon({ path }: { path: string }) {
  return (
    <svg viewBox="0 0 24 24" aria-hidden="true">
      <path d={path} />
    </svg>
  );
}

/** What is said about the picture of a tile; nothing where nothing is. The button says it aloud. */
export function Badge({ marks }: { marks: Marks }) {
  const { rating, picked } = marks;
  return rating || picked ? (
    <span class="cnb-marks" title={markWords(marks)} aria-hidden="true">
      {picked ? <Icon path={FLAG} /> : null}
      {rating ? <Icon path={STAR} /> : null}
      {rating ? ` ${rating}` : null}
    </span>
  ) : null;
}

/**
 * Say about a picture what a key means; return whether the key is one of ours.
 *
 * Where nothing can be said the panel tells why.
 */
export function markByKey(event: KeyboardEvent, client: Client, cell: CellSignals): boolean {
  const mark = saidBy(event, marksOf(cell));
  const about = cell.about.peek();
  if (!mark || !about || !MADE.has(cell.live.peek().status)) {
    return false;
  }
  event.preventDefault();
  event.stopPropagation();
  const why = whyNot(client.store, "mark");
  if (event.repeat) {
    return true;
  }
  if (why) {
    client.store.notify("info", why);
    return true;
  }
  const taken = mark.picked === false ? "not picked" : "no rating";
  const words = markWords({ rating: 0, picked: false, ...mark }) || taken;
  client.store.spoken.value = `${about.number}, ${words}`;
  if (mark.rating !== marksOf(cell).rating) {
    client.mark(cell, mark);
  }
  return true;
}

/** The stars and the pick of one picture. */
export function Marking({ client, cell }: { client: Client; cell: CellSignals }) {
  const { rating, picked } = marksOf(cell);
  const why = whyNot(client.store, "mark");
  const say = (mark: Partial<Marks>) => {
    if (!why) {
      client.mark(cell, mark);
    }
  };
  return (
    <div class="cnb-marking">
      <Stars rating={rating} why={why} onRate={(n) => say({ rating: n })} />
      <button
        type="button"
        class="cnb-button cnb-pick"
        aria-pressed={picked}
        aria-disabled={why !== null}
        aria-keyshortcuts="P"
        title={why ?? "Key P"}
        onClick={() => say({ picked: !picked })}
      >
        <Icon path={FLAG} />
        Pick
      </button>
    </div>
  );
}

interface StarsProps {
  rating: number;
  /** Why they do not work, or null. */
  why: string | null;
  onRate: (rating: number) => void;
}

function Stars({ rating, why, onRate }: StarsProps) {
  const onKeyDown = (event: KeyboardEvent) => {
    const star = event.target as HTMLElement;
    const stars = [...(event.currentTarget as HTMLElement).children] as HTMLElement[];
    const next = move(event.key, stars.indexOf(star), 1, 1, HIGHEST);
    if (next === null || isModified(event)) {
      return;
    }
    event.preventDefault();
    event.stopPropagation(); // elsewhere the arrows walk from picture to picture
    stars[next]?.focus();
    onRate(next + 1);
  };
  return (
    <div
      class="cnb-stars"
      role="radiogroup"
      aria-label="Rating"
      aria-disabled={why !== null}
      title={why ?? undefined}
      onKeyDown={onKeyDown}
    >
      {Array.from({ length: HIGHEST }, (_, n) => n + 1).map((n) => (
        // biome-ignore lint/a11y/useSemanticElements: a click on the chosen one takes it back
        <button
          type="button"
          class="cnb-star"
          role="radio"
          key={n}
          data-on={n <= rating}
          aria-checked={n === rating}
          aria-label={`${n} of ${HIGHEST}`}
          aria-keyshortcuts={String(n)}
          title={why ?? (n === rating ? "Take it back: key 0" : `Key ${n}`)}
          tabIndex={n === (rating || 1) ? 0 : -1}
          // The focus stays where it is, so that the arrows still walk.
          onMouseDown={(event) => event.preventDefault()}
          onClick={() => onRate(n === rating ? 0 : n)}
        >
          <Icon path={STAR} />
        </button>
      ))}
    </div>
  );
}
