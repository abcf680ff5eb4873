/**
 * One client of the kernel's stream: says hello, acknowledges, notices gaps and silence, asks.
 *
 * Messages may be lost on the way and none is sent twice by itself, so the stream is numbered by
 * the board's versions: what starts after the version known here shows a gap, and `hello{have}`
 * makes the kernel go on from there.
 */

import type { AnyModel } from "@anywidget/types";
import { batch } from "@preact/signals";
import { clientOf, Malformed, parse, TEXT } from "./parse";
import {
  type Action,
  type FromKernel,
  type KernelKind,
  type Marks,
  type OutputInfo,
  type ToKernel,
  VERSION,
} from "./protocol";
import { Requests } from "./requests";
import { type CellSignals, MADE, type Store } from "./store";
import { standing } from "./words";

export type GridModel = AnyModel<{ count: number; ratio: number; title: string }>;

export interface Range {
  from: number;
  to: number;
}

export const GONE = "The kernel is gone; run the cell again.";

/** Silence after which hello is said again while something should be coming, in milliseconds. */
const SILENCE_MS = 5000;
/** A gap is told at most this often. */
const GAP_MS = 1000;
/** A view that scrolls is told at most this often. */
const SEE_MS = 100;
/** What should be in sight and is missing is asked for again after this, and so often at most. */
const MISSED_MS = 4000;
const MISSED_TRIES = 3;
const TICK_MS = 500;
const GET_TIMEOUT_MS = 30_000;
const DO_TIMEOUT_MS = 15_000;

type Handlers = { [K in KernelKind]: (message: FromKernel & { kind: K }) => void };

export class Client {
  readonly store: Store;
  readonly #model: GridModel;
  readonly #signal: AbortSignal;
  readonly #id = randomId();
  readonly #fulls = new Requests<string>("g");
  readonly #deeds = new Requests<void>("d");
  readonly #asked = new Map<string, string>(); // request -> key in store.fulls
  readonly #ranges = new Map<object, Range>();
  #seen: Range = { from: 0, to: 0 };
  #seeTimer: ReturnType<typeof setTimeout> | undefined;
  #heardAt = performance.now();
  #helloAt = 0;
  #hasGap = false;
  #lookedAt = 0;
  #missed: ReadonlySet<number> = new Set();
  #tries = 0;

  /** Starts at once; `signal` ends it. */
  constructor(model: GridModel, store: Store, signal: AbortSignal) {
    this.#model = model;
    this.store = store;
    this.#signal = signal;

    const onMessage = (content: unknown, buffers?: unknown) => this.#receive(content, buffers);
    model.on("msg:custom", onMessage);
    signal.addEventListener("abort", () => model.off("msg:custom", onMessage));
    // JupyterLab tells so when the kernel restarts: saying hello finds out whether it is gone.
    const onLive = () => this.#hello();
    model.on("comm_live_update", onLive);
    signal.addEventListener("abort", () => model.off("comm_live_update", onLive));
    const ticks = setInterval(() => this.#tick(), TICK_MS);
    signal.addEventListener("abort", () => clearInterval(ticks));
    const onVisibility = () => this.#tellSeen();
    document.addEventListener("visibilitychange", onVisibility, { signal });
    signal.addEventListener("abort", () => {
      clearTimeout(this.#seeTimer);
      this.#fulls.close("the grid is closed");
      this.#deeds.close("the grid is closed");
      store.close();
    });
    this.#hello();
  }

  /** Tell which cells a view shows; null: the view is gone. */
  see(view: object, range: Range | null): void {
    if (range) {
      this.#ranges.set(view, range);
    } else {
      this.#ranges.delete(view);
    }
    if (this.#seeTimer === undefined && !this.#signal.aborted) {
      this.#tellSeen();
      this.#seeTimer = setTimeout(() => {
        this.#seeTimer = undefined;
        this.#tellSeen();
      }, SEE_MS);
    }
  }

  /**
   * Return the URL of an output, of a text the text itself; a URL is good for as long as it is
   * among the latest.
   *
   * @throws RequestError (as rejection) if the kernel cannot give it.
   */
  async full(cell: number, output: number, info: OutputInfo, signal: AbortSignal): Promise<string> {
    const kept = this.store.fulls.get(info.sha256);
    if (kept) {
      return kept;
    }
    let id = "";
    const ask = (req: string) => {
      id = req;
      this.#asked.set(req, info.sha256);
      this.#send({ kind: "get", req, cell, output });
    };
    try {
      return await this.#fulls.ask(ask, GET_TIMEOUT_MS, signal);
    } finally {
      this.#asked.delete(id);
    }
  }

  /** Have something done; what goes wrong is said in the grid's panel. */
  async act(name: Action, cells?: number[]): Promise<void> {
    await this.#done((req) =>
      this.#send(cells ? { kind: "do", req, name, cells } : { kind: "do", req, name }),
    );
  }

  /**
   * Say something about the picture of a cell. It is shown at once, and taken back where it cannot
   * be kept; that is said as in `act`.
   */
  async mark(cell: CellSignals, mark: Partial<Marks>): Promise<void> {
    const { rating, picked } = mark;
    const keyframe = cell.about.peek()?.keyframe ?? "";
    const about = { cell: cell.i, keyframe };
    cell.said.value = [...cell.said.peek(), mark];
    const isKept = await this.#done((req) => {
      if (rating !== undefined) {
        this.#send({ kind: "rate", req, ...about, rating });
      }
      if (picked !== undefined) {
        this.#send({ kind: "pick", req, ...about, picked });
      }
    });
    batch(() => {
      cell.said.value = cell.said.peek().filter((other) => other !== mark);
      if (isKept && cell.about.peek()?.keyframe === keyframe) {
        cell.live.value = { ...cell.live.peek(), ...mark }; // the batch that says so comes later
      }
    });
  }

  /** Ask for a deed; return whether it was done, and say in the panel why not. */
  async #done(ask: (req: string) => void): Promise<boolean> {
    try {
      await this.#deeds.ask(ask, DO_TIMEOUT_MS, this.#signal);
      return true;
    } catch (error) {
      if (!this.#signal.aborted && this.store.link.value !== "gone") {
        this.store.notify("error", error instanceof Error ? error.message : String(error));
      }
      return false;
    }
  }

  // -- hearing

  #receive(content: unknown, buffers: unknown): void {
    if (clientOf(content) !== this.#id) {
      return;
    }
    this.#heardAt = performance.now();
    this.store.link.value = "open";
    try {
      const message = parse(content, Array.isArray(buffers) ? buffers : []);
      (this.#handlers[message.kind] as (message: FromKernel) => void)(message);
    } catch (error) {
      const reason = error instanceof Malformed ? error.message : `the grid stumbled: ${error}`;
      this.store.notify("error", reason);
    }
  }

  readonly #handlers: Handlers = {
    batch: (message) => {
      const { from, to, seq } = message;
      // Number 0: the kernel had forgotten us, as after a night with the lid closed.
      this.#hasGap = from > this.store.version || seq === 0;
      if (this.#hasGap) {
        this.#mendGap();
        return;
      }
      if (to >= this.store.version || from === 0) {
        this.store.apply(message);
      }
      afterPaint(() => this.#send({ kind: "ack", seq }), this.#signal);
    },
    about: ({ cells }) => this.store.describe(cells),
    thumb: (message) => this.store.addThumb(message),
    full: ({ req, data, mime }) => {
      const key = this.#asked.get(req);
      if (key) {
        const isText = mime === TEXT;
        const given = isText
          ? new TextDecoder().decode(data)
          : this.store.fulls.put(key, data, mime);
        this.#fulls.settle(req, given);
      }
    },
    reply: ({ req, error }) => {
      if (error === null) {
        this.#deeds.settle(req, undefined);
      } else if (!this.#deeds.fail(req, error)) {
        this.#fulls.fail(req, error);
      }
    },
    notice: ({ level, text }) => this.store.notify(level, text),
  };

  #mendGap(): void {
    if (this.#hasGap && performance.now() - this.#helloAt >= GAP_MS) {
      this.#hello();
    }
  }

  // -- saying

  #hello(): void {
    this.#helloAt = performance.now();
    this.#send({ kind: "hello", have: this.store.version });
    if (this.#seen.to > this.#seen.from) {
      this.#send({ kind: "see", ...this.#seen });
    }
  }

  #tellSeen(): void {
    const ranges = document.hidden
      ? []
      : [...this.#ranges.values()].filter(({ from, to }) => to > from);
    const seen = ranges.length
      ? {
          from: Math.min(...ranges.map((range) => range.from)),
          to: Math.max(...ranges.map((range) => range.to)),
        }
      : { from: 0, to: 0 };
    if (seen.from !== this.#seen.from || seen.to !== this.#seen.to) {
      this.#seen = seen;
      this.#lookedAt = performance.now();
      this.#missed = new Set();
      this.#tries = 0;
      this.#send({ kind: "see", ...seen });
    }
  }

  #tick(): void {
    const now = performance.now();
    const { link, head } = this.store;
    const expects = link.value === "opening" || link.value === "silent" || head.value?.active;
    if (expects && now - Math.max(this.#heardAt, this.#helloAt) >= SILENCE_MS) {
      if (now - this.#heardAt >= 2 * SILENCE_MS && link.value === "open") {
        link.value = "silent";
      }
      this.#hello();
    }
    this.#mendGap();
    if (now - this.#lookedAt >= MISSED_MS * 2 ** this.#tries) {
      this.#lookedAt = now;
      this.#askMissed();
    }
  }

  /** Ask again for what has been missing in sight twice in a row: it was lost on the way. */
  #askMissed(): void {
    const before = this.#missed;
    this.#missed = new Set(
      this.store.cells
        .slice(this.#seen.from, this.#seen.to)
        .filter(({ about, live, thumb }) => {
          const told = about.peek();
          const isMade = MADE.has(live.peek().status);
          return !told || (isMade && standing(told) >= 0 && !thumb.peek());
        })
        .map(({ i }) => i),
    );
    if (this.#tries < MISSED_TRIES && [...before].some((i) => this.#missed.has(i))) {
      this.#tries++;
      // The kernel remembers what it told of cells in sight, and forgets it once they are not.
      this.#send({ kind: "see", from: 0, to: 0 });
      this.#send({ kind: "see", ...this.#seen });
    }
  }

  /** Send, unless it is all over; a dead kernel is said once and remembered. */
  #send(message: ToKernel): void {
    if (this.#signal.aborted) {
      return;
    }
    try {
      this.#model.send({ v: VERSION, client: this.#id, ...message });
    } catch {
      this.store.link.value = "gone";
      this.#deeds.close(GONE);
      this.#fulls.close(GONE);
    }
  }
}

/** Not `crypto.randomUUID`: hubs without TLS do not have it. */
function randomId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Call once what was changed is on screen; a hidden page paints nothing and waits for nothing. */
function afterPaint(act: () => void, signal: AbortSignal): void {
  if (document.hidden) {
    act();
    return;
  }
  const frame = requestAnimationFrame(() => {
    clearTimeout(timer);
    signal.removeEventListener("abort", stop);
    act();
  });
  const timer = setTimeout(() => {
    cancelAnimationFrame(frame);
    signal.removeEventListener("abort", stop);
    act();
  }, 250);
  const stop = () => {
    cancelAnimationFrame(frame);
    clearTimeout(timer);
  };
  signal.addEventListener("abort", stop, { once: true });
}
