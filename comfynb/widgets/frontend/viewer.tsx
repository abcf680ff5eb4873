/** The full picture with all that made it; arrows walk, Esc closes. */

import { useSignal } from "@preact/signals";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import type { Client } from "./client";
import { Facts } from "./facts";
import { isModified } from "./keys";
import type { OutputInfo } from "./protocol";
import type { CellSignals } from "./store";
import { missingWords } from "./tile";
import { label, statusWord, stepWords } from "./words";

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
  const output = useSignal(0);

  useLayoutEffect(() => {
    dialog.current?.showModal();
    dialog.current?.focus();
    return () => dialog.current?.close();
  }, []);
  // The neighbours too: their captions and small pictures are there when one walks on.
  useEffect(() => {
    client.see(dialog, { from: Math.max(0, at - 2), to: Math.min(cells.length, at + 3) });
    output.value = 0;
  }, [client, at, cells, output]);
  useEffect(() => () => client.see(dialog, null), [client]);

  const walk = (to: number) => {
    if (to >= 0 && to < cells.length && to !== at) {
      onWalk(to);
    }
  };
  const onKeyDown = (event: KeyboardEvent) => {
    const steps: Record<string, number> = {
      ArrowLeft: at - 1,
      ArrowRight: at + 1,
      Home: 0,
      End: cells.length - 1,
    };
    const to = steps[event.key];
    event.stopPropagation(); // the notebook has its own ideas
    if (to !== undefined && !isModified(event)) {
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
      <Stage client={client} cell={cell} output={output.value} key={at} />
      <Facts client={client} cell={cell} output={output} />
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
  const small = output === 0 ? cell.thumb.value?.url : undefined;
  const source = full ?? small ?? cell.preview.value;
  const name = label(about, cell.i);
  if (!source) {
    const [word, message, hint] = missingWords(about, live);
    return (
      <div class="cnb-stage" data-full={false}>
        <div class="cnb-without" data-status={live.status}>
          <p class="cnb-word">{word}</p>
          {message ? <p class="cnb-reason">{message}</p> : null}
          {hint ? <p class="cnb-hint">{hint}</p> : null}
        </div>
      </div>
    );
  }
  const working = live.status === "running" ? `${statusWord(live.status)} ${stepWords(live)}` : "";
  const below = problem || working;
  return (
    <div class="cnb-stage" data-full={full !== null}>
      <img
        src={source}
        alt={about?.prompt || name}
        width={info?.width_px || undefined}
        height={info?.height_px || undefined}
      />
      {below ? <p class="cnb-below">{below}</p> : null}
    </div>
  );
}

/** Ask for the full picture of an output once one lingers on it. */
function useFull(client: Client, cell: number, output: number, info: OutputInfo | undefined) {
  const shown = useSignal<{ sha256: string; url: string } | null>(null);
  const problem = useSignal("");
  const sha256 = info?.sha256;
  useEffect(() => {
    problem.value = "";
    if (!info) {
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
          problem.value = `The full picture cannot be had: ${reason}`;
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
