/** Where tiles stand: columns of one width, rows of one height. So any row's place is known. */

/** Height of what stands below a picture, and the gaps, in CSS pixels; styles.css agrees. */
const CAPTION = 50;
const NARROW = 520;
const SMALLEST: readonly [number, number] = [150, 280];
const LARGEST = 384;
/** Up to this many cells all rows are in the document; above, those in sight and near it. */
const PLAIN = 300;
const OVERSCAN = 2;

export interface Layout {
  columns: number;
  rows: number;
  gap: number;
  /** Of a tile, in CSS pixels. */
  width: number;
  frame: number;
  /** From the top of one row to the top of the next. */
  pitch: number;
}

/**
 * Lay out tiles.
 *
 * @param inner Width that there is, in CSS pixels.
 * @param ratio Width over height of a picture.
 */
export function layOut(inner: number, count: number, ratio: number): Layout {
  const narrow = inner < NARROW;
  const gap = narrow ? 14 : 22;
  const wanted = Math.min(Math.max(190 * Math.sqrt(ratio), SMALLEST[0]), SMALLEST[1]);
  const fitting = Math.floor((inner + gap) / ((narrow ? SMALLEST[0] : wanted) + gap));
  const columns = Math.max(1, Math.min(fitting, count));
  const width = Math.max(1, Math.min((inner - gap * (columns - 1)) / columns, LARGEST));
  const frame = Math.round(width / ratio);
  return {
    columns,
    rows: Math.ceil(count / columns),
    gap,
    width: Math.floor(width * 100) / 100,
    frame,
    pitch: frame + CAPTION + gap,
  };
}

/** Return the rows that are in sight, end exclusive. */
export function rowsInSight(layout: Layout, top: number, height: number): [number, number] {
  const first = Math.floor(Math.max(0, top) / layout.pitch);
  const end = Math.ceil((top + height) / layout.pitch);
  return [Math.min(first, layout.rows), Math.max(0, Math.min(end, layout.rows))];
}

/** Return the rows to have in the document: all, or those near the sight and the active one. */
export function rowsToDraw(
  layout: Layout,
  count: number,
  [first, end]: [number, number],
  active: number,
): number[] {
  const all = count <= PLAIN;
  const from = all ? 0 : Math.max(0, first - OVERSCAN);
  const to = all ? layout.rows : Math.min(layout.rows, end + OVERSCAN);
  const rows = Array.from({ length: Math.max(0, to - from) }, (_, n) => from + n);
  const activeRow = Math.floor(active / layout.columns);
  if (activeRow < from) {
    rows.unshift(activeRow);
  } else if (activeRow >= to && activeRow < layout.rows) {
    rows.push(activeRow);
  }
  return rows;
}
