// The exported page's viewer: a click opens it, arrow keys walk, Escape closes. The grid is
// complete without it. Escape, the focus trap and the way back belong to <dialog> itself.
"use strict";

(() => {
  const viewer = document.querySelector(".viewer");
  const stage = viewer.querySelector(".stage");
  const picture = document.createElement("img");
  const about = viewer.querySelector(".about");
  const previous = viewer.querySelector(".previous");
  const next = viewer.querySelector(".next");
  const openers = [...document.querySelectorAll(".board .open")];
  let current = 0;
  stage.prepend(picture);

  function show(index) {
    current = Math.min(Math.max(index, 0), openers.length - 1);
    const opener = openers[current];
    const shown = opener.querySelector("img");
    const card = opener.closest("li");
    picture.src = shown.src;
    picture.alt = shown.alt;
    about.replaceChildren(card.querySelector("figcaption").cloneNode(true));
    about.classList.toggle("untitled", card.classList.contains("untitled"));
    about.scrollTop = 0;
    // A disabled button would lose the focus, and with it the keys.
    if (current === 0 && document.activeElement === previous) next.focus();
    if (current === openers.length - 1 && document.activeElement === next) previous.focus();
    previous.disabled = current === 0;
    next.disabled = current === openers.length - 1;
  }

  const steps = {
    ArrowRight: () => current + 1,
    ArrowLeft: () => current - 1,
    Home: () => 0,
    End: () => openers.length - 1,
  };

  for (const [index, opener] of openers.entries()) {
    opener.addEventListener("click", () => {
      show(index);
      viewer.showModal();
    });
  }
  // On the document: Tab may have led out of the dialog, to the browser's own buttons.
  document.addEventListener("keydown", (event) => {
    if (!viewer.open || event.altKey || event.ctrlKey || event.metaKey) return;
    if (!Object.hasOwn(steps, event.key)) return;
    event.preventDefault();
    show(steps[event.key]());
  });
  viewer.addEventListener("close", () => {
    if (viewer.open) return; // the event comes later, and it was opened again meanwhile
    openers[current].focus(); // of the picture looked at last, which may not be the first one
    openers[current].scrollIntoView({ block: "nearest" });
    picture.removeAttribute("src");
  });
  previous.addEventListener("click", () => show(current - 1));
  next.addEventListener("click", () => show(current + 1));
  viewer.querySelector(".close").addEventListener("click", () => viewer.close());
  stage.addEventListener("click", (event) => {
    if (event.target === event.currentTarget) viewer.close();
  });
})();
