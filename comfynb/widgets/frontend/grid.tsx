/** One view of the board: the header, and the tiles in a scroller of their own. */

import { type Signal, useComputed, useSignal, useSignalEffect } from "@preact/signals";
import { useLayoutEffect, useMemo, useRef } from "preact/hooks";
import type { Client } from "./client";
import { Header, Notices, Spoken } from "./header";
import { isModified, move } from "./keys";
import { type Layout, layOut, rowsInSight, rowsToDraw } from "./layout";
import { markByKey } from "./marks";
import { Tile } from "./tile";
import { Viewer } from "./viewer";

interface GridProps {
  client: Client;
  title: string;
  /** Width over height of a tile. */
  ratio: number;
}

interface Sight {
  first: number;
  end: number;
}

export function Grid({ client, title, ratio }: GridProps) {
  const count = client.store.cells.length;
  const scroller = useRef<HTMLDivElement>(null);
  const inner = useSignal(0);
  const onPage = useSignal(false);
  const sight = useSignal<Sight>({ first: 0, end: 0 });
  const active = useSignal(0);
  const opened = useSignal<number | null>(null);
  const layout = useComputed(() => layOut(inner.value, count, ratio));

  const look = useMemo(
    () => () => {
      const box = scroller.current;
      if (box) {
        const [first, end] = rowsInSight(layout.peek(), box.scrollTop, box.clientHeight);
        const { first: oldFirst, end: oldEnd } = sight.peek();
        if (first !== oldFirst || end !== oldEnd) {
          sight.value = { first, end };
        }
      }
    },
    [layout, sight],
  );
  useMeasures(scroller, inner, onPage, look);
  useSignalEffect(() => {
    layout.value; // a new layout shows other rows
    look();
  });

  // What is in sight is told to the kernel until the view is gone.
  useSignalEffect(() => {
    const { columns } = layout.value;
    const { first, end } = sight.value;
    const isSeen = onPage.value && inner.value > 0;
    client.see(
      scroller,
      isSeen ? { from: first * columns, to: Math.min(count, end * columns) } : { from: 0, to: 0 },
    );
  });
  useLayoutEffect(() => () => client.see(scroller, null), [client]);

  /** Bring a cell into sight and give it the focus. */
  const focus = (index: number) => {
    const box = scroller.current;
    if (!box) {
      return;
    }
    active.value = index;
    const { pitch, columns, gap } = layout.peek();
    const top = Math.floor(index / columns) * pitch;
    if (top < box.scrollTop) {
      box.scrollTop = top;
    } else if (top + pitch - gap > box.scrollTop + box.clientHeight) {
      box.scrollTop = top + pitch - box.clientHeight;
    }
    look();
    // The row may have to be drawn first.
    queueMicrotask(() =>
      requestAnimationFrame(() => {
        const selector = `[data-cell="${index}"] .cnb-open`;
        box.querySelector<HTMLElement>(selector)?.focus({ preventScroll: true });
      }),
    );
  };

  const onKeyDown = (event: KeyboardEvent) => {
    const isTile = (event.target as Element).classList.contains("cnb-open");
    const cell = client.store.cells[active.peek()];
    if (!isTile || !cell || isModified(event) || markByKey(event, client, cell)) {
      return;
    }
    const page = sight.peek().end - sight.peek().first;
    const next = move(event.key, active.peek(), layout.peek().columns, page, count);
    if (next !== null) {
      event.preventDefault();
      event.stopPropagation();
      focus(next);
    }
  };

  return (
    <>
      <Header client={client} title={title} />
      <Notices store={client.store} />
      <Spoken store={client.store} />
      {/* biome-ignore lint/a11y/useSemanticElements: a table cannot be windowed */}
      <div
        class="cnb-scroller"
        ref={scroller}
        role="grid"
        tabIndex={-1}
        aria-label={title || "Scenes"}
        aria-rowcount={layout.value.rows}
        aria-colcount={layout.value.columns}
        onScroll={look}
        onKeyDown={onKeyDown}
      >
        <Rows
          client={client}
          layout={layout}
          sight={sight}
          active={active}
          onOpen={(index) => {
            active.value = index;
            opened.value = index;
          }}
        />
      </div>
      {opened.value === null ? null : (
        <Viewer
          client={client}
          at={opened.value}
          onWalk={(index) => {
            opened.value = index;
          }}
          onClose={() => {
            const index = opened.peek();
            opened.value = null;
            if (index !== null) {
              focus(index);
            }
          }}
        />
      )}
    </>
  );
}

interface RowsProps {
  client: Client;
  layout: Signal<Layout>;
  sight: Signal<Sight>;
  active: Signal<number>;
  onOpen: (index: number) => void;
}

function Rows({ client, layout, sight, active, onOpen }: RowsProps) {
  const { cells } = client.store;
  const { columns, gap, width, frame, pitch, rows } = layout.value;
  const drawn = useComputed(() =>
    rowsToDraw(
      layout.value,
      cells.length,
      [sight.value.first, sight.value.end],
      active.value,
    ).join(),
  );
  const onFocus = (index: number) => {
    active.value = index;
  };
  const height = Math.max(0, rows * pitch - gap);
  return (
    <div class="cnb-rows" role="presentation" style={{ height: `${height}px` }}>
      {drawn.value
        .split(",")
        .filter(Boolean)
        .map(Number)
        .map((row) => (
          // biome-ignore lint/a11y/useSemanticElements: a table cannot be windowed
          // biome-ignore lint/a11y/useFocusableInteractive: the tiles have the focus
          <div
            key={row}
            class="cnb-row"
            role="row"
            aria-rowindex={row + 1}
            style={{
              top: `${row * pitch}px`,
              gap: `${gap}px`,
              gridTemplateColumns: `repeat(${columns}, ${width}px)`,
              "--cnb-frame": `${frame}px`,
            }}
          >
            {cells.slice(row * columns, (row + 1) * columns).map((cell) => (
              <Tile
                key={cell.i}
                cell={cell}
                client={client}
                active={active}
                onOpen={onOpen}
                onFocus={onFocus}
              />
            ))}
          </div>
        ))}
    </div>
  );
}

/** Keep the scroller's inner width, and whether it is on the visible part of the page. */
function useMeasures(
  scroller: { current: HTMLDivElement | null },
  inner: Signal<number>,
  onPage: Signal<boolean>,
  look: () => void,
): void {
  useLayoutEffect(() => {
    const box = scroller.current;
    if (!box) {
      return;
    }
    const resizes = new ResizeObserver((entries) => {
      // Where bars take room the padding gives it, so that tiles and header end alike.
      box.style.setProperty("--cnb-scrollbar", `${box.offsetWidth - box.clientWidth}px`);
      const width = Math.floor(entries[0]?.contentRect.width ?? 0);
      if (width > 0) {
        inner.value = width;
      }
      look();
    });
    resizes.observe(box);
    const meets = new IntersectionObserver(
      (entries) => {
        onPage.value = entries.at(-1)?.isIntersecting === true;
      },
      { rootMargin: "200px" },
    );
    meets.observe(box);
    return () => {
      resizes.disconnect();
      meets.disconnect();
    };
  }, [scroller, inner, onPage, look]);
}
