/**
 * The scene grid as an anywidget front end.
 *
 * `initialize` runs once per model and owns what is known; `render` runs once per view and draws
 * it. Both end with the host's signal, or with the returned function on hosts without one.
 */

import type { RenderProps } from "@anywidget/types";
import { effect } from "@preact/signals";
import { render as draw } from "preact";
import { Client, type GridModel } from "./client";
import { Grid } from "./grid";
import { Store } from "./store";
import { hideTwin } from "./twin";

type Traits = { count: number; ratio: number; title: string };

/** What hosts give; older ones have no signal. */
interface Given {
  model: GridModel;
  signal?: AbortSignal;
}

/** Join the host's signal with a function that ends the same. */
function lifetime(signal: AbortSignal | undefined): { signal: AbortSignal; end: () => void } {
  const controller = new AbortController();
  const end = () => controller.abort();
  if (signal?.aborted) {
    end();
  }
  signal?.addEventListener("abort", end, { once: true });
  return { signal: controller.signal, end };
}

export default () => {
  let client: Client | undefined;

  const initialize = ({ model, signal }: Given) => {
    const life = lifetime(signal);
    const count = Math.max(0, Math.floor(Number(model.get("count")) || 0));
    const opened = new Client(model, new Store(count), life.signal);
    client = opened;
    life.signal.addEventListener("abort", () => {
      if (client === opened) {
        client = undefined;
      }
    });
    return life.end;
  };

  const render = ({ model, el, signal }: Given & Pick<RenderProps<Traits>, "el">) => {
    if (!client) {
      initialize({ model }); // a host that does not know of `initialize`
    }
    const life = lifetime(signal);
    const root = document.createElement("div");
    root.className = "comfynb";
    root.dataset.lmSuppressShortcuts = "true"; // JupyterLab keeps its keys to itself
    el.append(root);
    const ratio = Number(model.get("ratio"));
    draw(
      <Grid
        client={client as Client}
        title={String(model.get("title") ?? "")}
        ratio={ratio > 0 ? Math.min(Math.max(ratio, 0.2), 5) : 1}
      />,
      root,
    );
    // A page that was saved draws the view without a kernel: there the sheet is all there is.
    const { head } = (client as Client).store;
    let alive = false;
    const stop = effect(() => {
      if (head.value && !alive) {
        alive = true;
        hideTwin(el, life.signal);
      }
    });
    life.signal.addEventListener("abort", () => {
      stop();
      draw(null, root);
      root.remove();
    });
    return life.end;
  };

  return { initialize, render };
};
