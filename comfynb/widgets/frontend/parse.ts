/**
 * Messages of the kernel, checked before anything else sees them.
 *
 * What a server says reaches us through them, so nothing is taken for granted: a message that
 * cannot be used throws `Malformed`, fields that only matter to the eye fall back to nothing.
 */

import {
  type About,
  type CellUpdate,
  CONNECTIONS,
  type Failure,
  type FromKernel,
  type Head,
  HIGHEST,
  type KernelKind,
  KINDS,
  OUTPUTS,
  type OutputInfo,
  STATUSES,
  type Status,
  VERSION,
} from "./protocol";

export class Malformed extends Error {}

/** Pictures that a browser may be given; never SVG. */
const PICTURES = new Set(["image/png", "image/jpeg", "image/webp", "image/gif", "image/avif"]);
/** What else it may play or show; never HTML. */
export const TEXT = "text/plain";
const SHOWN = new Set([
  ...PICTURES,
  TEXT,
  "video/mp4",
  "video/webm",
  "video/quicktime",
  "video/x-matroska",
  "audio/mpeg",
  "audio/flac",
  "audio/wav",
  "audio/ogg",
  "audio/mp4",
]);

type Fields = Record<string, unknown>;

/** Return the client that a message is for, or null where it is for nobody. */
export function clientOf(content: unknown): string | null {
  return isFields(content) && typeof content.client === "string" ? content.client : null;
}

/**
 * Check a message.
 *
 * @throws Malformed with a sentence for the reader.
 */
export function parse(content: unknown, buffers: readonly unknown[]): FromKernel {
  if (!isFields(content)) {
    throw new Malformed("the kernel sent something that is no message");
  }
  if (content.v !== VERSION) {
    throw new Malformed(`the kernel speaks version ${text(content.v)} of the grid's protocol`);
  }
  const kind = KINDS.kernel.find((known) => known === content.kind);
  if (!kind) {
    throw new Malformed(`the kernel sent an unknown kind of message: ${text(content.kind)}`);
  }
  return parsers[kind](content, buffers);
}

const parsers: { [K in KernelKind]: (m: Fields, buffers: readonly unknown[]) => FromKernel } = {
  batch: (m, buffers) => ({
    kind: "batch",
    seq: whole(m, "seq"),
    from: whole(m, "from"),
    to: whole(m, "to"),
    head: isFields(m.head) ? head(m.head) : null,
    cells: list(m.cells).map(cell),
    previews: list(m.previews).map((entry, n) => ({
      i: whole(fields(entry), "i"),
      mime: picture(fields(entry)),
      data: buffer(buffers, n),
    })),
  }),
  about: (m) => ({ kind: "about", cells: list(m.cells).map(about) }),
  thumb: (m, buffers) => ({
    kind: "thumb",
    i: whole(m, "i"),
    sha256: text(m.sha256),
    mime: m.mime === TEXT ? TEXT : picture(m),
    width_px: number(m.width_px) ?? 0,
    height_px: number(m.height_px) ?? 0,
    data: buffer(buffers, 0),
  }),
  full: (m, buffers) => ({
    kind: "full",
    req: text(m.req),
    i: whole(m, "i"),
    output: whole(m, "output"),
    mime: picture(m, SHOWN),
    data: buffer(buffers, 0),
  }),
  reply: (m) => ({
    kind: "reply",
    req: text(m.req),
    error: m.ok === true ? null : text(m.error) || "the kernel gave no reason",
  }),
  notice: (m) => ({
    kind: "notice",
    level: m.level === "info" ? "info" : "error",
    text: text(m.text),
  }),
};

function cell(value: unknown): CellUpdate {
  const m = fields(value);
  return {
    i: whole(m, "i"),
    status: status(m.status),
    stale: m.stale === true,
    step: number(m.step),
    steps: number(m.steps),
    ms: number(m.ms),
    n: number(m.n) ?? 0,
    take: number(m.take),
    rating: rating(m.rating),
    picked: m.picked === true,
    unknown_words: list(m.unknown_words).map(text),
  };
}

function head(m: Fields): Head {
  const can = isFields(m.can) ? m.can : {};
  return {
    made: number(m.made) ?? 0,
    failed: number(m.failed) ?? 0,
    total: number(m.total) ?? 0,
    elapsed_s: number(m.elapsed_s) ?? 0,
    left_s: number(m.left_s),
    active: m.active === true,
    paused: m.paused === true,
    server: text(m.server),
    connection: CONNECTIONS.find((known) => known === m.connection) ?? "none",
    sheet: m.sheet === "old" ? "old" : "fresh",
    can: {
      stop: can.stop === true,
      retry: can.retry === true,
      mark: can.mark === true,
      why: text(can.why),
      why_mark: text(can.why_mark),
    },
  };
}

function about(value: unknown): About {
  const m = fields(value);
  return {
    i: whole(m, "i"),
    id: text(m.id),
    number: number(m.number) ?? whole(m, "i") + 1,
    title: text(m.title),
    prompt: text(m.prompt),
    negative: text(m.negative),
    seed: text(m.seed),
    keyframe: text(m.keyframe),
    tags: list(m.tags).map(text),
    note: text(m.note),
    knobs: Object.entries(isFields(m.knobs) ? m.knobs : {}).map(([name, v]) => [name, text(v)]),
    error: isFields(m.error) ? failure(m.error) : null,
    warnings: list(m.warnings).map(text),
    outputs: list(m.outputs).map(output),
    timings: Object.entries(isFields(m.timings) ? m.timings : {}).flatMap(([name, v]) => {
      const ms = number(v);
      return ms === null ? [] : [[name, ms] as [string, number]];
    }),
    server: text(m.server),
    version: text(m.version),
  };
}

function failure(m: Fields): Failure {
  return { kind: text(m.kind), message: text(m.message), node: text(m.node), hint: text(m.hint) };
}

function output(value: unknown): OutputInfo {
  const m = fields(value);
  return {
    kind: OUTPUTS.find((known) => known === m.kind) ?? "file",
    sha256: text(m.sha256),
    mime: text(m.mime),
    width_px: number(m.width_px) ?? 0,
    height_px: number(m.height_px) ?? 0,
    bytes: number(m.bytes) ?? 0,
  };
}

// -- leaves

function isFields(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function fields(value: unknown): Fields {
  if (!isFields(value)) {
    throw new Malformed("the kernel sent a message with an entry that is no object");
  }
  return value;
}

function list(value: unknown): unknown[] {
  return Array.isArray(value) ? value : [];
}

function text(value: unknown): string {
  if (typeof value === "string") {
    return value;
  }
  return value === null || value === undefined ? "" : (JSON.stringify(value) ?? "");
}

function number(value: unknown): number | null {
  return typeof value === "number" && Number.isFinite(value) ? value : null;
}

function rating(value: unknown): number {
  const found = number(value) ?? 0;
  return Number.isInteger(found) && found > 0 && found <= HIGHEST ? found : 0;
}

function whole(m: Fields, name: string): number {
  const value = m[name];
  if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0) {
    throw new Malformed(`the kernel sent a ${text(m.kind) || "message"} without a usable ${name}`);
  }
  return value;
}

function status(value: unknown): Status {
  const found = STATUSES.find((known) => known === value);
  if (!found) {
    throw new Malformed(`the kernel sent an unknown status: ${text(value)}`);
  }
  return found;
}

function picture(m: Fields, known: ReadonlySet<string> = PICTURES): string {
  const mime = text(m.mime);
  if (!known.has(mime)) {
    throw new Malformed(`the kernel sent an output of a type that is not shown here: ${mime}`);
  }
  return mime;
}

function buffer(buffers: readonly unknown[], n: number): DataView {
  const found = buffers[n];
  if (found instanceof DataView) {
    return found;
  }
  if (ArrayBuffer.isView(found)) {
    return new DataView(found.buffer, found.byteOffset, found.byteLength);
  }
  if (found instanceof ArrayBuffer) {
    return new DataView(found);
  }
  throw new Malformed("the kernel sent a picture without its bytes");
}
