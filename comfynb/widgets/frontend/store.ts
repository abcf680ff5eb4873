/** What one client knows of the board, as signals that any number of views draw from. */

import { batch, type Signal, signal } from "@preact/signals";
import { Blobs } from "./blobs";
import { TEXT } from "./parse";
import type { About, CellUpdate, FromKernel, Head, Marks, Preview, Status } from "./protocol";

/** Statuses with pictures, and statuses that Retry starts again. */
export const MADE: ReadonlySet<Status> = new Set(["done", "cached"]);
export const MISSING: ReadonlySet<Status> = new Set(["failed", "cancelled", "lost"]);

/** How the kernel answers: not yet, in time, or never again. */
export type Link = "opening" | "open" | "silent" | "gone";

export interface Thumb {
  sha256: string;
  /** Of a picture. */
  url: string;
  /** The beginning of a text; null where there is a picture. */
  text: string | null;
  /** When it came, by `performance.now()`. */
  at: number;
}

export interface CellSignals {
  readonly i: number;
  readonly live: Signal<CellUpdate>;
  readonly about: Signal<About | null>;
  /** Said here, in this order, and not answered yet. */
  readonly said: Signal<readonly Partial<Marks>[]>;
  readonly preview: Signal<string | null>;
  readonly thumb: Signal<Thumb | null>;
}

/** Return what is said about a cell's picture; what was said here counts before it is answered. */
export function marksOf(cell: CellSignals): Marks {
  const { rating, picked } = cell.live.value;
  return Object.assign({ rating, picked }, ...cell.said.value);
}

export interface Notice {
  id: number;
  level: "error" | "info";
  text: string;
  times: number;
}

const THUMB_BYTES = 64e6;
const PREVIEW_BYTES = 16e6;
const FULL_BYTES = 128e6;
const NOTICES = 4;
/** How long a preview stays below the picture that fades in over it, in milliseconds. */
const FADE_MS = 800;

export class Store {
  readonly cells: readonly CellSignals[];
  readonly head = signal<Head | null>(null);
  /** When `head` came, by `performance.now()`. */
  readonly headAt = signal(0);
  readonly link = signal<Link>("opening");
  readonly notices = signal<readonly Notice[]>([]);
  /** What a key did, for those who do not see it. */
  readonly spoken = signal("");
  /** How many cells Retry would start again. */
  readonly missing = signal(0);
  /** Version of the board known here; 0: nothing. */
  version = 0;

  readonly fulls = new Blobs(FULL_BYTES);
  readonly #thumbs = new Blobs(THUMB_BYTES, (sha256) => this.#forget(sha256));
  readonly #previews = new Blobs(PREVIEW_BYTES, (key) => {
    const cell = this.cells[Number(key)];
    if (cell) {
      cell.preview.value = null;
    }
  });
  readonly #timers = new Set<ReturnType<typeof setTimeout>>();
  #nextNotice = 1;

  constructor(count: number) {
    this.cells = Array.from({ length: count }, (_, i) => ({
      i,
      live: signal<CellUpdate>({
        i,
        status: "queued",
        stale: false,
        step: null,
        steps: null,
        ms: null,
        n: 0,
        take: null,
        rating: 0,
        picked: false,
        unknown_words: [],
      }),
      about: signal<About | null>(null),
      said: signal<readonly Partial<Marks>[]>([]),
      preview: signal<string | null>(null),
      thumb: signal<Thumb | null>(null),
    }));
  }

  /** Take over what changed; the caller has checked the versions. */
  apply(message: FromKernel & { kind: "batch" }): void {
    batch(() => {
      for (const update of message.cells) {
        this.#update(update);
      }
      for (const preview of message.previews) {
        this.#preview(preview);
      }
      if (message.head) {
        this.head.value = message.head;
        this.headAt.value = performance.now();
      }
    });
    this.version = message.to;
  }

  /** Take over what cells are made from. */
  describe(cells: readonly About[]): void {
    batch(() => {
      for (const about of cells) {
        const cell = this.cells[about.i];
        if (cell) {
          cell.about.value = about;
        }
      }
    });
  }

  /** Show a small picture of a cell, or the beginning of its text. */
  addThumb(message: FromKernel & { kind: "thumb" }): void {
    const cell = this.cells[message.i];
    if (!cell) {
      return;
    }
    const { sha256, data, mime } = message;
    if (cell.thumb.value?.sha256 !== sha256) {
      const at = performance.now();
      if (mime === TEXT) {
        cell.thumb.value = { sha256, url: "", text: new TextDecoder().decode(data), at };
      } else {
        const url = this.#thumbs.get(sha256) ?? this.#thumbs.put(sha256, data, mime);
        cell.thumb.value = { sha256, url, text: null, at };
      }
    }
    this.#later(() => MADE.has(cell.live.value.status) && this.#previews.drop(String(cell.i)));
  }

  /** Say something in the grid's panel; the same text again only counts up. */
  notify(level: Notice["level"], text: string): void {
    const notices = this.notices.value;
    const same = notices.find((notice) => notice.text === text);
    this.notices.value = same
      ? notices.map((notice) => (notice === same ? { ...same, times: same.times + 1 } : notice))
      : [...notices, { id: this.#nextNotice++, level, text, times: 1 }].slice(-NOTICES);
  }

  /** Take a notice away. */
  dismiss(id: number): void {
    this.notices.value = this.notices.value.filter((notice) => notice.id !== id);
  }

  /** Revoke every URL and stop every timer. */
  close(): void {
    for (const timer of this.#timers) {
      clearTimeout(timer);
    }
    for (const blobs of [this.#previews, this.#thumbs, this.fulls]) {
      blobs.clear();
    }
  }

  #update(update: CellUpdate): void {
    const cell = this.cells[update.i];
    if (!cell) {
      return;
    }
    const before = cell.live.value.status;
    this.missing.value += Number(MISSING.has(update.status)) - Number(MISSING.has(before));
    cell.live.value = update;
    if (update.status !== "running" && !MADE.has(update.status)) {
      this.#previews.drop(String(cell.i)); // once made it stays until the picture covers it
    }
  }

  #preview({ i, data, mime }: Preview): void {
    const cell = this.cells[i];
    if (cell?.live.value.status === "running") {
      cell.preview.value = this.#previews.put(String(i), data, mime);
    }
  }

  #forget(sha256: string): void {
    for (const cell of this.cells) {
      if (cell.thumb.value?.sha256 === sha256) {
        cell.thumb.value = null;
      }
    }
  }

  #later(act: () => void): void {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      act();
    }, FADE_MS);
    this.#timers.add(timer);
  }
}
