/** What stands above the pictures: how far it is, with which server, and what can be done. */

import { useComputed, useSignal, useSignalEffect } from "@preact/signals";
import { useRef } from "preact/hooks";
import { type Client, GONE } from "./client";
import { Deed } from "./controls";
import type { Head } from "./protocol";
import type { Store } from "./store";
import { clock, connectionWord } from "./words";

/** Progress is said aloud at most this often, in milliseconds. */
const SAY_MS = 4000;

interface HeaderProps {
  client: Client;
  title: string;
}

export function Header({ client, title }: HeaderProps) {
  const { store } = client;
  const head = store.head.value;
  return (
    <header class="cnb-header">
      <h2 class="cnb-name">{title || "Scenes"}</h2>
      <Controls client={client} />
      <Figures store={store} />
      <p class="cnb-server" data-state={linkState(store, head)}>
        {head?.server ? <span class="cnb-server-name">{head.server}</span> : null}
        <span class="cnb-connection">{connectionWord(store.link.value, head)}</span>
      </p>
      <Bar head={head} total={store.cells.length} />
      <Said store={store} />
    </header>
  );
}

function linkState(store: Store, head: Head | null): "good" | "wait" | "bad" | "none" {
  if (store.link.value === "gone") {
    return "bad";
  }
  if (store.link.value !== "open" || !head) {
    return "wait";
  }
  const states = { connected: "good", reconnecting: "wait", none: "none", gone: "bad" } as const;
  return states[head.connection];
}

function Controls({ client }: { client: Client }) {
  const { store } = client;
  const head = store.head.value;
  const missing = store.missing.value;
  return (
    <div class="cnb-controls">
      {head && missing > 0 ? (
        <Deed client={client} action="retry_failed" key="retry">
          {head.failed >= missing ? `Retry failed (${missing})` : `Retry missing (${missing})`}
        </Deed>
      ) : null}
      {head?.active ? (
        <>
          <Deed client={client} action={head.paused ? "resume" : "pause"} key="pause">
            {head.paused ? "Resume" : "Pause"}
          </Deed>
          <Deed client={client} action="stop" key="stop">
            Stop
          </Deed>
        </>
      ) : null}
    </div>
  );
}

/** "5 of 9 · 1 failed · 0:42 · about 0:40 left"; its clock goes on between messages. */
function Figures({ store }: { store: Store }) {
  const now = useSignal(performance.now());
  const runs = useComputed(() => store.head.value?.active === true && store.link.value !== "gone");
  useSignalEffect(() => {
    if (!runs.value) {
      return;
    }
    const timer = setInterval(() => {
      now.value = performance.now();
    }, 1000);
    return () => clearInterval(timer);
  });
  const head = store.head.value;
  if (!head) {
    return <p class="cnb-figures">{`${store.cells.length} to make`}</p>;
  }
  const since = runs.value ? Math.max(0, (now.value - store.headAt.value) / 1000) : 0;
  const left = head.left_s === null ? null : Math.max(0, head.left_s - (head.paused ? 0 : since));
  return (
    <p class="cnb-figures">
      <span class="cnb-count">{`${head.made} of ${head.total}`}</span>
      {head.failed ? <span class="cnb-failed-count">{`${head.failed} failed`}</span> : null}
      {head.elapsed_s || head.active ? <span>{clock(head.elapsed_s + since)}</span> : null}
      {head.paused ? <span>paused</span> : null}
      {head.active && !head.paused && left !== null ? (
        <span>{left < 1 ? "almost done" : `about ${clock(left)} left`}</span>
      ) : null}
    </p>
  );
}

function Bar({ head, total }: { head: Head | null; total: number }) {
  const of = Math.max(1, head?.total ?? total);
  const made = ((head?.made ?? 0) / of) * 100;
  const failed = ((head?.failed ?? 0) / of) * 100;
  return (
    <div
      class="cnb-bar"
      role="progressbar"
      aria-label="Pictures made"
      aria-valuemin={0}
      aria-valuemax={head?.total ?? total}
      aria-valuenow={head?.made ?? 0}
      data-active={head?.active === true}
    >
      <div class="cnb-bar-made" style={{ width: `${made}%` }} />
      <div class="cnb-bar-failed" style={{ width: `${failed}%` }} />
    </div>
  );
}

/** Says progress to those who do not see it, politely and not too often. */
function Said({ store }: { store: Store }) {
  const text = useSignal("");
  const saidAt = useRef(Number.NEGATIVE_INFINITY);
  useSignalEffect(() => {
    const head = store.head.value;
    if (!head) {
      return;
    }
    const failed = head.failed ? `, ${head.failed} failed` : "";
    const say = () => {
      saidAt.current = performance.now();
      text.value = `${head.made} of ${head.total} made${failed}`;
    };
    const wait = saidAt.current + SAY_MS - performance.now();
    if (wait <= 0) {
      say();
      return;
    }
    const timer = setTimeout(say, wait);
    return () => clearTimeout(timer);
  });
  return (
    <p class="cnb-unseen" aria-live="polite">
      {text.value}
    </p>
  );
}

/** Says what a key did to those who do not see it. */
export function Spoken({ store }: { store: Store }) {
  return (
    <p class="cnb-unseen" aria-live="polite">
      {store.spoken.value}
    </p>
  );
}

/** What went wrong, and what the kernel wants to tell; `brief`: nothing about the page. */
export function Notices({ store, brief }: { store: Store; brief?: boolean }) {
  const gone = store.link.value === "gone";
  const isSheetOld = !gone && !brief && store.head.value?.sheet === "old";
  const notices = store.notices.value;
  if (!gone && !isSheetOld && !notices.length) {
    return null;
  }
  return (
    <ul class="cnb-notices" role="alert">
      {gone ? (
        <li class="cnb-notice" data-level="error">
          <p>{GONE}</p>
        </li>
      ) : null}
      {isSheetOld ? (
        <li class="cnb-notice" data-level="info">
          <p>
            This page was reloaded, so the contact sheet saved with the notebook is old. Run{" "}
            <code>grid.snapshot()</code> in a new cell to save a new one.
          </p>
        </li>
      ) : null}
      {notices.map(({ id, level, text, times }) => (
        <li class="cnb-notice" data-level={level} key={id}>
          <p>{times > 1 ? `${text} (${times} times)` : text}</p>
          <button
            type="button"
            class="cnb-dismiss"
            aria-label="Dismiss"
            onClick={() => store.dismiss(id)}
          >
            <svg viewBox="0 0 24 24" aria-hidden="true">
              <path d="m6 6 12 12M18 6 6 18" />
            </svg>
          </button>
        </li>
      ))}
    </ul>
  );
}
