/** One cell: its place is there at once, then rough pictures, then the picture. */

import { type Signal, useComputed } from "@preact/signals";
import type { Client } from "./client";
import { Deed } from "./controls";
import { Badge } from "./marks";
import type { About, CellUpdate } from "./protocol";
import { type CellSignals, MADE, MISSING, marksOf, type Thumb } from "./store";
import {
  describe,
  fileWords,
  isPicture,
  kindWord,
  label,
  madeWord,
  standing,
  statusWord,
  stepWords,
} from "./words";

/** A picture that came this recently fades in; one scrolled back into sight does not. */
const FRESH_MS = 1500;

interface TileProps {
  cell: CellSignals;
  client: Client;
  /** The one cell of the grid that Tab reaches. */
  active: Signal<number>;
  onOpen: (index: number) => void;
  onFocus: (index: number) => void;
}

export function Tile({ cell, client, active, onOpen, onFocus }: TileProps) {
  const live = cell.live.value;
  const about = cell.about.value;
  const isStop = useComputed(() => active.value === cell.i);
  const isMissing = MISSING.has(live.status) || live.status === "unknown";
  return (
    // biome-ignore lint/a11y/useFocusableInteractive: the button inside has the focus
    // biome-ignore lint/a11y/useSemanticElements: a table cannot be windowed
    <div class="cnb-tile" role="gridcell" data-status={live.status} data-cell={cell.i}>
      <div class="cnb-frame">
        {isMissing ? null : <Pictures cell={cell} about={about} />}
        <button
          type="button"
          class="cnb-open"
          aria-label={describe(about, live, marksOf(cell))}
          title={isMissing ? missingWords(about, live).join("\n") : undefined}
          tabIndex={isStop.value ? 0 : -1}
          onClick={() => onOpen(cell.i)}
          onFocus={() => onFocus(cell.i)}
        />
        {isMissing ? <Missing cell={cell} client={client} /> : <Progress cell={cell} />}
        {live.n > 1 && MADE.has(live.status) ? (
          <span class="cnb-several" title={`${live.n} outputs`}>
            {`+${live.n - 1}`}
          </span>
        ) : null}
      </div>
      <Caption cell={cell} />
    </div>
  );
}

function Pictures({ cell, about }: { cell: CellSignals; about: About | null }) {
  const thumb = cell.thumb.value;
  const preview = cell.preview.value;
  const isMade = MADE.has(cell.live.value.status);
  const alt = about?.prompt || label(about, cell.i);
  if (isMade && about && thumb?.text !== null && !about.outputs.some(isPicture)) {
    return <Words about={about} text={thumb?.text ?? null} />;
  }
  // Below: the preview that the picture fades in over, or the picture that is being made anew.
  return (
    <>
      {thumb?.url && !isMade ? <Picture thumb={thumb} alt={alt} isOld /> : null}
      {preview ? <img class="cnb-preview" src={preview} alt={`${alt}, not finished`} /> : null}
      {thumb?.url && isMade ? <Picture thumb={thumb} alt={alt} /> : null}
    </>
  );
}

/** In place of a picture: the beginning of a text, or what else came out. */
function Words({ about, text }: { about: About; text: string | null }) {
  const info = about.outputs[Math.max(0, standing(about))];
  if (!info) {
    return null;
  }
  if (info.kind === "text") {
    return <p class="cnb-said">{text}</p>;
  }
  return (
    <span class="cnb-waiting cnb-kind">
      {kindWord(info)}
      <span>{fileWords(info)}</span>
    </span>
  );
}

function Picture({ thumb, alt, isOld }: { thumb: Thumb; alt: string; isOld?: boolean }) {
  const onLoad = (event: Event) => {
    (event.currentTarget as HTMLElement).dataset.shown = "";
  };
  const isFresh = !isOld && performance.now() - thumb.at < FRESH_MS;
  return (
    <img
      key={thumb.url}
      class={`cnb-picture${isFresh ? " cnb-fresh" : ""}${isOld ? " cnb-old" : ""}`}
      src={thumb.url}
      alt={alt}
      draggable={false}
      onLoad={onLoad}
      onError={onLoad}
    />
  );
}

/** What a tile says and shows while it waits and while it is made. */
function Progress({ cell }: { cell: CellSignals }) {
  const live = cell.live.value;
  if (MADE.has(live.status)) {
    return null;
  }
  const hasPicture = cell.preview.value !== null || cell.thumb.value !== null;
  const isRunning = live.status === "running";
  const part = isRunning && live.step !== null && live.steps ? live.step / live.steps : null;
  return (
    <>
      {hasPicture ? null : <span class="cnb-waiting">{statusWord(live.status)}</span>}
      {isRunning ? (
        <div
          class="cnb-progress"
          role="progressbar"
          aria-label="Steps"
          aria-valuemin={0}
          aria-valuemax={live.steps ?? undefined}
          aria-valuenow={live.step ?? undefined}
          data-known={part !== null}
        >
          <div style={part === null ? undefined : { width: `${Math.min(1, part) * 100}%` }} />
        </div>
      ) : null}
    </>
  );
}

/** Return the words for a cell without a picture: what, why, and what to do. */
export function missingWords(about: About | null, live: CellUpdate): string[] {
  const word = statusWord(live.status, about);
  const error = about?.error;
  return [word.charAt(0).toUpperCase() + word.slice(1), error?.message ?? "", error?.hint ?? ""];
}

function Missing({ cell, client }: { cell: CellSignals; client: Client }) {
  const live = cell.live.value;
  const [word, message, hint] = missingWords(cell.about.value, live);
  return (
    <div class="cnb-missing">
      <p class="cnb-word">{word}</p>
      {message ? <p class="cnb-reason">{message}</p> : null}
      {hint ? <p class="cnb-hint">{hint}</p> : null}
      {MISSING.has(live.status) ? (
        <Deed
          client={client}
          action="retry"
          cells={[cell.i]}
          tabIndex={-1}
          label={`Retry ${label(cell.about.value, cell.i)}`}
        >
          Retry
        </Deed>
      ) : null}
    </div>
  );
}

function Caption({ cell }: { cell: CellSignals }) {
  const live = cell.live.value;
  const about = cell.about.value;
  // Over an older picture there is no room for words.
  const covered = cell.thumb.value && live.status === "submitted" ? statusWord("submitted") : "";
  const state = live.status === "running" ? stepWords(live) : covered;
  const note = MADE.has(live.status) ? madeWord(live) : state;
  const unknown = live.unknown_words;
  return (
    <div class="cnb-caption" data-titled={Boolean(about?.title)}>
      <span class="cnb-number">{about?.number ?? live.i + 1}</span>
      <span class="cnb-title">{label(about, live.i)}</span>
      <span class="cnb-note">{note}</span>
      <Badge marks={marksOf(cell)} />
      {unknown.length ? (
        <span class="cnb-prompt cnb-unknown" title="The model does not know these words.">
          {`unknown: ${unknown.join(", ")}`}
        </span>
      ) : (
        <span class="cnb-prompt">{about?.title ? about.prompt : ""}</span>
      )}
    </div>
  );
}
