/** What stands beside the picture in the viewer. */

import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import type { Client } from "./client";
import { Deed } from "./controls";
import { Marking } from "./marks";
import type { About } from "./protocol";
import { type CellSignals, MADE, MISSING } from "./store";
import { fileWords, isDeleted, kindWord, label, madeWord, shortTime, statusWord } from "./words";

const TIMINGS: Record<string, string> = {
  queued_ms: "waited",
  executing_ms: "made in",
  fetch_ms: "fetched in",
  total_ms: "in all",
};

interface FactsProps {
  client: Client;
  cell: CellSignals;
  /** Which of its outputs is shown. */
  output: number;
  onChoose: (output: number) => void;
}

export function Facts({ client, cell, output, onChoose }: FactsProps) {
  const live = cell.live.value;
  const about = cell.about.value;
  const isMade = MADE.has(live.status);
  const warnings = [
    ...(live.unknown_words.length
      ? [`The model does not know: ${live.unknown_words.join(", ")}.`]
      : []),
    ...(about?.warnings ?? []),
  ];
  return (
    <div class="cnb-aside">
      <p class="cnb-place">
        {`${about?.number ?? cell.i + 1} of ${client.store.cells.length}`}
        <span>
          {[statusWord(live.status, about), isMade ? madeWord(live) : ""].filter(Boolean)[0]}
        </span>
      </p>
      {about && isMade ? <Marking client={client} cell={cell} /> : null}
      <h2>{label(about, cell.i)}</h2>
      {about?.title && about.prompt ? <p class="cnb-text">{about.prompt}</p> : null}
      {about?.negative ? (
        <p class="cnb-text cnb-negative">
          <span>without</span> {about.negative}
        </p>
      ) : null}
      {warnings.map((warning) => (
        <p class="cnb-text cnb-warning" key={warning}>
          {warning}
        </p>
      ))}
      {about ? <Said about={about} /> : null}
      {about && about.outputs.length > 1 ? <Choice {...{ about, output, onChoose }} /> : null}
      <div class="cnb-controls">
        {MISSING.has(live.status) ? (
          <Deed client={client} action="retry" cells={[cell.i]}>
            Retry
          </Deed>
        ) : null}
        {isMade || isDeleted(live.status, about) ? (
          <Deed client={client} action="regenerate" cells={[cell.i]}>
            Make another
          </Deed>
        ) : null}
      </div>
      {about ? <Table about={about} output={output} /> : null}
    </div>
  );
}

/** Tags and the note; they are given in Python. */
function Said({ about: { tags, note } }: { about: About }) {
  return (
    <>
      {note ? <p class="cnb-text cnb-remark">{note}</p> : null}
      {tags.length ? (
        <ul class="cnb-tags" aria-label="Tags">
          {tags.map((tag) => (
            <li key={tag}>{tag}</li>
          ))}
        </ul>
      ) : null}
    </>
  );
}

function Table({ about, output }: { about: About; output: number }) {
  const info = about.outputs[output];
  const rows: [string, string][] = [
    ...about.knobs,
    ...(info
      ? ([
          ["size", info.width_px ? `${info.width_px} × ${info.height_px}` : ""],
          ["file", fileWords(info)],
        ] as [string, string][])
      : []),
    ...about.timings.map(([name, ms]): [string, string] => [TIMINGS[name] ?? name, shortTime(ms)]),
    ["node", about.error?.node ?? ""],
    ["server", [about.server, about.version].filter(Boolean).join(" ")],
  ];
  return (
    <dl class="cnb-table">
      {about.seed ? <Seed seed={about.seed} /> : null}
      {rows
        .filter(([name, value]) => value && name !== "seed")
        .map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
    </dl>
  );
}

/** The seed, with a button that copies it; pages without a clipboard select it instead. */
function Seed({ seed }: { seed: string }) {
  const value = useRef<HTMLSpanElement>(null);
  const said = useSignal("Copy");
  useEffect(() => {
    said.value = "Copy";
  }, [seed, said]);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(seed);
      said.value = "Copied";
    } catch {
      const selection = window.getSelection();
      if (value.current && selection) {
        selection.selectAllChildren(value.current);
      }
      said.value = "Selected";
    }
  };
  return (
    <div>
      <dt>seed</dt>
      <dd>
        <span ref={value}>{seed}</span>
        <button type="button" class="cnb-copy" aria-label={`${said.value} the seed`} onClick={copy}>
          {said.value}
        </button>
      </dd>
    </div>
  );
}

type ChoiceProps = Pick<FactsProps, "output" | "onChoose"> & { about: About };

function Choice({ about, output, onChoose }: ChoiceProps) {
  return (
    <fieldset class="cnb-choice" aria-label="Outputs of this scene">
      {about.outputs.map((info, n) => (
        <button
          type="button"
          class="cnb-button"
          key={`${info.sha256}${n}`}
          aria-pressed={output === n}
          onClick={() => onChoose(n)}
        >
          {info.kind === "image" ? n + 1 : `${n + 1} ${kindWord(info)}`}
        </button>
      ))}
    </fieldset>
  );
}
