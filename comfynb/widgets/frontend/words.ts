/** What the grid says in words. */

import {
  type About,
  type CellUpdate,
  type Connection,
  type Head,
  HIGHEST,
  type Marks,
  type OutputInfo,
  type Status,
} from "./protocol";
import type { Link } from "./store";

const STATUS: Record<Status, string> = {
  queued: "queued",
  submitted: "on the server",
  running: "being made",
  done: "done",
  cached: "from the log",
  failed: "failed",
  cancelled: "cancelled",
  lost: "lost by the server",
  unknown: "server not connected",
};

const CONNECTION: Record<Connection, string> = {
  connected: "connected",
  reconnecting: "reconnecting …",
  none: "no server",
  gone: "server gone",
};

const KIND: Record<OutputInfo["kind"], string> = {
  image: "picture",
  animation: "animation",
  video: "video",
  audio: "sound",
  text: "text",
  file: "file",
};

/** Say what an output is. */
export function kindWord(info: OutputInfo): string {
  return KIND[info.kind];
}

/** Say of which type an output is: "PNG", "MP4", "FLAC"; "" where that says nothing. */
export function typeWord(info: OutputInfo): string {
  const type = info.mime.split("/")[1] ?? "";
  return ["file", "text"].includes(info.kind)
    ? ""
    : type.replace(/^x-/, "").replace("mpeg", "MP3").toUpperCase();
}

/** Say of which type and size a file is: "PNG, 830 kB". */
export function fileWords(info: OutputInfo): string {
  return [typeWord(info), fileSize(info.bytes)].filter(Boolean).join(", ");
}

/** Whether an output is a picture, also one that moves. */
export function isPicture(info: OutputInfo): boolean {
  return info.kind === "image" || info.kind === "animation";
}

/** Return which output stands for a cell: the first picture, else the first text; or -1. */
export function standing(about: About): number {
  const picture = about.outputs.findIndex(isPicture);
  return picture >= 0 ? picture : about.outputs.findIndex((info) => info.kind === "text");
}

/** Say where a cell stands. */
export function statusWord(status: Status, about?: About | null): string {
  return isDeleted(status, about) ? "deleted" : STATUS[status];
}

/** Whether there was a picture, and somebody deleted it. */
export function isDeleted(status: Status, about?: About | null): boolean {
  return status === "cancelled" && about?.error?.kind === "deleted";
}

/** Say how a cell that is made came about, in one or two words. */
export function madeWord({ status, stale, ms, take }: CellUpdate): string {
  if (stale) {
    return "out of date";
  }
  const again = take !== null && take > 1 ? `take ${take}` : "";
  const how = status === "cached" ? "cached" : ms === null ? "" : shortTime(ms);
  return [again, how].filter(Boolean).join(" · ");
}

/** Say how far a running cell is, or "" where that is not known. */
export function stepWords({ step, steps }: CellUpdate): string {
  return step !== null && steps ? `${Math.min(step, steps)}/${steps}` : "";
}

/** Say who is connected to what. */
export function connectionWord(link: Link, head: Head | null): string {
  if (link === "gone") {
    return "kernel gone";
  }
  if (link === "opening" || !head) {
    return "waiting for the kernel …";
  }
  return link === "silent" ? "the kernel is silent …" : CONNECTION[head.connection];
}

/** Return what a cell is called where there is room for one line. */
export function label(about: About | null, i: number): string {
  return about?.title || about?.prompt || about?.id || `Scene ${i + 1}`;
}

/** Say what was said about a picture: "rated 4 of 5, picked", or "". */
export function markWords({ rating, picked }: Marks): string {
  return [rating ? `rated ${rating} of ${HIGHEST}` : "", picked ? "picked" : ""]
    .filter(Boolean)
    .join(", ");
}

/** Describe a tile to those who do not see it. */
export function describe(about: About | null, live: CellUpdate, marks: Marks): string {
  const number = about?.number ?? live.i + 1;
  const what = about?.prompt && about.prompt !== label(about, live.i) ? `: ${about.prompt}` : "";
  const step = live.status === "running" ? stepWords(live).replace("/", " of ") : "";
  const several = live.n > 1 ? `, ${live.n} outputs` : "";
  const status = `${statusWord(live.status, about)}${step ? `, step ${step}` : ""}${several}`;
  return [`${number}, ${label(about, live.i)}${what}`, status, markWords(marks)]
    .filter(Boolean)
    .join(", ");
}

/** Write a span as a clock: "0:07", "12:30", "1:02:03". */
export function clock(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (n: number) => String(n).padStart(2, "0");
  return h ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

/** Write a short span: "420 ms", "2.3 s", "1:20". */
export function shortTime(ms: number): string {
  if (ms < 995) {
    return `${Math.round(ms)} ms`;
  }
  return ms < 59_950 ? `${(ms / 1000).toFixed(1)} s` : clock(ms / 1000);
}

/** Write the size of a file: "830 B", "52 kB", "1.2 MB". */
export function fileSize(bytes: number): string {
  if (bytes < 1000) {
    return `${bytes} B`;
  }
  return bytes < 999_500 ? `${Math.round(bytes / 1000)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}
