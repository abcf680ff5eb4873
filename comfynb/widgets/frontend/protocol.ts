/**
 * What the grid's two sides say to each other, as custom messages `{v: 1, kind, ...}`.
 *
 * Ids and seeds are strings, names are snake_case, pictures travel as binary buffers. Every kernel
 * message names the client it is for; a client is one `initialize` of the model in one browser tab.
 */

export const VERSION = 1;

/** Every kind of message; comfynb/widgets/wire.py has the same table and a test compares them. */
export const KINDS = {
  browser: ["hello", "ack", "see", "get", "do", "rate", "pick"],
  kernel: ["batch", "about", "thumb", "full", "reply", "notice"],
} as const;

/** Where a cell stands: the words of comfynb.keyframes.Status. */
export const STATUSES = [
  "queued",
  "submitted",
  "running",
  "done",
  "cached",
  "failed",
  "cancelled",
  "lost",
  "unknown",
] as const;

export type Status = (typeof STATUSES)[number];

// -- browser to kernel

export type Action =
  | "stop"
  | "retry"
  | "retry_failed"
  | "pause"
  | "resume"
  | "regenerate"
  | "snapshot";

export type ToKernel =
  /** Starts or restarts this client's stream after the version that it has (0: nothing). */
  | { kind: "hello"; have: number }
  /** A batch is on screen. */
  | { kind: "ack"; seq: number }
  /** The cells on screen, end exclusive; `from === to`: none. */
  | { kind: "see"; from: number; to: number }
  /** Asks for an output in full; answered by `full` or `reply`. */
  | { kind: "get"; req: string; cell: number; output: number }
  /** Asks for a deed; answered by `reply`. */
  | { kind: "do"; req: string; name: Action; cells?: number[] }
  /** Says something about the picture that is shown, and of no other; answered by `reply`. */
  | { kind: "rate"; req: string; cell: number; keyframe: string; rating: number }
  | { kind: "pick"; req: string; cell: number; keyframe: string; picked: boolean };

// -- kernel to browser, as checked by parse.ts

/** The best rating; the first is 1. */
export const HIGHEST = 5;

/** What is said about a picture. */
export interface Marks {
  /** From 1 to `HIGHEST`; 0: none. */
  rating: number;
  picked: boolean;
}

export interface CellUpdate extends Marks {
  i: number;
  status: Status;
  /** Made before its prompt or graph was changed. */
  stale: boolean;
  step: number | null;
  steps: number | null;
  /** How long it took, in milliseconds. */
  ms: number | null;
  /** Number of outputs. */
  n: number;
  /** The n-th keyframe of this place, from 1. */
  take: number | null;
  /** Words of the prompt that the model does not know. */
  unknown_words: string[];
}

export interface Head {
  made: number;
  failed: number;
  total: number;
  elapsed_s: number;
  left_s: number | null;
  active: boolean;
  paused: boolean;
  server: string;
  connection: Connection;
  /** The contact sheet in the saved notebook is out of this page's reach, as after a reload. */
  sheet: "fresh" | "old";
  can: { stop: boolean; retry: boolean; mark: boolean; why: string; why_mark: string };
}

export const CONNECTIONS = ["connected", "reconnecting", "none", "gone"] as const;

export type Connection = (typeof CONNECTIONS)[number];

export interface Failure {
  kind: string;
  message: string;
  node: string;
  hint: string;
}

export const OUTPUTS = ["image", "animation", "video", "audio", "text", "file"] as const;

export interface OutputInfo {
  kind: (typeof OUTPUTS)[number];
  sha256: string;
  mime: string;
  width_px: number;
  height_px: number;
  bytes: number;
}

export interface About {
  i: number;
  id: string;
  number: number;
  title: string;
  prompt: string;
  negative: string;
  seed: string;
  /** Id of what came out, or "". */
  keyframe: string;
  tags: string[];
  note: string;
  knobs: [name: string, value: string][];
  error: Failure | null;
  warnings: string[];
  outputs: OutputInfo[];
  timings: [name: string, milliseconds: number][];
  server: string;
  version: string;
}

export interface Preview {
  i: number;
  mime: string;
  data: DataView;
}

export type FromKernel =
  /** What changed between two versions; a gap before `from` must be asked for again. */
  | {
      kind: "batch";
      seq: number;
      from: number;
      to: number;
      head: Head | null;
      cells: CellUpdate[];
      previews: Preview[];
    }
  | { kind: "about"; cells: About[] }
  | {
      kind: "thumb";
      i: number;
      sha256: string;
      mime: string;
      width_px: number;
      height_px: number;
      data: DataView;
    }
  | { kind: "full"; req: string; i: number; output: number; mime: string; data: DataView }
  | { kind: "reply"; req: string; error: string | null }
  | { kind: "notice"; level: "error" | "info"; text: string };

export type KernelKind = FromKernel["kind"];
