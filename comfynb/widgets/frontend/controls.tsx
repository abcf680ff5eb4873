/** Buttons for deeds: one that cannot work says why, and stays where it is. */

import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";
import { type Client, GONE } from "./client";
import type { Action } from "./protocol";
import type { Store } from "./store";

const CANNOT = "This cannot be done now.";

/** Return why an action cannot work now, or null where it can. */
export function whyNot(store: Store, action: Action | "mark"): string | null {
  const head = store.head.value;
  if (store.link.value === "gone") {
    return GONE;
  }
  if (!head) {
    return "Waiting for the kernel.";
  }
  const { stop, retry, mark, why, why_mark } = head.can;
  if (action === "mark") {
    return mark ? null : why_mark || CANNOT;
  }
  const able = action === "retry" || action === "retry_failed" || action === "regenerate";
  return (able ? retry : stop) ? null : why || CANNOT;
}

/** Give the focus of a button that goes away to what is nearest to it. */
function passFocusOn(button: HTMLElement): void {
  if ((button.getRootNode() as Document | ShadowRoot).activeElement !== button) {
    return;
  }
  const place = button.closest<HTMLElement>(".cnb-frame, dialog, .comfynb");
  const next = place?.matches("dialog")
    ? place
    : (place?.querySelector<HTMLElement>('.cnb-open[tabindex="0"]') ??
      place?.querySelector<HTMLElement>(".cnb-open"));
  next?.focus({ preventScroll: true });
}

interface DeedProps {
  client: Client;
  action: Action;
  cells?: number[];
  children: ComponentChildren;
  tabIndex?: number;
  /** Said instead of the text. */
  label?: string;
}

/** A button that has something done. */
export function Deed({ client, action, cells, children, tabIndex, label }: DeedProps) {
  const busy = useSignal(false);
  const button = useRef<HTMLButtonElement>(null);
  const why = whyNot(client.store, action);
  useLayoutEffect(() => {
    const own = button.current;
    return () => own && passFocusOn(own);
  }, []);
  const onClick = async () => {
    if (why || busy.value) {
      return;
    }
    busy.value = true;
    await client.act(action, cells);
    busy.value = false;
  };
  return (
    <button
      type="button"
      class="cnb-button"
      ref={button}
      data-action={action}
      aria-disabled={why !== null}
      aria-busy={busy.value}
      aria-label={label}
      title={why ?? undefined}
      tabIndex={tabIndex}
      onClick={onClick}
    >
      {children}
    </button>
  );
}
