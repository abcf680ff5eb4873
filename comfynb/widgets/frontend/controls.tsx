/** Buttons for deeds: one that cannot work says why, and stays where it is. */

import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { type Client, GONE } from "./client";
import type { Action } from "./protocol";
import type { Store } from "./store";

/** Return why an action cannot work now, or null where it can. */
export function whyNot(store: Store, action: Action): string | null {
  const head = store.head.value;
  if (store.link.value === "gone") {
    return GONE;
  }
  if (!head) {
    return "Waiting for the kernel.";
  }
  const { stop, retry, why } = head.can;
  const able = action === "retry" || action === "retry_failed" || action === "regenerate";
  return (able ? retry : stop) ? null : why || "This cannot be done now.";
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
  const why = whyNot(client.store, action);
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
