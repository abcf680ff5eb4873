/** The full picture with all that made it; arrows walk, Esc closes. */

import { useSignal } from "@preact/signals";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import type { Client } from "./client";
import { Facts } from "./facts";
import { Notices, Spoken } from "./header";
import { isModified } from "./keys";
import { markByKey } from "./marks";
import type { OutputInfo, Status } from "./protocol";
import type { CellSignals } from "./store";
import { missingWords } from "./tile";
import {
  fileSize,
  isPicture,
  kindWord,
  label,
  standing,
  statusWord,
  stepWords,
  typeWord,
} from "./words";

/** Walking fast asks for no full pictures on the way, in milliseconds. */
const LINGER_MS = 90;

interface ViewerProps {
  client: Client;
  at: number;
  onWalk: (index: number) => void;
  onClose: () => void;
}

export function Viewer({ client, at, onWalk, onClose }: ViewerProps) {
  const dialog = useRef<HTMLDialogElement>(null);
  const { cells } = client.store;
  const cell = cells[at] as CellSignals;
  const chosen = useSignal<number | null>(null);
  const first = Math.max(0, cell.about.value ? standing(cell.about.value) : 0);
  const output = chosen.value ?? first;

  useLayoutEffect(() => {
    dialog.current?.showModal();
    dialog.current?.focus();
    return () => dialog.current?.close();
  }, []);
  // The neighbours too: their captions and small pictures are there when one walks on.
  useEffect(() => {
    client.see(dialog, { from: Math.max(0, at - 2), to: Math.min(cells.length, at + 3) });
    chosen.value = null;
  }, [client, at, cells, chosen]);
  useEffect(() => () => client.see(dialog, null), [client]);

  const walk = (to: number) => {
    if (to >= 0 && to < cells.length && to !== at) {
      onWalk(to);
    }
  };
  /** Show another output of this cell; false: there is none, or the keys belong to a player. */
  const turn = (by: number, event: KeyboardEvent) => {
    const to = output + by;
    const isOurs = !(event.target as Element).closest("video, audio, .cnb-text-stage");
    if (isOurs && to >= 0 && to < (cell.about.peek()?.outputs.length ?? 0)) {
      chosen.value = to;
      return true;
    }
    return false;
  };
  const onKeyDown = (event: KeyboardEvent) => {
    const turns: Record<string, number> = { ArrowUp: -1, ArrowDown: 1 };
    const steps: Record<string, number> = {
      ArrowLeft: at - 1,
      ArrowRight: at + 1,
      Home: 0,
      End: cells.length - 1,
    };
    const to = steps[event.key];
    event.stopPropagation(); // the notebook has its own ideas
    if (isModified(event) || markByKey(event, client, cell)) {
      return;
    }
    const by = turns[event.key];
    if (by !== undefined && turn(by, event)) {
      event.preventDefault();
    }
    if (to !== undefined) {
      event.preventDefault();
      walk(to);
    }
  };

  return (
    <dialog
      class="cnb-viewer"
      ref={dialog}
      tabIndex={-1}
      aria-label={label(cell.about.value, at)}
      onKeyDown={onKeyDown}
      onClose={onClose}
    >
      <Stage client={client} cell={cell} output={output} key={at} />
      <Facts client={client} cell={cell} output={output} onChoose={(n) => (chosen.value = n)} />
      <Notices store={client.store} brief />
      <Spoken store={client.store} />
      <IconButton
        name="Previous"
        path="m15 5-7 7 7 7"
        off={at === 0}
        onClick={() => walk(at - 1)}
      />
      <IconButton
        name="Next"
        path="m9 5 7 7-7 7"
        off={at === cells.length - 1}
        onClick={() => walk(at + 1)}
      />
      <IconButton
        name="Close"
        path="m6 6 12 12M18 6 6 18"
        off={false}
        onClick={() => dialog.current?.close()}
      />
    </dialog>
  );
}

interface IconButtonProps {
  name: string;
  path: string;
  off: boolean;
  onClick: () => void;
}

function IconButton({ name, path, off, onClick }: IconButtonProps) {
  return (
    <button
      type="button"
      class={`cnb-icon cnb-${name.toLowerCase()}`}
      aria-label={name}
      aria-disabled={off}
      onClick={onClick}
    >
      <svg viewBox="0 0 24 24" aria-hidden="true">
        <path d={path} />
      </svg>
    </button>
  );
}

interface StageProps {
  client: Client;
  cell: CellSignals;
  output: number;
}

function Stage({ client, cell, output }: StageProps) {
  const live = cell.live.value;
  const about = cell.about.value;
  const info = about?.outputs[output];
  const { full, problem } = useFull(client, cell.i, output, info);
  const isStanding = about === null || output === standing(about);
  const small = isStanding ? cell.thumb.value?.url : undefined;
  const name = about?.prompt || label(about, cell.i);
  const working = live.status === "running" ? `${statusWord(live.status)} ${stepWords(live)}` : "";
  const below = problem || working;
  if (info && !isPicture(info)) {
    return (
      <div class="cnb-stage" data-full={full !== null}>
        {full === null ? <Without word={kindWord(info)} more={[typeWord(info)]} /> : null}
        {full === null ? null : <Player info={info} source={full} name={name} />}
        {below ? <p class="cnb-below">{below}</p> : null}
      </div>
    );
  }
  const source = full ?? small ?? cell.preview.value;
  if (!source) {
    const [word, ...more] = missingWords(about, live);
    return (
      <div class="cnb-stage" data-full={false}>
        <Without word={word ?? ""} more={more} status={live.status} />
        {below ? <p class="cnb-below">{below}</p> : null}
      </div>
    );
  }
  return (
    <div class="cnb-stage" data-full={full !== null}>
      <img
        src={source}
        alt={name}
        width={info?.width_px || undefined}
        height={info?.height_px || undefined}
      />
      {below ? <p class="cnb-below">{below}</p> : null}
    </div>
  );
}

function Without({ word, more, status }: { word: string; more: string[]; status?: Status }) {
  return (
    <div class="cnb-without" data-status={status}>
      <p class="cnb-word">{word}</p>
      {more.filter(Boolean).map((line) => (
        <p key={line}>{line}</p>
      ))}
    </div>
  );
}

/** What plays, or is read. */
function Player({ info, source, name }: { info: OutputInfo; source: string; name: string }) {
  switch (info.kind) {
    case "video":
      // biome-ignore lint/a11y/useMediaCaption: what was made has no captions
      return <video src={source} controls loop playsInline aria-label={name} />;
    case "audio":
      return (
        <div class="cnb-without">
          {/* biome-ignore lint/a11y/useMediaCaption: as above */}
          <audio src={source} controls aria-label={name} />
        </div>
      );
    default:
      return (
        // biome-ignore lint/a11y/noNoninteractiveTabindex: long texts are scrolled by keys
        <p class="cnb-text-stage" tabIndex={0} dir="auto">
          {source}
        </p>
      );
  }
}

/** Ask for an output in full once one lingers on it; a file that no browser shows is not asked. */
function useFull(client: Client, cell: number, output: number, info: OutputInfo | undefined) {
  const shown = useSignal<{ sha256: string; url: string } | null>(null);
  const problem = useSignal("");
  const sha256 = info?.sha256;
  useEffect(() => {
    problem.value = "";
    if (!info || info.kind === "file") {
      problem.value = info ? `${fileSize(info.bytes)}, kept in the log.` : "";
      return;
    }
    const controller = new AbortController();
    const { signal } = controller;
    const timer = setTimeout(async () => {
      try {
        const url = await client.full(cell, output, info, signal);
        if (!signal.aborted) {
          shown.value = { sha256: info.sha256, url };
        }
      } catch (error) {
        if (!signal.aborted) {
          const reason = error instanceof Error ? error.message : String(error);
          problem.value = `It cannot be had in full: ${reason}`;
        }
      }
    }, LINGER_MS);
    return () => {
      clearTimeout(timer);
      controller.abort();
    };
  }, [client, cell, output, sha256]);
  const isCurrent = sha256 !== undefined && shown.value?.sha256 === sha256;
  return { full: isCurrent ? (shown.value?.url ?? null) : null, problem: problem.value };
}
