/**
 * Hides the grid's static twin while the live view is there.
 *
 * A saved notebook shows pictures without a kernel through a second output beside the widget:
 * text at first, then a contact sheet. Only an output right beside ours that carries the mark is
 * hidden, so nothing of the user's ever is. JupyterLab and Notebook 7 only; elsewhere nothing
 * happens.
 */

/** The twin's text begins with it; its JPEG has it as comment. widgets/twin.py agrees. */
export const MARK = "comfynb contact sheet";

const CHILD = ".jp-OutputArea-child";
/** How much of a picture is searched for the mark, in characters of base64 (a multiple of 4). */
const BEGINNING = 2048;
/** The view is put into the page some time after `render`; then we stop looking, in frames. */
const PATIENCE = 600;

/** Hide the twin beside a view until `signal` says that the view is gone. */
export function hideTwin(el: HTMLElement, signal: AbortSignal): void {
  const hidden = new Set<HTMLElement>();
  const observer = new MutationObserver(() => apply());

  const apply = () => {
    const own = el.closest(CHILD);
    const area = own?.parentElement;
    if (!own || !area) {
      return;
    }
    observer.disconnect();
    observer.observe(area, { childList: true });
    for (const beside of [own.previousElementSibling, own.nextElementSibling]) {
      if (beside instanceof HTMLElement) {
        observer.observe(beside, { childList: true, subtree: true, characterData: true });
        if (isTwin(beside)) {
          hidden.add(beside);
          beside.style.setProperty("display", "none", "important");
        }
      }
    }
  };

  let frame = 0;
  let tries = 0;
  const look = () => {
    if (el.isConnected) {
      apply();
    } else if (tries++ < PATIENCE) {
      frame = requestAnimationFrame(look);
    }
  };
  look();
  signal.addEventListener("abort", () => {
    cancelAnimationFrame(frame);
    observer.disconnect();
    for (const element of hidden) {
      element.style.removeProperty("display");
    }
  });
}

function isTwin(element: HTMLElement): boolean {
  const picture = element.querySelector("img");
  return picture ? isMarked(picture.src) : (element.textContent ?? "").trimStart().startsWith(MARK);
}

function isMarked(src: string): boolean {
  const [head, data] = src.split(",", 2);
  if (!data || !head?.startsWith("data:image/") || !head.endsWith(";base64")) {
    return false;
  }
  try {
    return atob(data.slice(0, BEGINNING)).includes(MARK);
  } catch {
    return false; // not base64 after all
  }
}
